"""From a history to items: a beam over the trie of ids, and the exact scores of all ids as its yardstick.

    inputs -> memory, once -> place by place: log-shares of the children -> the best beginnings -> items

Only what the trie holds is ever gone on with, so every id that comes out is an item's. What a child is worth
is its share among all tokens (`after`: the mask comes after the softmax, as with transformers' prefix
function) or among the valid children alone (`before`). Both ways of decoding add up the very same numbers; the
exact one meets each distinct beginning once, depth by depth.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.codes.t5 import PAD, T5, Memory, Past
from pipeline.codes.trie import Trie

Mask = Literal["after", "before"]
NODES = 8192  # beginnings read at once by the exact scores: bounds memory


class Writer(NamedTuple):
    """A network, the trie of the ids that it may write, where each place's tokens begin, and the mask."""

    network: T5
    trie: Trie
    starts: Sequence[int]
    mask: Mask = "after"

    def worth(self, states: Tensor, depth: int, children: Tensor) -> Tensor:
        """Log-probabilities (b, w, values) of the children (b, w, values) of nodes; of others anything."""
        valid = children >= 0 if self.mask == "before" else None
        return self.network.log_shares(states, self.starts[depth], self.trie.sizes[depth], valid)


class Written(NamedTuple):
    """Items (b, w), best first, their log-probabilities (b, w), -inf for a beam that came to nothing, and the
    codes (b, w, places) as they were written."""

    items: Tensor
    scores: Tensor
    codes: Tensor


@torch.no_grad()
def beam(writer: Writer, inputs: Tensor, beams: int, hidden: Tensor | None = None) -> Written:
    """The `beams` likeliest ids that a beam finds for each input (b, s), as many as the trie has at most.

    hidden: items (b, n_items) that must not come out; no beginning that leads to them alone is gone on with.
    """
    trie, rows = writer.trie, len(inputs)
    memory, past = writer.network.read(inputs), ()
    alive = trie.alive(hidden) if hidden is not None else None
    node = torch.zeros(rows, 1, dtype=torch.int64, device=inputs.device)
    score, token = torch.zeros(rows, 1, device=inputs.device), torch.full_like(node, PAD)
    codes = node.new_zeros(rows, 1, 0)
    for depth, size in enumerate(trie.sizes):
        states, past = writer.network.step(token, past, memory)
        children = trie.children(depth, node.flatten()).view(rows, -1, size)
        found = score[..., None] + writer.worth(states, depth, children)
        found = found.masked_fill(children < 0, -torch.inf)
        if alive is not None:
            open_ = alive[depth + 1].gather(1, children.clamp_min(0).flatten(1)).view_as(children)
            found = found.masked_fill(~open_, -torch.inf)
        most = min(beams, found[0].numel(), len(trie.depths[depth + 1].code))
        score, place = found.flatten(1).topk(most, dim=1)
        parent, code = place // size, place % size
        node = children.flatten(1).gather(1, place).clamp_min(0)
        token = code + writer.starts[depth]
        codes = torch.cat([picked(codes, parent), code[..., None]], 2)
        past = [(picked(key, parent), picked(value, parent)) for key, value in past]
    return Written(trie.items[node], score, codes)


def picked(held: Tensor, place: Tensor) -> Tensor:
    """held (b, w, ...) at places (b, v) of its second dimension."""
    return held[torch.arange(len(held), device=held.device)[:, None], place]


@torch.no_grad()
def exact(writer: Writer, inputs: Tensor, n_items: int) -> Tensor:
    """Log-probabilities (b, n_items) of all items of the trie, -inf for others."""
    rows = len(inputs)
    found = torch.full((rows, n_items), -torch.inf, device=inputs.device)
    memory = writer.network.read(inputs)
    root = Front(torch.zeros(rows, 1, device=inputs.device), ())
    descend(writer, memory, root, (0, 0, 1), found)
    return found


class Front(NamedTuple):
    """Neighbouring nodes of one depth: their log-probabilities (b, w), and the past of their parents."""

    score: Tensor
    past: Past


def descend(writer: Writer, memory: Memory, front: Front, where: tuple[int, int, int], found: Tensor) -> None:
    """Fill in the scores of all leaves below the nodes [start, stop) of a depth."""
    trie, (depth, start, stop) = writer.trie, where
    level = trie.depths[depth]
    if depth == trie.places:
        found[:, trie.items[start:stop]] = front.score
        return
    token = level.code[start:stop] + writer.starts[depth - 1] if depth else torch.zeros_like(level.code)
    states, past = writer.network.step(token.expand(len(found), -1), front.past, memory)
    nodes = torch.arange(start, stop, device=found.device)
    worth = writer.worth(states, depth, trie.children(depth, nodes).expand(len(found), -1, -1))
    below = trie.depths[depth + 1]
    for child in torch.arange(int(level.first[start]), int(level.first[stop])).split(
        max(1, NODES // len(found))
    ):
        first, last = int(child[0]), int(child[-1]) + 1
        parent = below.parent[first:last] - start
        score = front.score[:, parent] + worth[:, parent, below.code[first:last]]
        inner = past if depth + 1 < trie.places else ()  # nothing is written after a leaf
        kept = [(key[:, parent], value[:, parent]) for key, value in inner]
        descend(writer, memory, Front(score, kept), (depth + 1, first, last), found)
