"""Training events as arrays: what the collaborative models of the next_item track learn from.

    events -> Trained (user, item) -> a model's fit -> Scores of a block of queries

The cold policy of models that read histories stands here, once: an item that the model does not know stands
behind all others, and a user whose history holds no item that it knows gets the popular items.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.collab.labelled import Known

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.collab.ranked import Block, Scores
    from pipeline.stage import Artefact

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Sparse = Any  # scipy.sparse.csr_matrix, whose types are not declared


class Trained(NamedTuple):
    """Training rows, user by user, oldest first: dense users (n,), dense items (n,); how many ids there are."""

    user: Ints
    item: Ints
    n_users: int
    n_items: int

    @property
    def popularity(self) -> Ints:
        """Training rows of every item (n_items,)."""
        return np.bincount(self.item, minlength=self.n_items)

    @property
    def known(self) -> Known:
        """Which users (n_users,) and items (n_items,) have training rows."""
        return Known(np.bincount(self.user, minlength=self.n_users) > 0, self.popularity > 0)


def trained(split: "Artefact") -> Trained:
    """The training rows of `next_item/split`."""
    return trained_rows(split.table("events"), split.table("queries"), split.table("catalogue").height)


def trained_rows(events: pl.DataFrame, queries: pl.DataFrame, n_items: int) -> Trained:
    """The training rows of an `events` table. Raises ValueError where there are none."""
    rows = events.filter(pl.col("part") == "train").sort("user", "at", "row")
    if not rows.height:
        raise ValueError("the split has no training rows")
    user, item = (rows[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    largest = pl.concat([events["user"], queries["user"]]).to_numpy().max()
    return Trained(user, item, int(largest) + 1, n_items)


def cold_queries(queries: pl.DataFrame, rows: Trained) -> dict[str, int]:
    """Test queries of users without training rows, and those whose history holds no item with some."""
    test = queries.filter(pl.col("part") == "test")
    users, items = (pl.Series(np.flatnonzero(known), dtype=pl.UInt32) for known in rows.known)
    met = test.select(pl.col("history").list.eval(pl.element().is_in(items.implode())).list.any())
    return {
        "test_users_not_learnt_from": test.height - int(test["user"].is_in(users.implode()).sum()),
        "test_histories_of_nothing_known": test.height - int(met.to_series().sum()),
    }


def user_items(rows: Trained) -> Sparse:
    """Who used what in training: ones (n_users, n_items) float32."""
    return ones(rows.user, rows.item, (rows.n_users, rows.n_items))


def histories(block: "Block", known_items: Bools) -> Sparse:
    """Each query's history as ones (n, n_items) float32, without the items that are not known."""
    owner = np.repeat(np.arange(len(block.user)), block.offsets.diff().numpy())
    item = block.items.numpy()
    kept = known_items[item]
    return ones(owner[kept], item[kept], (len(block.user), len(known_items)))


def ones(row: Ints, column: Ints, shape: tuple[int, int]) -> Sparse:
    """A sparse matrix of ones at (row, column), once where a pair repeats."""
    from scipy.sparse import csr_matrix

    found = csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape)  # sorted, repeats summed
    found.data[:] = 1
    return found


def from_histories(popularity: Ints, known_items: Bools, weigh: Callable[[Sparse], Floats]) -> "Scores":
    """Scores that depend on the history alone: `weigh` maps histories (n, n_items) to scores (n, n_items)."""

    def scores(block: "Block") -> "Tensor":
        past = histories(block, known_items)
        found = weigh(past)
        found[np.diff(past.indptr) == 0] = popularity
        return hidden(found, known_items)

    return scores


def hidden(found: Floats, known_items: Bools) -> "Tensor":
    """Scores (n, n_items) as a tensor, -inf for the items that the model does not know."""
    import torch

    found[:, ~known_items] = -np.inf
    return torch.from_numpy(found)


def share(popularity: Ints) -> Floats:
    """Popularity (n_items,) as numbers in [0, 1): it orders what counts or similarities leave equal."""
    return (popularity / (popularity.max() + 1)).astype(np.float32)
