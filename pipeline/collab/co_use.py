"""Hard negatives for lists: items that many users of a list's targets used too, of the same category first.

    train events -> how often each item goes with the targets -> the hardest that the user has not used -> drawn

No fitted model is asked, so what is learnt from such lists hangs on no retriever. Only train events are looked
at: an item that the user will use later may be drawn, since leaving it out would tell of the future.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOL = 3  # times as many hard ones as are wanted, to draw from
LISTS_AT_ONCE = 256  # bounds memory: rows of counts over all items


def used_by(events: pl.DataFrame, n_items: int) -> Any:
    """Sparse matrix (users, items) of 0 and 1: who used what. events: user, item."""
    from scipy.sparse import csr_matrix

    pairs = events.select("user", "item").unique()
    users, items = (pairs[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    return csr_matrix((np.ones(len(users)), (users, items)), shape=(int(users.max(initial=-1)) + 1, n_items))


def used_together(used: Any, targets: Sequence[Sequence[int]]) -> Iterator["NDArray[np.float64]"]:
    """For each list of targets how often each item (n_items,) was used by who used them, summed."""
    from scipy.sparse import csr_matrix

    for start in range(0, len(targets), LISTS_AT_ONCE):
        some = targets[start : start + LISTS_AT_ONCE]
        rows = np.repeat(np.arange(len(some)), [len(items) for items in some])
        columns = np.concatenate([np.asarray(items, dtype=np.int64) for items in some])
        wanted = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(some), used.shape[1]))
        yield from ((wanted @ used.T) @ used).toarray()


def kinship(categories: Mapping[int, Sequence[str]], n_items: int) -> dict[str, "NDArray[np.bool_]"]:
    """Which items (n_items,) are of each category."""
    found: dict[str, NDArray[np.bool_]] = {}
    for item, names in categories.items():
        for name in names:
            found.setdefault(name, np.zeros(n_items, dtype=np.bool_))[item] = True
    return found


def hardest(
    counts: "NDArray[np.float64]", akin: "NDArray[np.bool_]", allowed: "NDArray[np.bool_]"
) -> list[int]:
    """Allowed items used together with a target, the hardest first: akin, then by count, then item."""
    order = np.lexsort((np.arange(len(counts)), -counts, ~akin))
    return [int(item) for item in order[(allowed & (counts > 0))[order]]]


def hard_negatives(
    targets: Sequence[Sequence[int]],
    users: Sequence[int],
    used: Any,
    categories: Mapping[int, Sequence[str]],
    size: int,
    seed: int,
) -> list[list[int]]:
    """For each list of targets as many hard negatives as fill it up to `size` items, in order of draw.

    users: whose each list is; used: as of `used_by`; categories: item -> names. Fewer where there are none
    left.
    """
    n_items = used.shape[1]
    of = kinship(categories, n_items)
    found = []
    for wanted, user, counts in zip(targets, users, used_together(used, targets), strict=True):
        names = {name for item in wanted for name in categories.get(item, ())}
        akin = np.logical_or.reduce([of[name] for name in sorted(names)] or [np.zeros(n_items, dtype=np.bool_)])
        allowed = np.ones(n_items, dtype=np.bool_)
        allowed[used[user].indices] = False
        allowed[list(wanted)] = False
        lacking = max(size - len(wanted), 0)
        pool = hardest(counts, akin, allowed)[: POOL * lacking]
        drawn = np.random.default_rng([seed, user]).permutation(len(pool))[:lacking]
        found.append([pool[place] for place in drawn])
    return found
