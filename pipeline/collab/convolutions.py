"""Caser's network: convolutions over the last few items, at every position of a history in one pass.

The items in reach of a position are a small picture, items down and vector numbers across. A horizontal filter
looks at some neighbouring items at once and keeps its strongest answer; a vertical one is a weighted sum of the
items. Both are sliding windows over the history, so all positions share the work.
"""

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv1d, embedding, linear, max_pool1d, pad

from pipeline.collab.factors import table
from pipeline.collab.sequences import Reader
from pipeline.dropout import dropped

if TYPE_CHECKING:
    from pipeline.collab.caser import CaserSettings


class Convolutions(Reader):
    """Item vectors in reach -> both kinds of filters -> linear map -> state; the same vectors score."""

    def __init__(self, n_items: int, settings: "CaserSettings", draws: Generator) -> None:
        super().__init__()
        self.reach, self.dropout = settings.reach, settings.dropout
        dim, heights = settings.dim, range(1, settings.reach + 1)
        self.item = table(n_items, dim, settings.spread, draws)
        filters = (table(settings.horizontal, dim * h, (dim * h) ** -0.5, draws) for h in heights)
        self.horizontal = nn.ParameterList(filters)
        self.vertical = table(settings.vertical, settings.reach, settings.reach**-0.5, draws)
        found = settings.horizontal * settings.reach + settings.vertical * dim
        self.narrow = table(dim, found, found**-0.5, draws)
        self.narrow_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Tensor, draws: Generator | None = None, lengths: Tensor | None = None) -> Tensor:
        """States (b, l, d) after the items inputs (b, l), oldest first; before the first item stand zeros."""
        x = pad(embedding(inputs, self.item), (0, 0, self.reach - 1, 0))
        found = torch.cat([self.strongest(x), self.sums(x)], dim=2)
        return linear(dropped(found, self.dropout, draws), self.narrow, self.narrow_bias)

    def strongest(self, x: Tensor) -> Tensor:
        """Each horizontal filter's strongest answer (b, l, heights * filters), of x (b, reach - 1 + l, d)."""
        across, found = x.transpose(1, 2), []
        for height, filters in enumerate(self.horizontal, start=1):
            answers = conv1d(across, filters.view(len(filters), x.shape[2], height)).relu()
            found.append(max_pool1d(answers, self.reach - height + 1, stride=1))
        return torch.cat(found, dim=1).transpose(1, 2)

    def sums(self, x: Tensor) -> Tensor:
        """Each vertical filter's weighted sum of the items in reach (b, l, filters * d)."""
        in_reach = x.unfold(1, self.reach, 1)
        return linear(in_reach, self.vertical).transpose(2, 3).flatten(2)

    def vectors(self) -> Tensor:
        """Item vectors (n_items, d)."""
        return self.item
