"""FiBiNET: fields weighed by how much they matter, then pairs of them by a bilinear product, then layers.

Huang et al., RecSys 2019, https://arxiv.org/abs/1905.09433. One matrix for all pairs (`field_all`, as in KAR's
code, where the adapted vectors are fields as well, and so in pairs with all others). Most of a pass is the
first deep layer over all pairs, so its price grows as they do: 36 of nine fields, 55 of eleven. Departure: the
weighing layer narrows to a third of the fields, as in the paper; KAR's code widens it.
"""

from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from pipeline.ctr.layers import Affine, Events, Layers, Shape

REDUCTION = 3  # fields to one number between the two maps that weigh them


class FiBiNET(nn.Module):
    reads_events: ClassVar = False

    def __init__(self, fields: int, shape: Shape, draws: Generator) -> None:
        super().__init__()
        inner = max(1, fields // REDUCTION)
        self.squeeze, self.excite = Affine(fields, inner, draws), Affine(inner, fields, draws)
        self.plain, self.weighed = (Affine(shape.dim, shape.dim, draws) for _ in range(2))
        self.first, self.second = torch.triu_indices(fields, fields, 1).unbind()
        self.deep = Layers((fields * (fields - 1) * shape.dim, *shape.layers), shape.dropout, draws)
        self.out = Affine(shape.layers[-1], 1, draws)

    def forward(self, fields: Tensor, events: Events | None, draws: Generator | None) -> Tensor:
        weight = relu(self.excite(relu(self.squeeze(fields.mean(2)))))
        both = [self.pairs(self.plain, fields), self.pairs(self.weighed, fields * weight[:, :, None])]
        return self.out(self.deep(torch.cat(both, 1), draws)).squeeze(1)

    def pairs(self, bent: nn.Module, fields: Tensor) -> Tensor:
        """(W v_i) * v_j of all pairs i < j, flat (n, pairs x dim).

        `index_select`, as the backward pass of plain indexing sorts its indices first.
        """
        return (bent(fields).index_select(1, self.first) * fields.index_select(1, self.second)).flatten(1)
