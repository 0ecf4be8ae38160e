"""DeepFM: every field alone, every pair of fields by its inner product, and layers over all of them.

Guo et al., IJCAI 2017, https://arxiv.org/abs/1703.04247

Departures: a field's first-order weight is a linear map of its vector, as dense fields have no ids; dense
fields are in the pairs too (KAR's code leaves them out).
"""

from typing import ClassVar

from torch import Generator, Tensor, nn

from pipeline.ctr.layers import Affine, Events, Layers, Shape


class DeepFM(nn.Module):
    reads_events: ClassVar = False

    def __init__(self, fields: int, shape: Shape, draws: Generator) -> None:
        super().__init__()
        width = fields * shape.dim
        self.alone = Affine(width, 1, draws)
        self.deep = Layers((width, *shape.layers), shape.dropout, draws)
        self.out = Affine(shape.layers[-1], 1, draws)

    def forward(self, fields: Tensor, events: Events | None, draws: Generator | None) -> Tensor:
        flat = fields.flatten(1)
        linear = self.alone(flat) + self.out(self.deep(flat, draws))
        return linear.squeeze(1) + pairs(fields)


def pairs(fields: Tensor) -> Tensor:
    """Sum of the inner products of all pairs of fields (n,) of (n, fields, dim)."""
    return (fields.sum(1).square() - fields.square().sum(1)).sum(1) / 2
