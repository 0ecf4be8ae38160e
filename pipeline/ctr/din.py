"""DIN over fields: the history is weighed by the target, and layers with Dice read it with all other fields.

Zhou et al., KDD 2018, https://arxiv.org/abs/1706.06978. Attention, Dice and layers are those of
`pipeline.collab.attended`, which CoLLM's form of DIN (`ctr/din`) is made of too; here the history holds
disliked items as well, each with its label, and any field may join.
"""

from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from pipeline.collab.attended import Stack, weighed
from pipeline.ctr.layers import Events, Shape


class DIN(nn.Module):
    reads_events: ClassVar = True

    def __init__(self, fields: int, shape: Shape, draws: Generator) -> None:
        super().__init__()
        self.attention = Stack((4 * shape.dim, *shape.attention), 0.0, draws)
        self.head = Stack(((fields + 1) * shape.dim, *shape.layers), shape.dropout, draws)

    def forward(self, fields: Tensor, events: Events | None, draws: Generator | None) -> Tensor:
        assert events is not None
        interest = weighed(self.attention, events.target, events.vectors, events.owner, draws)
        return self.head(torch.cat([fields.flatten(1), interest], 1), draws)
