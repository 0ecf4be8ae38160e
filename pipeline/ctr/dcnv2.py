"""DCNv2: cross layers with full matrices beside deep layers.

Wang et al., WWW 2021, https://arxiv.org/abs/2008.13535: x' = x0 * (W x + b) + x. Cross and deep layers stand
side by side and one linear map reads both, as in the paper; KAR's code reads them by two layers more.
"""

from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from pipeline.ctr.layers import Affine, Events, Layers, Shape


class DCNv2(nn.Module):
    reads_events: ClassVar = False

    def __init__(self, fields: int, shape: Shape, draws: Generator) -> None:
        super().__init__()
        width = fields * shape.dim
        self.crosses = nn.ModuleList(Affine(width, width, draws) for _ in range(shape.depth))
        self.deep = Layers((width, *shape.layers), shape.dropout, draws)
        self.out = Affine(width + shape.layers[-1], 1, draws)

    def forward(self, fields: Tensor, events: Events | None, draws: Generator | None) -> Tensor:
        first = fields.flatten(1)
        crossed = first
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        return self.out(torch.cat([crossed, self.deep(first, draws)], 1)).squeeze(1)
