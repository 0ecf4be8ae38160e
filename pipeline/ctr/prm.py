"""PRM's network: fields of each item of a list, its place and first score; every item attends to all others.

Pei et al., RecSys 2019, https://arxiv.org/abs/1904.06813

    Listed -> fields of user and item | pooled history | adapted vectors -> + place -> attention -> a score each

The fields are those of click-through models (`pipeline.ctr.network`), and knowledge joins by the same door: an
adaptor's vectors are two more of them. One layer of attention stands before layers over each item, as in KAR's
code. Departure from that code: places are learnt, as in PRM's paper, where it has sinusoids.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from pipeline.collab.factors import table
from pipeline.collab.pasts import PAD
from pipeline.collab.transformer import Norm, taken
from pipeline.ctr.adaptor import Adaptor, Fieldwise
from pipeline.ctr.fields import Fields
from pipeline.ctr.layers import Affine, Layers
from pipeline.ctr.network import POOLED, Asked, FieldVectors
from pipeline.dropout import dropped


class Shape(Protocol):
    """Settings that say what the network is made of."""

    @property
    def dim(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def spread(self) -> float: ...


class Listed(NamedTuple):
    """Lists: their users (n,), items (n, length) in first order, PAD behind the last; the items' first scores
    (n, length); the user's last items (n, longest), PAD on the right; which vectors of its user and of itself
    each item reads (n, length, 2); the target's place (n,)."""

    user: Tensor
    items: Tensor
    initial: Tensor
    past: Tensor
    dense: Tensor
    target: Tensor

    def flat(self) -> Asked:
        """Each item of each list as an example of its own (n * length); a place that pads asks for item 0."""
        length = self.items.shape[1]
        past = self.past.repeat_interleave(length, 0)
        user = self.user.repeat_interleave(length)
        return Asked(user, self.items.clamp(min=0).flatten(), past, past != PAD, self.dense.flatten(0, 1))


class Among(nn.Module):
    """What each item takes from all of its list, itself among them, added to it."""

    def __init__(self, shape: Shape, draws: Generator) -> None:
        super().__init__()
        self.heads, self.dropout, width = shape.heads, shape.dropout, shape.width
        self.before = Norm(width)
        self.attend = table(3 * width, width, width**-0.5, draws)
        self.join = table(width, width, width**-0.5, draws)

    def forward(self, x: Tensor, real: Tensor, draws: Generator | None) -> Tensor:
        """States (n, length, width) to states; real (n, length): which places hold an item."""
        found = taken(linear(self.before(x), self.attend), self.heads, real)
        return x + dropped(linear(found, self.join), self.dropout, draws)


class PRM(nn.Module):
    """Fields of items under attention over their list; an adaptor adds one for each kind of vector."""

    def __init__(
        self, found: Fields, length: int, shape: Shape, adaptor: Adaptor | None, draws: Generator
    ) -> None:
        super().__init__()
        self.fields = FieldVectors(found, shape.dim, shape.spread, draws)
        self.adaptor = adaptor
        count = len(found.attributes) + POOLED + (len(adaptor.kinds) if adaptor else 0)
        self.into = Affine(count * shape.dim + 1, shape.width, draws)
        self.place = table(length, shape.width, shape.spread, draws)
        self.among = Among(shape, draws)
        self.deep = Layers((shape.width, *shape.layers), shape.dropout, draws)
        self.out = Affine(shape.layers[-1], 1, draws)

    def forward(self, lists: Listed, dense: Fieldwise | None = None, draws: Generator | None = None) -> Tensor:
        """Scores (n, length), minus infinity where a place pads. dense: as of `Network`."""
        (n, length), flat = lists.items.shape, lists.flat()
        found = self.fields(flat)
        if self.adaptor is not None:
            source = dense or self.adaptor
            adapted = [source.read(kind, flat.dense[:, kind]) for kind in self.adaptor.kinds]
            found = torch.cat([found, torch.stack(adapted, 1)], 1)
        told = torch.cat([found.flatten(1), lists.initial.flatten()[:, None]], 1)
        real = lists.items != PAD
        states = self.among(self.into(told).view(n, length, -1) + self.place[:length], real, draws)
        scores = self.out(self.deep(states, draws)).squeeze(2)
        return scores.masked_fill(~real, float("-inf"))
