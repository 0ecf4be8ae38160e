"""What a user had done before each row: the last items strictly earlier, oldest first, with their labels."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS_AT_ONCE = 100_000  # histories gathered together; bounds memory


class Histories:
    """Where the history of each row (user, at) stands among the sorted past; items are gathered on demand.

    past: user, item, label, at, row of the interactions that a history may hold.
    """

    def __init__(self, rows: pl.DataFrame, past: pl.DataFrame, longest: int) -> None:
        past = past.sort("user", "at", "row")
        moments = past["at"].unique().sort().to_numpy()
        self.end = np.searchsorted(keyed(past, moments), keyed(rows, moments), side="left")
        start_of_user = np.searchsorted(past["user"].to_numpy(), rows["user"].to_numpy(), side="left")
        self.start = np.maximum(start_of_user, self.end - longest)
        self.items, self.labels = past["item"].to_numpy(), past["label"].to_numpy()

    @property
    def lengths(self) -> "NDArray[np.int64]":
        """Items of each row's history (rows,)."""
        return self.end - self.start

    def beside(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """The rows with `history` and `history_labels`, a piece at a time."""
        for cut in slices(rows.height):
            lists = gather(self.start[cut], self.end[cut], self.items, self.labels)
            yield pl.concat([rows[cut], lists], how="horizontal")


def keyed(rows: pl.DataFrame, moments: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """(user, place of `at` among the moments) as one number that sorts alike."""
    place = np.searchsorted(moments, rows["at"].to_numpy())
    return rows["user"].to_numpy().astype(np.int64) * (moments.size + 1) + place


def slices(rows: int, at_once: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Pieces that cover all rows; one empty piece for no rows."""
    for start in range(0, max(rows, 1), at_once):
        yield slice(start, start + at_once)


def gather(
    start: "NDArray[np.int64]", end: "NDArray[np.int64]", items: "NDArray[Any]", labels: "NDArray[Any]"
) -> pl.DataFrame:
    """Slices [start, end) of items and labels as two list columns."""
    offsets = np.concatenate([[0], np.cumsum(end - start)])
    place = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], end - start)
    lists = {
        "history": pa.LargeListArray.from_arrays(offsets, items[place]),
        "history_labels": pa.LargeListArray.from_arrays(offsets, labels[place]),
    }
    return pl.DataFrame(pa.table(lists))


def as_lists(values: pl.Series, lengths: pl.Series) -> pl.Series:
    """Values of all rows, one row after another, as one list per row of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int64)
    lists = pa.LargeListArray.from_arrays(offsets, values.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return pl.Series(values.name, lists, dtype=pl.List(values.dtype))
