"""Which examples a language model is asked about, and whose past each question shows.

    split's examples -> few_shot -> past_of -> (a control: the past of donors)

Pure functions over frames. A past is a frame of two lists, `items` and `labels`, one row per example and oldest
first.
"""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SCORED = ("valid", "test")


def few_shot(examples: pl.DataFrame, count: int | None, seed: int) -> pl.DataFrame:
    """All valid and test rows, and `count` train rows drawn by seed (all for None), in order of row.

    The same rows for every method at equal seed and count.
    """
    train = examples.filter(part="train").sort("row")
    if count is not None and count < train.height:
        drawn = np.random.default_rng(seed).permutation(train.height)[:count]
        train = train[np.sort(drawn)]
    return pl.concat([train, examples.filter(pl.col("part").is_in(SCORED))]).sort("row")


def draw(rows: pl.DataFrame, count: int | None, seed: int) -> pl.DataFrame:
    """At most `count` rows, drawn by seed, in their own order."""
    if count is None or count >= rows.height:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(rows.height)[:count])]


def past_of(examples: pl.DataFrame, longest: int, liked_only: bool) -> pl.DataFrame:
    """Each example's latest `items` and their `labels`, at most `longest`, oldest first."""
    past = examples.select(items="history", labels="history_labels")
    if liked_only:
        liked = pl.col("labels").list.eval(pl.arg_where(pl.element() > 0))
        past = past.select(pl.all().list.gather(liked))
    return past.select(pl.all().list.tail(longest))


def donors(owners: "ArrayLike", seed: int) -> "NDArray[np.int64]":
    """For each place (n,) another place, of another owner, one to one: a shuffle for controls.

    Owners (users, or codes that several share) are put in a seeded order and every place takes from the one
    that is the largest owner's size further on. Falls short only where one owner has more than half.
    """
    rng = np.random.default_rng(seed)
    names, owner, counts = np.unique(np.asarray(owners), return_inverse=True, return_counts=True)
    order = np.lexsort((rng.random(len(owner)), rng.permutation(len(names))[owner]))
    taken = np.empty(len(owner), dtype=np.int64)
    taken[order] = np.roll(order, -int(counts.max(initial=0)))
    return taken


def donors_by_part(examples: pl.DataFrame, seed: int) -> "NDArray[np.int64]":
    """For each example the place of another user's example of the same part."""
    taken, user = np.empty(examples.height, dtype=np.int64), examples["user"].to_numpy()
    for part in ("train", *SCORED):
        places = np.flatnonzero((examples["part"] == part).to_numpy())
        taken[places] = places[donors(user[places], seed)]
    return taken
