"""Rows of label 0 for sources that only say what users did: drawn, seeded, the same on every machine."""

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 64  # of one negative, before the user is taken to have used nearly everything


def with_negatives(rows: pl.DataFrame, clock: str, per_positive: int, seed: int) -> pl.DataFrame:
    """The rows and, for each like, rows of label 0 at the same moment, numbered after the last row.

    Items are drawn evenly from those that were there before: interacted with, by anybody, strictly earlier
    (where the source has only an order: in the train part). Never one that the user had used by then. A draw
    hangs on seed, user, item and time alone, so other rows and their order change it only through what was
    there. A user who had used nearly everything gets fewer; none are drawn twice at one moment.
    """
    likes = rows.filter(pl.col("label") == 1)
    pool = Pool(rows, by_order=clock == "order")
    asked = likes.select(pl.all().repeat_by(per_positive).explode()) if per_positive > 1 else likes
    draw = np.tile(np.arange(per_positive, dtype=np.uint64), likes.height)
    items = pool.draw(asked, draw, seed)
    drawn = asked.with_columns(item=pl.Series(items, dtype=pl.Int64), label=pl.lit(0, dtype=pl.UInt8))
    drawn = drawn.filter(pl.col("item") >= 0).cast({"item": pl.UInt32})
    drawn = drawn.unique(["user", "item", "at"], keep="first", maintain_order=True)
    numbers = pl.int_range(rows.height, rows.height + drawn.height, dtype=pl.UInt32, eager=True)
    return pl.concat([rows, drawn.with_columns(row=numbers)])


class Pool:
    """Items to draw from, in the order in which they appeared, and who had used what by when.

    rows: frame with user, item, at, part.
    """

    def __init__(self, rows: pl.DataFrame, by_order: bool) -> None:
        self.size = int(rows["item"].max() or 0) + 1  # type: ignore[arg-type]
        seen = rows.filter(pl.col("part") == "train").with_columns(at=-(2**62)) if by_order else rows
        first = seen.group_by("item").agg(pl.col("at").min()).sort("at", "item")
        self.items = first["item"].to_numpy().astype(np.int64)
        self.appeared = first["at"].to_numpy()
        used = rows.group_by("user", "item").agg(pl.col("at").min()).sort("user", "item")
        self.used = self.key(used["user"].to_numpy(), used["item"].to_numpy())
        self.used_at = used["at"].to_numpy()

    def key(self, user: "NDArray[Any]", item: "NDArray[Any]") -> "NDArray[np.int64]":
        return user.astype(np.int64) * self.size + item.astype(np.int64)

    def draw(self, asked: pl.DataFrame, draw: "NDArray[np.uint64]", seed: int) -> "NDArray[np.int64]":
        """One item for each row (user, item, at) of `asked`, or -1 where none was found; shape (rows,)."""
        user, at = asked["user"].to_numpy(), asked["at"].to_numpy()
        base = mixed(seed, user, asked["item"].to_numpy(), at, draw)
        there = np.searchsorted(self.appeared, at, side="left")
        found = np.full(asked.height, -1, dtype=np.int64)
        open_rows = np.flatnonzero(there > 0)
        for attempt in range(DRAWS):
            if not open_rows.size:
                break
            place = mixed(attempt, base[open_rows]) % there[open_rows].astype(np.uint64)
            item = self.items[place.astype(np.int64)]
            fresh = ~self.had_used(user[open_rows], item, at[open_rows])
            found[open_rows[fresh]] = item[fresh]
            open_rows = open_rows[~fresh]
        return found

    def had_used(
        self, user: "NDArray[Any]", item: "NDArray[np.int64]", at: "NDArray[np.int64]"
    ) -> "NDArray[np.bool_]":
        """True where the user had used the item at this moment or before."""
        key = self.key(user, item)
        place = np.minimum(np.searchsorted(self.used, key), self.used.size - 1)
        return (self.used[place] == key) & (self.used_at[place] <= at)


def mixed(seed: int, *columns: "NDArray[Any]") -> "NDArray[np.uint64]":
    """A hash of whole numbers, row by row, the same on every machine and in every version (SplitMix64)."""
    state = np.full(columns[0].shape, seed, dtype=np.uint64)
    for column in columns:
        state = (state ^ column.astype(np.int64).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state
