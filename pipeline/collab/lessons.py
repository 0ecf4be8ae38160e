"""Lists to learn to recommend from, made of train events alone.

    train events -> a share of the users -> past and last items of each -> candidates with hard negatives

No retriever is asked, and nothing of valid or test is looked at. Lists of other users, made alike, choose the
best step of tuning.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.collab.co_use import hard_negatives, used_by

ITEMS = pl.List(pl.UInt32)
ROLES = ("learn", "choose")


class Sizes(NamedTuple):
    """titles: targets of a list at most; candidates: items of it; share: users who teach; valid: who choose."""

    titles: int
    candidates: int
    share: float
    valid: int


def lesson(items: Sequence[int], most: int) -> tuple[list[int], list[int]]:
    """A user's items cut into a past and the `most` last ones, at most half; each once and new to the past.

    items: in order of time. Returns past and targets, both in order of time.
    """
    cut = len(items) - min(most, len(items) // 2)
    past = list(items[:cut])
    return past, [item for item in dict.fromkeys(items[cut:]) if item not in set(past)]


def drawn_users(users: Sequence[int], share: float, valid: int, seed: int) -> dict[str, list[int]]:
    """Role -> users in order: a share of them to learn from, and at most `valid` of the others to choose by."""
    order = [users[place] for place in np.random.default_rng(seed).permutation(len(users))]
    learn = max(round(share * len(order)), 1)
    return {"learn": sorted(order[:learn]), "choose": sorted(order[learn : learn + valid])}


def lessons(events: pl.DataFrame, items: pl.DataFrame, sizes: Sizes, seed: int) -> pl.DataFrame:
    """One list per drawn user: role, user, past, targets, candidates; those of a role in order of user.

    events: row, part, user, item, of which only train is looked at; items: item, categories. A user who has
    used too little for a target gives none.
    """
    train = events.filter(part="train").sort("row")
    used = dict(train.group_by("user").agg("item").sort("user").iter_rows())
    roles = drawn_users(list(used), sizes.share, sizes.valid, seed)
    rows = [(role, user, *lesson(used[user], sizes.titles)) for role in ROLES for user in roles[role]]
    schema = {"role": pl.String, "user": pl.UInt32, "past": ITEMS, "targets": ITEMS}
    table = pl.DataFrame([row for row in rows if row[-1]], schema=schema, orient="row")
    return table.with_columns(candidates(table, train, items, sizes.candidates, seed))


def candidates(rows: pl.DataFrame, train: pl.DataFrame, items: pl.DataFrame, size: int, seed: int) -> pl.Series:
    """Each row's targets and hard negatives (n,), up to `size` items in an order drawn by seed and user."""
    categories = dict(items.select("item", pl.col("categories").fill_null([])).iter_rows())
    targets, users = rows["targets"].to_list(), rows["user"].to_list()
    used = used_by(train, items.height)
    hard = hard_negatives(targets, users, used, categories, size, seed)
    mixed = [
        shuffled([*wanted, *others], seed, user)
        for wanted, others, user in zip(targets, hard, users, strict=True)
    ]
    return pl.Series("candidates", mixed, dtype=ITEMS)


def shuffled(items: Sequence[Any], *seed: int) -> list[Any]:
    """The same things in an order that hangs on these numbers alone."""
    return [items[place] for place in np.random.default_rng(seed).permutation(len(items))]
