"""GRU4Rec's network: a gated recurrent unit over item vectors."""

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, linear

from pipeline.collab.factors import table
from pipeline.collab.sequences import Reader
from pipeline.dropout import dropped

if TYPE_CHECKING:
    from pipeline.collab.gru4rec import GRU4RecSettings


class Recurrent(Reader):
    """Item vector -> GRU layers -> linear map -> state; the same item vectors score the next item."""

    def __init__(self, n_items: int, settings: "GRU4RecSettings", draws: Generator) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.item = table(n_items, settings.dim, settings.spread, draws)
        self.units = nn.GRU(settings.dim, settings.hidden, settings.layers, batch_first=True)
        self.narrow = table(settings.dim, settings.hidden, settings.hidden**-0.5, draws)
        with torch.no_grad():  # torch's own spread, from our draws
            for parameter in self.units.parameters():
                parameter.uniform_(-(settings.hidden**-0.5), settings.hidden**-0.5, generator=draws)

    def forward(self, inputs: Tensor, draws: Generator | None = None, lengths: Tensor | None = None) -> Tensor:
        """States (b, l, d) after the items inputs (b, l), oldest first."""
        x, _ = self.units(dropped(embedding(inputs, self.item), self.dropout, draws))
        return linear(dropped(x, self.dropout, draws), self.narrow)

    def vectors(self) -> Tensor:
        """Item vectors (n_items, d)."""
        return self.item
