"""DIN on labelled pairs: what a user liked before, weighed by what is asked for, beside `mf` on the ctr track.

Zhou et al., KDD 2018, arXiv 1706.06978; as CoLLM trains it (Zhang et al., TKDE 2025, arXiv 2310.19488)

    [target item, attended liked history, user] -> layers of 200 and 80 -> logit; train labels -> one fit per
    penalty -> the best on validation -> a vector for each example, vectors of items, scores

Binary cross-entropy on the label of each row, Adam, stopped by validation AUC; Dice between the layers; the
attention's layers read [target, item, difference, product], and its weights are not normalised. What a language
model reads is as in CoLLM's code: of the user the concatenation above, three vectors wide; of the item its
vector three times.

Cold: a user or item without training rows has the mean vector of those with some; cold items are read in no
history; a history of nothing known gives zeros, which training rows without one teach.

Departures: one layer of 16 in the attention where CoLLM's code has 64 and 16, and vectors of 16 numbers where
it has 64, as a processor has time for no more (`attention` and `dim` set theirs); Dice's running statistics
take a tenth of each batch, not a hundredth, as fits are short; the penalty is chosen on validation.

Tried on the 1,535 validation rows of MovieLens-100K, one seed: these defaults had AUC .741 (epoch 4 of 7), lr
1e-3 .736, and 32 numbers with an attention of 64 and 16 at lr 1e-3 .727, in five times the time.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.collab.encoders import Encoded, every_example_has_vectors, write_vectors
from pipeline.collab.fitting import Batch, Epochs, Patience, Penalties, Rate, how_to_fit, keep_best
from pipeline.collab.labelled import (
    Floats,
    Known,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    known,
    mean_where_cold,
    rows_of,
    sigmoid,
    train_and_valid,
)
from pipeline.collab.mf import better_than_chance, vector_table
from pipeline.collab.pasts import Items, lengths, liked_before
from pipeline.evaluate.pointwise import auc
from pipeline.schema import Curve, ItemVectors, Pairs, Search
from pipeline.stage import Artefact, Check, Draft, Settings, stage

if TYPE_CHECKING:
    from pipeline.collab.attended import DIN, Asked, Tables
    from pipeline.collab.pairs import Fit

ROWS = 8192  # examples scored at once


class DINSettings(Settings):
    dim: int = Field(16, ge=1, description="numbers a vector; what a language model reads is three wide")
    history: int = Field(10, ge=1, description="liked items of a history that are read, the last ones")
    attention: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (16,), description="widths of the attention's layers; (64, 16) in CoLLM's code"
    )
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (200, 80), description="widths of the layers that read target, attended history and user"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="share of numbers set to 0 in training, to the 1/256")
    penalties: Penalties = (3.0,)
    lr: Rate = 3e-3
    batch: Batch = None
    epochs: Epochs = 20
    patience: Patience = 3
    spread: float = Field(0.1, gt=0, description="standard deviation of the first vectors")


class Read(NamedTuple):
    """What the network says of examples: what its head reads (n, 3 dim) float32, and logits (n,)."""

    vectors: NDArray[np.float32]
    logits: Floats


class Material(NamedTuple):
    """Examples of a split: part, user, item, label; what was liked before each (n, history); who is known."""

    examples: pl.DataFrame
    pasts: Items
    seen: Known

    def asked(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> "Asked":
        """The chosen examples as tensors."""
        import torch

        from pipeline.collab.attended import Asked

        user, item = (self.examples[name].to_numpy()[chosen].astype(np.int64) for name in ("user", "item"))
        return Asked(*(torch.from_numpy(a) for a in (user, item, self.pasts[chosen])))

    def of(self, part: str) -> NDArray[np.bool_]:
        """Which examples are of a part (n,)."""
        return (self.examples["part"] == part).to_numpy()


def tables_of(model: "DIN", seen: Known) -> "Tables":
    """Vectors of users and items, with the mean vector for cold ones."""
    import torch

    from pipeline.collab.attended import Tables

    learnt = (rows.detach().numpy() for rows in model.tables())
    return Tables(*(torch.from_numpy(mean_where_cold(*both)) for both in zip(learnt, seen, strict=True)))


def read(model: "DIN", tables: "Tables", asked: "Asked") -> Read:
    """What the network says of examples, some at a time to bound memory."""
    import torch

    from pipeline.collab.attended import Asked
    from pipeline.threads import one_thread

    with torch.no_grad(), one_thread():
        pieces = zip(*(column.split(ROWS) for column in asked), strict=True)
        found = [model(Asked(*piece), tables) for piece in pieces]
    vectors, logits = (torch.cat(columns).numpy() for columns in zip(*found, strict=True))
    return Read(vectors, logits.astype(np.float64))


def learn(
    held: Material, settings: DINSettings, penalty: float, seed: int, checkpoint: Path | None = None
) -> tuple["DIN", "Fit"]:
    """Fit on the training rows, stop by the validation rows; go on from the checkpoint if there is one."""
    from torch import Generator, Tensor
    from torch.nn.functional import binary_cross_entropy_with_logits

    from pipeline.collab import pairs
    from pipeline.collab.attended import DIN, Asked

    train, valid = train_and_valid(held.examples)
    first = pairs.generator(seed, settings.epochs)  # beyond the last epoch's draws
    model = DIN(len(held.seen.users), len(held.seen.items), settings, first)
    learnt_from, judged_by = held.asked(held.of("train")), held.asked(held.of("valid"))

    def loss(batch: pairs.Batch, epoch: int, draws: Generator) -> Tensor:
        some = Asked(*(column[batch.user] for column in learnt_from))
        return binary_cross_entropy_with_logits(model(some, model.tables(), draws).logit, batch.label)

    def judge() -> float:
        return auc(valid.label, read(model, tables_of(model, held.seen), judged_by).logits)

    fit = pairs.fit_pairs(
        model,
        pairs.to_batch(train._replace(user=np.arange(len(train.label)))),  # the place of a row, not its user
        loss,
        judge,
        how_to_fit(settings, penalty, len(train.label), seed),
        pairs.Saving(checkpoint) if checkpoint else None,
    )
    return model, fit


@stage(
    "ctr/din",
    settings=DINSettings,
    section="models",
    version=1,
    inputs={"split": "ctr/split"},
    tables={"item_vectors": ItemVectors, "curve": Curve, "search": Search, "pairs": Pairs},
    checks=(
        Check(every_pair_scored_once),
        Check(every_example_has_vectors),
        Check(better_than_chance, blocking=False),
    ),
    seeded=True,
    predicts="pairs",
    needs="heavy",
)
def din(split: Artefact, settings: DINSettings, out: Draft) -> None:
    """Attention of each target over what its user liked, learnt from labelled pairs; its vectors and scores."""
    examples, scan = rows_of(split), split.scan("examples")
    seen = known(scan)
    held = Material(examples, liked_before(scan, seen.items, settings.history), seen)
    best = keep_best(
        "din",
        lambda penalty, checkpoint: learn(held, settings, penalty, out.seed, checkpoint),
        settings.penalties,
        out,
    )
    tables, asked = tables_of(best, seen), ~held.of("train")
    found, items = read(best, tables, held.asked()), tables.item.numpy()
    score = found.logits[asked]
    out.table("item_vectors", vector_table("item", items, seen.items))
    out.table("pairs", as_pairs(examples, "din", score, sigmoid(score), out.seed))
    write_vectors(out, Encoded(found.vectors, np.tile(items, 3), np.arange(examples.height)))
    out.tensors("network", best.state_dict())
    size = sum(p.numel() for p in best.parameters())
    nothing = int((lengths(held.pasts)[asked] == 0).sum())
    out.metric(parameters=size, held_out_with_nothing_liked=nothing, **cold_counts(examples, seen))
