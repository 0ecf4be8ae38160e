"""The share rule: items without training rows let into a list behind what they are like.

    a model's scores + a group for each item + a share -> the same list with cold items of its groups in it

TIGER's rule (Rajput et al., NeurIPS 2023; its epsilon is the share). Any model can have it, given what a cold
item is like: a group is the items of the same first codes, or a known item and the cold ones nearest to it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.collab.ranked import Block, Scores


def sharing(
    scores: "Scores",
    groups: NDArray[np.int64],
    cold: NDArray[np.bool_],
    share: float,
    listed: int | None = None,
) -> "Scores":
    """The scores with cold items (n_items,) let in, as of `with_cold`; only behind so many first places.

    What a user has used is never listed again, but what is like it may be: it opens its group all the same.
    """

    def let_in(block: "Block") -> "Tensor":
        import torch

        from pipeline.collab.ranked import first

        found = scores(block)
        if listed is not None:
            held, item = first(found, min(listed, found.shape[1]))
            found = torch.full_like(found, -torch.inf).scatter_(1, item, held)
        used = np.split(block.items.numpy(), block.offsets[1:-1].numpy())
        return torch.from_numpy(with_cold(found.cpu().numpy(), groups, cold, share, used))

    return let_in


def with_cold(
    scores: NDArray[np.float32],
    groups: NDArray[np.int64],
    cold: NDArray[np.bool_],
    share: float,
    used: Sequence[NDArray[np.int64]] | None = None,
) -> NDArray[np.float32]:
    """Scores (n, n_items) with cold items (n_items,) let in behind the first of their own group (n_items,).

    Down to any place of a list at most `share` of it are cold; what has to wait comes later. Of a group -1 is
    nothing let in. Each score is below the one before it, so the order is this one and no other. used: items
    of each row that stand in no list.
    """
    shelves = shelved(groups, cold)
    found = scores.copy()
    for nth, row in enumerate(found):
        known = np.flatnonzero(np.isfinite(row))
        listed = known[np.lexsort((known, -row[known]))].tolist()
        left_out = frozenset() if used is None else frozenset(used[nth].tolist())
        place(row, list(waiting(listed, groups, shelves, share, left_out)))
    return found


def waiting(
    listed: Sequence[int],
    groups: NDArray[np.int64],
    shelves: Mapping[int, list[int]],
    share: float,
    left_out: Set[int] = frozenset(),
) -> Iterator[int]:
    """A list with the cold items of its groups put in as early as the share allows, without `left_out`."""
    queue: list[int] = []
    length = let_in = 0
    taken: set[int] = set()
    for item in listed:
        if item not in left_out:
            yield item
            length += 1
        if groups[item] not in taken:
            taken.add(int(groups[item]))
            queue += shelves.get(int(groups[item]), [])
        while queue and let_in + 1 <= share * (length + 1) + 1e-9:
            yield queue.pop(0)
            length, let_in = length + 1, let_in + 1


def place(row: NDArray[np.float32], listed: list[int]) -> None:
    """Make the scores of a row fall along a list."""
    last = np.float32(np.inf)
    for item in listed:
        last = min(row[item] if np.isfinite(row[item]) else last, np.nextafter(last, np.float32(-np.inf)))
        row[item] = last


def shelved(groups: NDArray[np.int64], cold: NDArray[np.bool_]) -> dict[int, list[int]]:
    """Group -> its cold items, in order; of group -1 none."""
    return {
        int(group): np.flatnonzero(cold & (groups == group)).tolist()
        for group in np.unique(groups[cold])
        if group >= 0
    }


def rank_in(listed: Iterable[int], target: int) -> float:
    """The rank of an item in a list; infinity where it is not there."""
    return next((float(rank) for rank, item in enumerate(listed, 1) if item == target), float("inf"))
