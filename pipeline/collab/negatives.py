"""Learning from what was used alone: negatives are sampled, and a used item has to beat them.

    pairs of a batch + items that their users did not use -> bpr or bce, plus a penalty -> fit_sampled

What `next_item/mf` and `next_item/lightgcn` share beside the loop of `pipeline.collab.pairs`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from pipeline.collab.events import Trained
from pipeline.collab.pairs import Batch, Fit, Fitting, Saving, fit_pairs
from pipeline.collab.ranked import valid_ndcg_10
from pipeline.collab.sampled import Loss, SampledSettings
from pipeline.collab.vectors import Vectors, from_vectors

TRIES = 10  # draws for one negative; who used nearly everything may then get an item that they used


class Used(NamedTuple):
    """What negatives are drawn by: items with training rows (m,), and pairs user * n_items + item, sorted."""

    items: Tensor
    pairs: Tensor
    n_items: int


class Scored(NamedTuple):
    """Logits (n, m) of users and items, and the squared lengths of the vectors behind them, a row."""

    logits: Tensor
    size: Tensor


@dataclass(frozen=True)
class Learner:
    """A model that learns from sampled negatives.

    score: users (n,) and their items (n, m) -> Scored; read: the vectors whose inner products are the logits.
    """

    model: nn.Module
    score: Callable[[Tensor, Tensor], Scored]
    read: Callable[[], Vectors]


def fit_sampled(
    learner: Learner,
    rows: Trained,
    queries: pl.DataFrame,
    settings: SampledSettings,
    seed: int,
    checkpoint: Path | None = None,
) -> tuple[Vectors, Fit]:
    """Fit on the training rows, stop by NDCG@10 of the queries' validation part.

    Goes on from the checkpoint where there is one. The vectors are those of the best epoch.
    """
    known, of = rows.known, used(rows)

    def loss(batch: Batch, epoch: int, draws: Generator) -> Tensor:
        others = unused(batch.user, settings.negatives, of, draws)
        logits, size = learner.score(batch.user, torch.cat([batch.item[:, None], others], dim=1))
        return LOSSES[settings.loss](logits[:, 0], logits[:, 1:]) + settings.penalty * size / 2

    how = Fitting(
        seed=seed,
        lr=settings.lr,
        weight_decay=0.0,
        batch=settings.batch,
        epochs=settings.epochs,
        patience=settings.patience,
        judged_by="valid_ndcg_10",
    )
    fit = fit_pairs(
        learner.model,
        as_batch(rows),
        loss,
        judge=lambda: valid_ndcg_10(from_vectors(learner.read(), known), queries, rows.n_items),
        how=how,
        saving=Saving(checkpoint) if checkpoint else None,
    )
    return learner.read(), fit


def used(rows: Trained) -> Used:
    """What the training rows say was used."""
    items = np.flatnonzero(rows.known.items)
    pairs = np.unique(rows.user * rows.n_items + rows.item)
    return Used(torch.from_numpy(items), torch.from_numpy(pairs), rows.n_items)


def as_batch(rows: Trained) -> Batch:
    """All training pairs, labelled 1."""
    return Batch(torch.from_numpy(rows.user), torch.from_numpy(rows.item), torch.ones(len(rows.user)))


def unused(user: Tensor, count: int, of: Used, draws: Generator) -> Tensor:
    """`count` items for each user (n,) that they did not use in training, (n, count), uniform over items with
    training rows."""
    users = user.repeat_interleave(count)
    drawn, wrong = draw(len(users), of, draws), torch.arange(len(users))
    for _ in range(TRIES - 1):
        wrong = wrong[was_used(users[wrong], drawn[wrong], of)]
        if not len(wrong):
            break
        drawn[wrong] = draw(len(wrong), of, draws)
    return drawn.view(-1, count)


def draw(count: int, of: Used, draws: Generator) -> Tensor:
    """`count` of the items with training rows, uniform."""
    return of.items[torch.randint(len(of.items), (count,), generator=draws)]


def was_used(users: Tensor, items: Tensor, of: Used) -> Tensor:
    """Whether a user used an item in training, of pairs in tensors of one shape."""
    pair = users * of.n_items + items
    place = torch.searchsorted(of.pairs, pair).clamp(max=len(of.pairs) - 1)
    return of.pairs[place] == pair


def bpr(used: Tensor, others: Tensor) -> Tensor:
    """-log P(the used item beats the other), mean; logits used (n,), others (n, k)."""
    return softplus(others - used[:, None]).mean()


def bce(used: Tensor, others: Tensor) -> Tensor:
    """Binary cross-entropy of used items as 1 and others as 0, each side's mean; logits (n,), (n, k)."""
    return softplus(-used).mean() + softplus(others).mean()


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {"bpr": bpr, "bce": bce}


def squared(*vectors: Tensor) -> Tensor:
    """Squared lengths of vectors (n, ..., d), summed a row and averaged over the n rows."""
    return sum((v.square().sum() / len(v) for v in vectors), torch.zeros(()))
