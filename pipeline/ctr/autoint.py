"""AutoInt: fields that attend to each other, layer upon layer.

Song et al., CIKM 2019, https://arxiv.org/abs/1810.11921. One head of twice a field's width, scaled, with a
residual map, no deep part; KAR's code has one head of 64.
"""

from itertools import pairwise
from typing import ClassVar

from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from pipeline.ctr.layers import Affine, Events, Shape
from pipeline.dropout import dropped


class Interaction(nn.Module):
    """One layer: values weighed by the softmax of scaled products of queries and keys, plus the residual."""

    def __init__(self, width: int, to: int, dropout: float, draws: Generator) -> None:
        super().__init__()
        self.query, self.key, self.value, self.kept = (Affine(width, to, draws) for _ in range(4))
        self.scale, self.dropout = to**-0.5, dropout

    def forward(self, x: Tensor, draws: Generator | None) -> Tensor:
        """(n, fields, width) to (n, fields, to)."""
        weights = (self.query(x) @ self.key(x).mT * self.scale).softmax(2)
        return relu(dropped(weights, self.dropout, draws) @ self.value(x) + self.kept(x))


class AutoInt(nn.Module):
    reads_events: ClassVar = False

    def __init__(self, fields: int, shape: Shape, draws: Generator) -> None:
        super().__init__()
        widths = [shape.dim] + [2 * shape.dim] * shape.depth
        self.layers = nn.ModuleList(Interaction(of, to, shape.dropout, draws) for of, to in pairwise(widths))
        self.out = Affine(fields * widths[-1], 1, draws)

    def forward(self, fields: Tensor, events: Events | None, draws: Generator | None) -> Tensor:
        for layer in self.layers:
            fields = layer(fields, draws)
        return self.out(fields.flatten(1)).squeeze(1)
