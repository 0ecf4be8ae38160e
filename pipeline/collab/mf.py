"""Matrix factorisation on labelled pairs, with biases.

    train labels -> one fit per penalty -> the best on validation -> vectors, held-out scores

logit = offset + user bias + item bias + <user vector, item vector>; binary cross-entropy; Adam; stopped by
validation AUC. The exported vectors hold the biases too: a user's is [vector, bias, 1], an item's
[vector, 1, bias], so that their inner product plus the offset is the logit and nothing learnt of an id is lost
to a model that reads them. A user or item without training rows has the mean vector of those with some: its
pairs are ranked by what the other side's bias and the average taste say.

Departures from the "MF" row of CoLLM and BinLLM (.6482 AUC, .6361 UAUC on CoLLM's ML-1M split): theirs has no
biases, starts from N(0, 1) with 256 dimensions, and leaves the cold rows where Adam drove them. Defaults were
chosen on the validation part of that split: spread .01, .1, .3 and 1 gave AUC .736, .734, .729 and .719 there,
8 to 64 dimensions differ by .001, and lr 1e-3 and 3e-3 by less than .0001 (3e-3 is faster). The penalty
depends on the data, so every run chooses it anew.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.collab.encoders import Encoded, every_example_has_vectors, write_vectors
from pipeline.collab.fitting import Batch, Epochs, Patience, Penalties, Rate, how_to_fit, keep_best
from pipeline.collab.labelled import (
    Floats,
    Known,
    Labelled,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    held_out,
    inner,
    known,
    mean_where_cold,
    rows_of,
    sigmoid,
    train_and_valid,
)
from pipeline.evaluate.pointwise import auc
from pipeline.schema import Curve, ItemVectors, Pairs, Search, UserVectors
from pipeline.stage import Artefact, Check, Draft, Input, Settings, Verdict, stage

if TYPE_CHECKING:
    from pipeline.collab.factors import Factors
    from pipeline.collab.pairs import Fit


class MFSettings(Settings):
    dim: int = Field(32, ge=1, description="numbers a vector, biases not counted")
    penalties: Penalties = (1.0, 3.0, 10.0)
    lr: Rate = 3e-3
    batch: Batch = None
    epochs: Epochs = 200
    patience: Patience = 10
    spread: float = Field(0.01, gt=0, description="standard deviation of the first vectors")


class Learnt(NamedTuple):
    """Vectors with biases, float32: users (n_users, dim + 2), items (n_items, dim + 2); and the offset."""

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    offset: float

    def logits(self, user: NDArray[Any], item: NDArray[Any]) -> Floats:
        """Logits (n,) of pairs."""
        return inner(self.users, self.items, user, item) + self.offset


def read_out(model: "Factors", seen: Known) -> Learnt:
    """The model's vectors, with the mean vector for cold users and items."""
    users, items = (vectors.numpy() for vectors in model.vectors().values())
    return Learnt(
        mean_where_cold(users, seen.users), mean_where_cold(items, seen.items), float(model.offset.detach())
    )


def learn(
    parts: tuple[Labelled, Labelled],
    seen: Known,
    settings: MFSettings,
    penalty: float,
    seed: int,
    checkpoint: Path | None = None,
) -> tuple[Learnt, "Fit"]:
    """Fit on the first part, stop by the second. Goes on from the checkpoint where there is one."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    from pipeline.collab.factors import Factors
    from pipeline.collab.pairs import Saving, fit_pairs, generator, to_batch

    train, valid = parts
    first = generator(seed, settings.epochs)  # beyond the last epoch's draws
    model = Factors(len(seen.users), len(seen.items), settings.dim, settings.spread, first)
    fit = fit_pairs(
        model,
        to_batch(train),
        loss=lambda batch, epoch, draws: binary_cross_entropy_with_logits(
            model(batch.user, batch.item), batch.label
        ),
        judge=lambda: auc(valid.label, read_out(model, seen).logits(valid.user, valid.item)),
        how=how_to_fit(settings, penalty, len(train.label), seed),
        saving=Saving(checkpoint) if checkpoint else None,
    )
    return read_out(model, seen), fit


def vector_table(entity: str, vectors: NDArray[np.float32], seen: NDArray[np.bool_]) -> pl.DataFrame:
    """One row per id, from 0: the vector and whether it was trained."""
    lists = pl.Series("vector", vectors).arr.to_list()
    return pl.DataFrame({entity: np.arange(len(vectors)), "vector": lists, "trained": seen})


def every_target_has_a_vector(draft: Draft, inputs: Mapping[str, Input], settings: MFSettings) -> Verdict:
    """Every user and item of the split has a vector, all of the set width."""
    split = inputs["split"]
    assert isinstance(split, Artefact)
    examples, missing = rows_of(split), {}
    for entity in ("user", "item"):
        vectors = draft.read(f"{entity}_vectors").filter(pl.col("vector").list.len() == settings.dim + 2)
        missing[f"{entity}s"] = examples.select(entity).unique().join(vectors, on=entity, how="anti").height
    return Verdict(not any(missing.values()), "", missing)


def better_than_chance(draft: Draft, inputs: Mapping[str, Input], settings: MFSettings) -> Verdict:
    """The best validation AUC is above one half: the model learnt something that holds later."""
    value = draft.metrics["valid_auc"]
    return Verdict(value > 0.5, f"validation AUC {value:.4f}", {"valid_auc": value})


@stage(
    "mf",
    settings=MFSettings,
    section="models",
    version=2,
    inputs={"split": "ctr/split"},
    tables={
        "user_vectors": UserVectors,
        "item_vectors": ItemVectors,
        "curve": Curve,
        "search": Search,
        "pairs": Pairs,
    },
    checks=(
        Check(every_pair_scored_once),
        Check(every_target_has_a_vector),
        Check(every_example_has_vectors),
        Check(better_than_chance, blocking=False),
    ),
    seeded=True,
    predicts="pairs",
    needs="heavy",
)
def mf(split: Artefact, settings: MFSettings, out: Draft) -> None:
    """Vectors and biases of users and items, learnt from labelled pairs, and their scores."""
    examples = rows_of(split)
    parts, seen, rows = train_and_valid(examples), known(split.scan("examples")), held_out(examples)
    best = keep_best(
        "mf",
        lambda penalty, checkpoint: learn(parts, seen, settings, penalty, out.seed, checkpoint),
        settings.penalties,
        out,
    )
    score = best.logits(rows["user"].to_numpy(), rows["item"].to_numpy())
    out.table("user_vectors", vector_table("user", best.users, seen.users))
    out.table("item_vectors", vector_table("item", best.items, seen.items))
    out.table("pairs", as_pairs(examples, "mf", score, sigmoid(score), out.seed))
    write_vectors(out, Encoded(best.users, best.items, examples["user"].to_numpy().astype(np.int64)))
    out.metric(
        parameters=best.users.size + best.items.size + 1,
        offset=best.offset,
        **cold_counts(examples, seen),
    )
