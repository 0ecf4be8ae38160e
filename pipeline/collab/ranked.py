"""Orders of the whole catalogue: what every model of the next_item track hands back.

    queries -> blocks of users -> a model's scores (n, items) -> seen items masked -> first places and targets

No matrix of all users and all items is ever in memory: a block of users is. Equal scores stand in order of
item, so an order never depends on a block's size or on the device. An item that a model cannot score (cold,
or masked because it was seen) stands behind all others, in order of item.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

TRACK = "next_item"
TOP = 100  # first places that are kept of each order
CELLS = 1 << 23  # scores in memory at once


class Block(NamedTuple):
    """Some queries: users (n,) int64; their histories one after another, items (m,) int64, oldest first,
    with offsets (n + 1,) int64 saying where each begins."""

    user: Tensor
    items: Tensor
    offsets: Tensor


Scores = Callable[[Block], Tensor]  # block -> (n, items) float32, -inf where an item cannot be scored


def blocks(queries: pl.DataFrame, size: int) -> Iterator[tuple[pl.DataFrame, Block]]:
    """The queries in slices of at most `size`, with their arrays."""
    for rows in queries.iter_slices(size):
        lengths = rows["history"].list.len().to_numpy().astype(np.int64)
        items = rows["history"].explode(empty_as_null=False).to_numpy().astype(np.int64)
        yield (
            rows,
            Block(
                torch.from_numpy(rows["user"].to_numpy().astype(np.int64)),
                torch.from_numpy(items),
                torch.from_numpy(np.r_[0, np.cumsum(lengths)]),
            ),
        )


def order(
    scores: Scores, queries: pl.DataFrame, n_items: int, *, masked: bool = True, top: int = TOP
) -> pl.DataFrame:
    """Columns part, user, rank, item, score, target: each query's first `top` items and all its targets.

    queries: as the table `queries`; masked: items of the history stand behind all others. Sorted by part, user
    and rank. Raises FloatingPointError for a score of NaN.
    """
    found = [
        ordered(scores(block), block, rows, masked, top)
        for rows, block in blocks(queries, max(1, CELLS // n_items))
    ]
    return pl.concat(found).sort("part", "user", "rank")


def ordered(found: Tensor, block: Block, rows: pl.DataFrame, masked: bool, top: int) -> pl.DataFrame:
    """`order` of one block, from its scores (n, items)."""
    if found.isnan().any():
        raise FloatingPointError("a score is not a number")
    if masked:
        owner = torch.repeat_interleave(torch.arange(len(block.user)), block.offsets.diff())
        found = found.index_put((owner, block.items), torch.tensor(-torch.inf))
    held, items = (t.cpu() for t in found.sort(dim=1, descending=True, stable=True))
    n, width = held.shape
    wanted = torch.zeros_like(held, dtype=torch.bool)
    targets = rows["targets"]
    owner = np.repeat(np.arange(n), targets.list.len().to_numpy())
    wanted[
        torch.from_numpy(owner),
        torch.from_numpy(targets.explode(empty_as_null=False).to_numpy().astype(np.int64)),
    ] = True
    wanted = wanted.gather(1, items)
    user, place = (wanted | (torch.arange(width) < top)).nonzero(as_tuple=True)
    score = held[user, place].double().numpy()
    return pl.DataFrame(
        {
            "part": rows["part"].gather(user.numpy()),
            "user": rows["user"].gather(user.numpy()),
            "rank": (place + 1).numpy().astype(np.uint32),
            "item": items[user, place].numpy().astype(np.uint32),
            "score": pl.Series(score).replace(-np.inf, None),
            "target": wanted[user, place].numpy(),
        }
    )
