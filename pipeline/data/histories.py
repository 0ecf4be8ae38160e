"""What a user had done before each row: the last items strictly earlier, oldest first, with their labels."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS_AT_ONCE = 500_000  # histories gathered together; bounds memory


def with_histories(rows: pl.DataFrame, interactions: pl.DataFrame, longest: int) -> pl.DataFrame:
    """Add `history` and `history_labels` to rows of (user, at): the user's last `longest` interactions before.

    interactions: user, item, label, at, row; every `at` of `rows` must be one of theirs.
    """
    past = interactions.sort("user", "at", "row")
    moments = past["at"].unique().sort().to_numpy()
    before = np.searchsorted(keyed(past, moments), keyed(rows, moments), side="left")
    start_of_user = np.searchsorted(past["user"].to_numpy(), rows["user"].to_numpy(), side="left")
    start = np.maximum(start_of_user, before - longest)
    items, labels = past["item"].to_numpy(), past["label"].to_numpy()
    pieces = [gather(start[cut], before[cut], items, labels) for cut in slices(rows.height)]
    return pl.concat([rows, pl.concat(pieces)], how="horizontal")


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
