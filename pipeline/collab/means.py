"""Mean ratings as predictions: what any model of users and items has to beat.

    train labels -> global mean -> item means, user means (shrunk) -> probabilities of held-out pairs

On CoLLM's ML-1M split (Zhang et al., TKDE 2025) these two lines reach what the papers print for tuned 7B
language models: item mean AUC .7089 against TALLRec's .7097, item and user mean .7326 against CoLLM-MF's
.7295. A ranker that does not beat them has learnt who is popular, no more.

`item_mean` shrinks an item's mean label towards the global one as if the item had `weight` more rows at
the global mean. `item_user_mean` adds the user's shrunk mean in logits: item + user - global. Each method has
its own weight, the one with the best validation AUC, the smallest of equals.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from pydantic import Field, field_validator

from pipeline.collab.labelled import (
    Floats,
    Known,
    Labelled,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    held_out,
    known,
    rows_of,
    sigmoid,
    train_and_valid,
)
from pipeline.evaluate.pointwise import auc
from pipeline.schema import Pairs, Search
from pipeline.stage import Artefact, Check, Draft, Settings, stage

CLIP = 1e-6  # keeps a mean of only likes or only dislikes off 0 and 1, so its logit is finite


class MeansSettings(Settings):
    weights: tuple[float, ...] = Field(
        (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50),
        min_length=1,
        description="strengths of the pull towards the global mean, in rows; the best on validation is kept",
    )

    @field_validator("weights")
    @classmethod
    def positive(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        """Zero would leave an item without rows without a mean."""
        if min(weights) <= 0:
            raise ValueError("weights must be above 0")
        return tuple(sorted(weights))


class Means(NamedTuple):
    """Shrunk mean label of every item (n_items,) and user (n_users,), and of all rows, inside (0, 1)."""

    items: Floats
    users: Floats
    all: float


def shrunk_means(train: Labelled, seen: Known, weight: float) -> Means:
    """Mean labels of the training rows; an item or user without rows has the global mean."""
    overall = float(np.clip(train.label.mean(), CLIP, 1 - CLIP))

    def pulled(ids: np.ndarray, n: int) -> Floats:
        likes, rows = np.bincount(ids, train.label, n), np.bincount(ids, minlength=n)
        return np.clip((likes + weight * overall) / (rows + weight), CLIP, 1 - CLIP)

    return Means(pulled(train.item, len(seen.items)), pulled(train.user, len(seen.users)), overall)


def global_mean(means: Means, user: np.ndarray, item: np.ndarray) -> Floats:
    """P(label = 1) of pairs (n,): the same for all."""
    return np.full(len(item), means.all)


def item_mean(means: Means, user: np.ndarray, item: np.ndarray) -> Floats:
    """P(label = 1) of pairs (n,): the item's shrunk mean."""
    return means.items[item]


def item_user_mean(means: Means, user: np.ndarray, item: np.ndarray) -> Floats:
    """P(label = 1) of pairs (n,): the item's and the user's shrunk means, added in logits."""
    return sigmoid(logit(means.items[item]) + logit(means.users[user]) - logit(np.array(means.all)))


def logit(probability: Floats) -> Floats:
    """Log odds of probabilities inside (0, 1)."""
    return np.log(probability) - np.log1p(-probability)


SCORERS: dict[str, Callable[[Means, np.ndarray, np.ndarray], Floats]] = {
    "global_mean": global_mean,
    "item_mean": item_mean,
    "item_user_mean": item_user_mean,
}


def search(train: Labelled, valid: Labelled, seen: Known, weights: Sequence[float]) -> pl.DataFrame:
    """Validation AUC of every method at every weight (ascending), as a `search` table."""
    rows = []
    for weight in weights:
        means = shrunk_means(train, seen, weight)
        rows += [
            (name, weight, auc(valid.label, score(means, valid.user, valid.item)))
            for name, score in SCORERS.items()
        ]
    tried = pl.DataFrame(rows, schema=["method", "weight", "valid_auc"], orient="row")
    best = pl.col("valid_auc").arg_max().over("method")  # the first of equals
    return tried.with_columns(
        pl.format("weight={}", "weight").alias("candidate"),
        pl.lit(None, dtype=pl.UInt32).alias("epochs"),
        (pl.int_range(pl.len()).over("method") == best).alias("chosen"),
    )


@stage(
    "means",
    settings=MeansSettings,
    section="models",
    version=1,
    inputs={"split": "ctr/split"},
    tables={"pairs": Pairs, "search": Search},
    checks=(Check(every_pair_scored_once),),
    predicts="pairs",
)
def means(split: Artefact, settings: MeansSettings, out: Draft) -> None:
    """Global mean, item mean and item + user mean of the training labels, smoothed as validation says."""
    examples = rows_of(split)
    train, valid = train_and_valid(examples)
    seen, rows = known(split.scan("examples")), held_out(examples)
    tried = search(train, valid, seen, settings.weights)
    user, item = rows["user"].to_numpy(), rows["item"].to_numpy()
    frames = []
    for name, weight, valid_auc in tried.filter("chosen").select("method", "weight", "valid_auc").iter_rows():
        chance = SCORERS[name](shrunk_means(train, seen, weight), user, item)
        frames.append(as_pairs(examples, name, chance, chance))
        out.metric(**{f"{name}_weight": weight, f"{name}_valid_auc": valid_auc})
    out.table("pairs", pl.concat(frames))
    out.table("search", tried.drop("weight"))
    out.metric(**cold_counts(examples, seen))
