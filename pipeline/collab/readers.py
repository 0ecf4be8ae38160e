"""Models that read histories: their settings, and what their stages do.

    train events -> histories -> fit_sequences, stopped by validation NDCG@10 -> scores, vectors, tables

A user's vector is the state after their training events, so that its product with an item's vector is the
score of the item as their next one. Cold items stand behind all others and have the mean vector in
the table; users without training rows have the mean vector there. A query is answered from its own history,
whoever asks; one whose history holds nothing known is answered from the mean of the training histories' states.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.collab.events import Trained, cold_queries, trained
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, valid_ndcg_10, write_rankings
from pipeline.collab.vectors import TABLES, Vectors, every_id_has_a_vector, write_vectors
from pipeline.schema import Curve, Rankings
from pipeline.stage import Artefact, Check, Draft

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from pipeline.collab.pairs import Fit
    from pipeline.collab.ranked import Scores
    from pipeline.collab.sequences import Histories, Reader

LossName = Literal["cross_entropy", "sampled_softmax", "bce", "gbce"]
Build = Callable[[int, Any, "Generator"], "Reader"]  # items, settings, draws -> model


class ReaderSettings(RankedSettings):
    dim: int = Field(64, ge=1, description="numbers a vector, of items and of states")
    length: int = Field(
        50, ge=1, description="items of a history that are read at once; the last ones in scoring"
    )
    loss: LossName = Field(
        "cross_entropy",
        description="cross_entropy: the target against all items; sampled_softmax: against drawn ones that "
        "stand for all; bce: yes or no, of the target and one drawn item; gbce: of many drawn ones, calibrated",
    )
    negatives: int = Field(256, ge=1, description="drawn items that a step shares; sampled_softmax and gbce")
    calibration: float = Field(0.75, ge=0, le=1, description="how far gbce undoes overconfidence; 0 is bce")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of numbers set to 0 in training, to the 1/256")
    spread: float = Field(0.02, gt=0, description="standard deviation of the first vectors")
    lr: float = Field(2e-3, gt=0, description="Adam's step size")
    weight_decay: float = Field(0.0, ge=0, description="Adam's L2 penalty")
    averaged: int = Field(
        1000,
        ge=0,
        description="steps, about, over which weights are averaged: the mean is judged and kept. 0: no mean",
    )
    batch: int = Field(2048, ge=1, description="positions a step, padding counted")
    epochs: int = Field(100, ge=1, description="passes over the training events, at most")
    patience: int = Field(10, ge=1, description="epochs without a better validation NDCG@10 before it stops")


STAGE: dict[str, Any] = {
    "section": "models",
    "inputs": {"split": "next_item/split"},
    "tables": {"rankings": Rankings, "curve": Curve, **TABLES},
    "checks": (Check(every_query_ranked_once), Check(every_id_has_a_vector)),
    "seeded": True,
    "predicts": "rankings",
    "needs": "gpu",
}


class Material(NamedTuple):
    """What a network learns from: each item's place (n_items,) among the learnt or -1, and the histories."""

    place: "Tensor"
    train: "Histories"

    @property
    def items(self) -> int:
        """How many items are learnt."""
        return int((self.place >= 0).sum())


class Learnt(NamedTuple):
    """A fitted reader: its network, scores of queries, vectors of all ids, and how the fit went."""

    network: "Reader"
    scores: "Scores"
    vectors: Vectors
    fit: "Fit"


def material(rows: Trained) -> Material:
    """The items with training rows, in order, and the users' training histories."""
    from pipeline.collab.sequences import known_only

    items, offsets = (
        as_tensor(a) for a in (rows.item, np.searchsorted(rows.user, np.arange(rows.n_users + 1)))
    )
    place = as_tensor(np.where(rows.known.items, np.cumsum(rows.known.items) - 1, -1))
    return Material(place, known_only(items, offsets, place))


def learn(
    rows: Trained,
    queries: pl.DataFrame,
    settings: ReaderSettings,
    build: Build,
    seed: int,
    checkpoint: Path | None = None,
) -> Learnt:
    """Fit on the training rows, stop by the validation queries; go on from the checkpoint if there is one."""
    from pipeline.collab.pairs import Saving, generator
    from pipeline.collab.sequence_losses import item_loss
    from pipeline.collab.sequences import Reading, Steps, fit_sequences, reader_scores

    place, train = held = material(rows)
    model = build(held.items, settings, generator(seed, settings.epochs))  # beyond the last epoch's draws
    loss = item_loss(settings)

    def mean_loss(these: Steps, draws: "Generator") -> "Tensor":
        return loss(
            model(these.inputs, draws, these.lengths)[these.real], model.vectors(), these.targets, draws
        )

    def scores() -> "Scores":
        return reader_scores(model, place, train, settings.length)

    fit = fit_sequences(
        model,
        train,
        mean_loss,
        judge=lambda: valid_ndcg_10(scores(), queries, rows.n_items),
        how=Reading(
            seed=seed,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            batch=settings.batch,
            epochs=settings.epochs,
            patience=settings.patience,
            averaged=settings.averaged,
            length=settings.length,
        ),
        saving=Saving(checkpoint) if checkpoint else None,
    )
    return Learnt(model, scores(), read_out(model, train, place, settings.length), fit)


def as_tensor(array: np.ndarray) -> "Tensor":
    """An array of whole numbers as int64."""
    import torch

    return torch.from_numpy(array.astype(np.int64))


def read_out(model: "Reader", train: "Histories", place: "Tensor", length: int) -> Vectors:
    """States after the training histories (n_users, d) and item vectors (n_items, d); anything for cold ids."""
    from pipeline.collab.sequences import last_states

    users, items = last_states(model, train, length), model.vectors().detach()
    return Vectors(users.nan_to_num().numpy(), items[place.clamp_min(0)].numpy())


def fit_and_rank(split: Artefact, settings: ReaderSettings, out: Draft, build: Build, *, method: str) -> None:
    """What the stage of a reader does: fit, rank all queries, write vectors, curve and counts."""
    from pipeline.collab.pairs import curve_table

    rows, queries = trained(split), split.table("queries")
    learnt = learn(rows, queries, settings, build, out.seed, out.checkpoints / f"{method}.safetensors")
    write_rankings(out, method, learnt.scores, split, settings)
    write_vectors(out, learnt.vectors, rows.known)
    out.tensors("network", learnt.network.state_dict())
    out.table("curve", curve_table({"fit": learnt.fit}))
    size = sum(p.numel() for p in learnt.network.parameters())
    out.metric(epochs=learnt.fit.best_epochs, parameters=size, **cold_queries(queries, rows))


def from_network(build: Build) -> "Callable[[Artefact, Artefact, ReaderSettings], Scores]":
    """The scorer of a reader's stage: the network that the artefact holds, built and filled again."""

    def scorer(split: Artefact, fitted: Artefact, settings: ReaderSettings) -> "Scores":
        from pipeline.collab.pairs import generator
        from pipeline.collab.sequences import reader_scores

        place, train = held = material(trained(split))
        network = build(held.items, settings, generator(fitted.seed, settings.epochs))
        network.load_state_dict(fitted.tensors("network"))
        return reader_scores(network, place, train, settings.length)

    return scorer
