"""A prefix trie over ids, as arrays: what may follow a beginning of an id, for many beginnings at once.

    ids (n, places) -> distinct beginnings of each length, sorted -> children (m, values) of nodes (m,)

Nodes of one depth are the distinct beginnings of that length in order of their codes, so a node's children are
neighbours, and so are all leaves below it. The root is the one node of depth 0, a leaf is one whole id.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.codes.ids import Ids


class Depth(NamedTuple):
    """The nodes of one depth (n,): each one's parent, its last code, and where its children begin (n + 1,)."""

    parent: Tensor
    code: Tensor
    first: Tensor


class Trie(NamedTuple):
    """Depths 0 (the root) to the number of places, the leaves' items (n,), values that each place may take."""

    depths: tuple[Depth, ...]
    items: Tensor
    sizes: tuple[int, ...]

    @property
    def places(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device) -> "Trie":
        """The same trie on a device."""
        depths = tuple(Depth(*(array.to(device) for array in depth)) for depth in self.depths)
        return Trie(depths, self.items.to(device), self.sizes)

    def children(self, depth: int, nodes: Tensor) -> Tensor:
        """Nodes (m,) of a depth -> their children (m, values), by code; -1 where no id goes on so."""
        first = self.depths[depth].first
        start, count = first[nodes], first[nodes + 1] - first[nodes]
        owner = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), count)
        nth = torch.arange(len(owner), device=nodes.device) - (count.cumsum(0) - count)[owner]
        child = start[owner] + nth
        found = torch.full((len(nodes), self.sizes[depth]), -1, device=nodes.device)
        found[owner, self.depths[depth + 1].code[child]] = child
        return found

    def alive(self, hidden: Tensor) -> list[Tensor]:
        """For each depth, nodes (b, n) that have an item below them which is not hidden (b, n_items)."""
        found = [~hidden[:, self.items]]
        for depth in reversed(self.depths[:-1]):
            below = torch.nn.functional.pad(found[0].int().cumsum(1), (1, 0))
            found.insert(0, below[:, depth.first[1:]] > below[:, depth.first[:-1]])
        return found


def grow(ids: Ids) -> Trie:
    """The trie of ids. Raises ValueError where there are none, a code is too large, or two are the same."""
    codes, sizes = ids.codes, ids.sizes
    if not len(codes):
        raise ValueError("there is no id to build a trie of")
    if (codes < 0).any() or (codes >= np.array(sizes)).any():
        raise ValueError(f"a code lies outside the sizes {sizes}")
    order = np.lexsort(codes.T[::-1])
    rows = codes[order]
    new = np.ones((len(rows), len(sizes) + 1), dtype=np.bool_)  # where a beginning of each length is a new one
    new[1:, 0] = False
    new[1:, 1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
    if not new[:, -1].all():
        twice = ids.items[order][np.flatnonzero(~new[:, -1])[0]]
        raise ValueError(f"item {twice} has the same id as another one")
    node = new.cumsum(0) - 1  # of each row, its node at each depth
    depths = [depth_of(rows, new, node, place) for place in range(len(sizes) + 1)]
    return Trie(tuple(depths), torch.from_numpy(ids.items[order].copy()), tuple(sizes))


def depth_of(rows: np.ndarray, new: np.ndarray, node: np.ndarray, place: int) -> Depth:
    """Nodes of one depth, from sorted codes (n, places), where beginnings are new, and rows' nodes."""
    at = np.flatnonzero(new[:, place])
    above = max(place - 1, 0)
    code = rows[at, above] if place else np.zeros(1, np.int64)
    below = node[:, place + 1] if place < rows.shape[1] else np.arange(len(rows))
    first = np.r_[below[at], below[-1] + 1]
    return Depth(*(torch.from_numpy(array.astype(np.int64)) for array in (node[at, above], code, first)))
