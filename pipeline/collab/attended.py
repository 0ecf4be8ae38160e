"""The torch modules of DIN: attention of a target over what was liked before, and Dice.

Nothing is padded: a past is a run of items, and the attention's layers see real items only, so its statistics
and its work are those of the items there are.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, linear

from pipeline.collab.factors import table
from pipeline.collab.pasts import PAD
from pipeline.dropout import dropped

TINY = 1e-8
NEW = 0.1  # share of a batch's statistics in the running ones


class Shape(Protocol):
    """Settings that say what the network is made of."""

    @property
    def dim(self) -> int: ...
    @property
    def attention(self) -> tuple[int, ...]: ...
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def spread(self) -> float: ...


class Asked(NamedTuple):
    """Examples: users (n,), items (n,) int64, and what was liked before (n, length) int32, padded with PAD."""

    user: Tensor
    item: Tensor
    past: Tensor


class Tables(NamedTuple):
    """Vectors of users (n_users, dim) and items (n_items, dim)."""

    user: Tensor
    item: Tensor


class Found(NamedTuple):
    """What the head reads: [target, attended past, user] (n, 3 dim); and the logit (n,)."""

    vector: Tensor
    logit: Tensor


class Dice(nn.Module):
    """x where it is large for its column, slope times x where it is small, softly (Zhou et al., 2018).

    p x + (1 - p) slope x with p the sigmoid of x standardised: by the batch in learning, which moves the
    running mean and variance that standardise afterwards.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor, learning: bool) -> Tensor:
        variance, mean = self.follow(x) if learning else (self.variance, self.mean)
        large = torch.sigmoid((x - mean) * (variance + TINY).rsqrt())
        return x * (large + (1 - large) * self.slope)

    def follow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Variance and mean of the batch (width,), after the running ones took their share of them."""
        variance, mean = torch.var_mean(x, 0, correction=0)
        with torch.no_grad():
            self.variance.lerp_(variance, NEW)
            self.mean.lerp_(mean, NEW)
        return variance, mean


class Stack(nn.Module):
    """Linear maps through these widths to one number, Dice after each but the last."""

    def __init__(self, widths: Sequence[int], dropout: float, draws: Generator) -> None:
        super().__init__()
        sizes = list(zip(widths, [*widths[1:], 1], strict=True))
        self.dropout = dropout
        self.weights = nn.ParameterList(table(to, of, of**-0.5, draws) for of, to in sizes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(to)) for _, to in sizes)
        self.bends = nn.ModuleList(Dice(to) for _, to in sizes[:-1])

    def forward(self, x: Tensor, draws: Generator | None) -> Tensor:
        """(n, widths[0]) to (n,)."""
        *inner, last = zip(self.weights, self.biases, strict=True)
        for (weight, bias), bend in zip(inner, self.bends, strict=True):
            x = dropped(bend(linear(x, weight, bias), draws is not None), self.dropout, draws)
        return linear(x, *last).squeeze(1)


class DIN(nn.Module):
    """Deep interest network: what was liked before is weighed by what is asked for.

    The weights are not normalised, as in the paper: how much of a past fits the target is told too.
    """

    def __init__(self, n_users: int, n_items: int, shape: Shape, draws: Generator) -> None:
        super().__init__()
        self.user = table(n_users, shape.dim, shape.spread, draws)
        self.item = table(n_items, shape.dim, shape.spread, draws)
        self.attention = Stack((4 * shape.dim, *shape.attention), 0.0, draws)
        self.head = Stack((3 * shape.dim, *shape.layers), shape.dropout, draws)

    def tables(self) -> Tables:
        """Vectors of all users and items, as learnt."""
        return Tables(self.user, self.item)

    def forward(self, asked: Asked, tables: Tables, draws: Generator | None = None) -> Found:
        """What the head reads and says of each example. Draws: dropout, in training."""
        target = embedding(asked.item, tables.item)
        attended = self.attend(target, asked.past, tables.item, draws)
        vector = torch.cat([target, attended, embedding(asked.user, tables.user)], 1)
        return Found(vector, self.head(vector, draws))

    def attend(self, target: Tensor, past: Tensor, items: Tensor, draws: Generator | None) -> Tensor:
        """The past's items (n, length), weighed by the target (n, dim) and summed (n, dim); 0 of nothing."""
        real = past != PAD
        owner = real.nonzero()[:, 0]
        return weighed(self.attention, target, embedding(past[real].long(), items), owner, draws)


def weighed(attention: Stack, target: Tensor, past: Tensor, owner: Tensor, draws: Generator | None) -> Tensor:
    """Past items (m, dim) of rows owner (m,), weighed by their row's target (n, dim), summed (n, dim)."""
    found = torch.zeros_like(target)
    if not len(owner):
        return found
    query = target[owner]
    weight = attention(torch.cat([query, past, query - past, query * past], 1), draws)
    return found.index_add(0, owner, weight[:, None] * past)
