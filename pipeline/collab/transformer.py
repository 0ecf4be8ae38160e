"""SASRec's network: item vectors, then layers of attention to this and earlier positions.

It is written out because each part is smaller than the general one: one matrix product gives queries, keys and
values, nothing stands in the way of the fused causal attention, and padding stands on the right, where no state
that counts can see it, so there is no mask.
"""

from typing import Literal, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, gelu, layer_norm, linear, scaled_dot_product_attention

from pipeline.collab.factors import table
from pipeline.collab.sequences import Reader
from pipeline.dropout import dropped

Places = Literal["first", "last"]


class Shape(Protocol):
    """Settings that say what the network is made of."""

    @property
    def dim(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def widening(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def spread(self) -> float: ...


class Norm(nn.Module):
    """Layer normalisation with learnt scale and shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.scale.shape, self.scale, self.shift)


class Layer(nn.Module):
    """Attention, then two linear maps; each reads normalised input and adds to it (pre-norm)."""

    def __init__(self, settings: Shape, draws: Generator) -> None:
        super().__init__()
        width, inner = settings.dim, settings.dim * settings.widening
        self.heads, self.dropout = settings.heads, settings.dropout
        self.before, self.between = Norm(width), Norm(width)
        self.attend = table(3 * width, width, width**-0.5, draws)
        self.join = table(width, width, width**-0.5, draws)
        self.widen = table(inner, width, width**-0.5, draws)
        self.widen_bias = nn.Parameter(torch.zeros(inner))
        self.narrow = table(width, inner, inner**-0.5, draws)
        self.narrow_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, draws: Generator | None) -> Tensor:
        """States (b, l, d) to states."""
        x = x + dropped(self.attention(self.before(x)), self.dropout, draws)
        inner = gelu(linear(self.between(x), self.widen, self.widen_bias))
        return x + dropped(linear(inner, self.narrow, self.narrow_bias), self.dropout, draws)

    def attention(self, x: Tensor) -> Tensor:
        """What each position takes from itself and those before it (b, l, d)."""
        return linear(taken(linear(x, self.attend), self.heads), self.join)


def taken(joint: Tensor, heads: int, real: Tensor | None = None) -> Tensor:
    """What each place takes (b, l, d) by queries, keys and values (b, l, 3 d): from itself and those before it,
    or from all that are real (b, l)."""
    b, n, d = joint.shape[0], joint.shape[1], joint.shape[2] // 3
    query, key, value = joint.view(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    mask = None if real is None else real[:, None, None, :]
    seen = scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
    return seen.transpose(1, 2).reshape(b, n, d)


class Transformer(Reader):
    """Normalised item vector + place vector -> layers -> normalised state; the same item vectors score the next
    item."""

    def __init__(self, n_items: int, settings: Shape, draws: Generator, places: Places = "first") -> None:
        super().__init__()
        self.dropout, self.places = settings.dropout, places
        self.item = table(n_items, settings.dim, settings.spread, draws)
        self.place = table(settings.length, settings.dim, settings.spread, draws)
        self.first = Norm(settings.dim)  # else what the layers add drowns the small vectors from the start
        self.layers = nn.ModuleList(Layer(settings, draws) for _ in range(settings.layers))
        self.after = Norm(settings.dim)

    def forward(self, inputs: Tensor, draws: Generator | None = None, lengths: Tensor | None = None) -> Tensor:
        """States (b, l, d) after the items inputs (b, l), oldest first."""
        x = embedding(inputs, self.item) + self.placed(inputs.shape[1], lengths)
        x = dropped(self.first(x), self.dropout, draws)
        for layer in self.layers:
            x = layer(x, draws)
        return self.after(x)

    def placed(self, width: int, lengths: Tensor | None) -> Tensor:
        """Vectors of the places, (l, d) or (b, l, d): counted from the first item read, or so that the last one
        always has the last place."""
        if self.places == "first":
            return self.place[:width]
        if lengths is None:
            return self.place[len(self.place) - width :]
        at = len(self.place) - lengths[:, None] + torch.arange(width)
        return embedding(at.clamp_max(len(self.place) - 1), self.place)  # padding has any place

    def vectors(self) -> Tensor:
        """Item vectors (n_items, d)."""
        return self.item
