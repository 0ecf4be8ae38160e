"""What the user of each example had liked before it, as the models of the `ctr` track read it.

    examples (history, history_labels) -> liked_before -> (n, longest) items, oldest first, PAD on the right

Only liked items that the model knows are read: a cold item has the mean vector, which says nothing of a taste.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.data.histories import slices

PAD = -1
Bools = NDArray[np.bool_]
Items = NDArray[np.int32]


def liked_before(examples: pl.DataFrame | pl.LazyFrame, known_items: Bools, longest: int) -> Items:
    """The last liked items (n, longest) of each example's history, in the order of the examples.

    Histories are looked through a piece at a time, so a scan of them is never whole in memory.
    """
    lists = examples.lazy().select("history", "history_labels")
    rows = lists.select(pl.len()).collect().item()
    pieces = [lists.slice(cut.start, cut.stop - cut.start).collect() for cut in slices(rows)]
    return np.concatenate([last_liked(piece, known_items, longest) for piece in pieces])


def last_liked(lists: pl.DataFrame, known_items: Bools, longest: int) -> Items:
    """The last `longest` liked and known items of each row's history (n, longest)."""
    owner = np.repeat(np.arange(lists.height), lists["history"].list.len().to_numpy())
    items, labels = (lists[name].explode(empty_as_null=False).to_numpy() for name in lists.columns)
    kept = (labels > 0) & known_items[items]
    owner, items = owner[kept], items[kept]
    ends = np.cumsum(np.bincount(owner, minlength=lists.height))
    column = longest - (ends[owner] - np.arange(len(owner)))  # counted from the end
    short = np.maximum(longest - np.diff(ends, prepend=0), 0)[owner]
    found = np.full((lists.height, longest), PAD, np.int32)
    late = column >= 0
    found[owner[late], (column - short)[late]] = items[late]
    return found


def lengths(pasts: Items) -> NDArray[np.int64]:
    """How many items each past holds (n,)."""
    return (pasts != PAD).sum(1)


def distinct(pasts: Items) -> tuple[Items, NDArray[np.int64]]:
    """The pasts that differ (u, longest), and which of them each example has (n,)."""
    found, which = np.unique(pasts, axis=0, return_inverse=True)
    return found, which.reshape(-1)
