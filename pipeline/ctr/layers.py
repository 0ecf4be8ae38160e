"""Layers that click-through backbones share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear, relu

from pipeline.collab.factors import table
from pipeline.dropout import dropped


class Shape(Protocol):
    """Settings that say what a backbone is made of."""

    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def depth(self) -> int: ...
    @property
    def attention(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...


class Events(NamedTuple):
    """What was used before: vectors (m, dim) of its items and labels, the row that each is of (m,); targets
    (n, dim)."""

    vectors: Tensor
    owner: Tensor
    target: Tensor


class Backbone(Protocol):
    """Fields (n, fields, dim) to logits (n,). Events are None unless it says that it reads them."""

    reads_events: ClassVar[bool]

    def __init__(self, fields: int, shape: Shape, draws: Generator) -> None: ...
    def __call__(self, fields: Tensor, events: Events | None, draws: Generator | None) -> Tensor: ...


class Affine(nn.Module):
    """A linear map with a bias, its weights drawn from N(0, 1 / width)."""

    def __init__(self, width: int, to: int, draws: Generator) -> None:
        super().__init__()
        self.weight = table(to, width, width**-0.5, draws)
        self.bias = nn.Parameter(torch.zeros(to))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Layers(nn.Module):
    """Linear maps through these widths, ReLU and dropout after each."""

    def __init__(self, widths: Sequence[int], dropout: float, draws: Generator) -> None:
        super().__init__()
        self.dropout = dropout
        self.maps = nn.ModuleList(Affine(of, to, draws) for of, to in pairwise(widths))

    def forward(self, x: Tensor, draws: Generator | None) -> Tensor:
        """(n, widths[0]) to (n, widths[-1])."""
        for one in self.maps:
            x = dropped(relu(one(x)), self.dropout, draws)
        return x
