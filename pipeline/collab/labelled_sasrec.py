"""SASRec on labelled pairs: what a user liked before, read by a causal transformer; beside `mf`, track `ctr`.

Kang and McAuley, ICDM 2018, arXiv 1808.09781; as CoLLM trains it (Zhang et al., TKDE 2025, arXiv 2310.19488)

    liked history -> transformer -> last state; logit = <state, item>; train labels -> one fit per penalty
    -> the best on validation -> a state for each example, vectors of items, scores

Binary cross-entropy on the label of each row, Adam, stopped by validation AUC. The network is the one of
`next_item/sasrec`, its departures included. Histories come from the split: the last `length` liked items before
the example, of the parts that the split's `history_from` allows.

Cold: an item without training rows has the mean vector and is read in no history. An example with nothing known
in its history has the mean of the states that the users' training histories end in; such training rows are not
learnt from.

Departures: a user's training rows share one reading of their history (`pipeline.collab.labelled_sequences`),
so in training a state has read 1 to `length` items; 32 numbers and 20 items where CoLLM has 64 and 25.

Tried on validation, one seed: on MovieLens-100K (1,535 rows) lr 1e-3 and 2e-3 had AUC .719 and .720, 64 wide
.718; on CoLLM's ML-1M split (10,401 rows) lr 2e-3 .691, with a penalty of 30 .691, lr 1e-3, dropout .4 .692.
None is told apart. Who asks is in no vector, only what they liked, so AUC over all rows is below that of `mf`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.collab.encoders import Encoded, every_example_has_vectors, write_vectors
from pipeline.collab.fitting import Epochs, Patience, Penalties, Rate, keep_best
from pipeline.collab.labelled import (
    Known,
    Labelled,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    inner,
    known,
    mean_where_cold,
    sigmoid,
    train_and_valid,
)
from pipeline.collab.mf import better_than_chance, vector_table
from pipeline.collab.pasts import Items, distinct, lengths, liked_before
from pipeline.collab.vectors import Vectors
from pipeline.evaluate.pointwise import auc
from pipeline.schema import Curve, ItemVectors, Pairs, Search
from pipeline.stage import Artefact, Check, Draft, Settings, stage

if TYPE_CHECKING:
    from pipeline.collab.labelled_sequences import Questions
    from pipeline.collab.pairs import Fit
    from pipeline.collab.sequences import Reader


class LabelledSASRecSettings(Settings):
    dim: int = Field(32, ge=1, description="numbers a vector, of items and of states")
    length: int = Field(20, ge=1, description="liked items of a history that are read, the last ones")
    layers: int = Field(2, ge=1, description="attention layers")
    heads: int = Field(1, ge=1, description="attention heads a layer; divides dim")
    widening: int = Field(1, ge=1, description="width of a layer's inner map, in dims")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of numbers set to 0 in training, to the 1/256")
    penalties: Penalties = (3.0,)
    lr: Rate = 1e-3
    batch: int = Field(1024, ge=1, description="liked items read in a step, padding counted")
    epochs: Epochs = 60
    patience: Patience = 5
    spread: float = Field(0.02, gt=0, description="standard deviation of the first vectors")

    @model_validator(mode="after")
    def heads_share_the_width(self) -> "LabelledSASRecSettings":
        if self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        return self


class Material(NamedTuple):
    """train: its rows as questions; valid; pasts: what was liked before each example (n_examples, length)."""

    train: "Questions"
    valid: Labelled
    valid_pasts: Items
    pasts: Items
    seen: Known
    rows: int


def material(examples: pl.DataFrame, seen: Known, pasts: Items, length: int) -> Material:
    """What is learnt from. examples: part, row, user, item, label, at; pasts (n, length) beside them.

    Raises ValueError where there is nothing to learn from or to choose by.
    """
    from pipeline.collab.labelled_sequences import questions

    train, valid = train_and_valid(examples)
    in_valid = (examples["part"] == "valid").to_numpy()
    asked = questions(examples.filter(pl.col("part") == "train"), length)
    return Material(asked, valid, pasts[in_valid], pasts, seen, len(train.label))


def states(model: "Reader", train: "Questions", pasts: Items) -> NDArray[np.float32]:
    """The state (n, d) after each past; after nothing, the mean of those that training histories end in."""
    from pipeline.collab.labelled_sequences import as_histories
    from pipeline.collab.sequences import last_states

    found = last_states(model, as_histories(pasts), pasts.shape[1]).numpy()
    empty = lengths(pasts) == 0
    if empty.any():
        usual = last_states(model, train.liked, pasts.shape[1])
        found[empty] = usual.double().mean(0).float().numpy()
    return found


def items_of(model: "Reader", seen: Known) -> NDArray[np.float32]:
    """Item vectors (n_items, d), with the mean vector for cold ones."""
    return mean_where_cold(model.vectors().detach().numpy(), seen.items)


def learn(
    held: Material, settings: LabelledSASRecSettings, penalty: float, seed: int, checkpoint: Path | None = None
) -> tuple["Reader", "Fit"]:
    """Fit on the training rows, stop by the validation rows; go on from the checkpoint if there is one."""
    from torch import Tensor
    from torch.nn.functional import binary_cross_entropy_with_logits, embedding

    from pipeline.collab.labelled_sequences import fit_labelled
    from pipeline.collab.pairs import Fitting, Saving, generator
    from pipeline.collab.transformer import Transformer

    first = generator(seed, settings.epochs)  # beyond the last epoch's draws
    model = Transformer(len(held.seen.items), settings, first)
    pasts, which = distinct(held.valid_pasts)

    def loss(found: Tensor, target: Tensor, label: Tensor) -> Tensor:
        logits = (found * embedding(target, model.vectors())).sum(1)
        return binary_cross_entropy_with_logits(logits, label)

    def judge() -> float:
        users, items = states(model, held.train, pasts), items_of(model, held.seen)
        return auc(held.valid.label, inner(users, items, which, held.valid.item))

    how = Fitting(
        seed=seed,
        lr=settings.lr,
        weight_decay=penalty / held.rows,
        batch=settings.batch,
        epochs=settings.epochs,
        patience=settings.patience,
    )
    return model, fit_labelled(model, held.train, loss, judge, how, Saving(checkpoint) if checkpoint else None)


def read_out(model: "Reader", held: Material) -> tuple[Vectors, NDArray[np.int64]]:
    """States of the pasts that differ (u, d) and item vectors; and which state each example has (n,)."""
    pasts, which = distinct(held.pasts)
    return Vectors(states(model, held.train, pasts), items_of(model, held.seen)), which


@stage(
    "ctr/sasrec",
    settings=LabelledSASRecSettings,
    section="models",
    version=3,
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
def labelled_sasrec(split: Artefact, settings: LabelledSASRecSettings, out: Draft) -> None:
    """A causal transformer over what each user liked, learnt from labelled pairs; its states and scores."""
    scan = split.scan("examples")
    examples, seen = scan.select("part", "row", "user", "item", "label", "at").collect(), known(scan)
    held = material(examples, seen, liked_before(scan, seen.items, settings.length), settings.length)
    best = keep_best(
        "sasrec",
        lambda penalty, checkpoint: learn(held, settings, penalty, out.seed, checkpoint),
        settings.penalties,
        out,
    )
    vectors, which = read_out(best, held)
    asked = (examples["part"] != "train").to_numpy()
    score = inner(*vectors, which[asked], examples["item"].to_numpy()[asked])
    out.table("item_vectors", vector_table("item", vectors.items, seen.items))
    out.table("pairs", as_pairs(examples, "sasrec", score, sigmoid(score), out.seed))
    write_vectors(out, Encoded(*vectors, which))
    out.tensors("network", best.state_dict())
    size = sum(p.numel() for p in best.parameters())
    nothing = int((lengths(held.pasts)[asked] == 0).sum())
    out.metric(parameters=size, held_out_with_nothing_liked=nothing, **cold_counts(examples, seen))
