"""A click-through model: codes and vectors become fields of one width, a backbone reads them.

Asked -> id and attribute vectors | pooled liked, disliked history | adapted vectors -> backbone -> logit
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from pipeline.collab.factors import table
from pipeline.collab.pasts import PAD
from pipeline.ctr.adaptor import Adaptor, Fieldwise
from pipeline.ctr.autoint import AutoInt
from pipeline.ctr.dcnv2 import DCNv2
from pipeline.ctr.deepfm import DeepFM
from pipeline.ctr.din import DIN
from pipeline.ctr.fibinet import FiBiNET
from pipeline.ctr.fields import Attribute, Fields
from pipeline.ctr.layers import Backbone, Events
from pipeline.ctr.settings import CtrSettings

BACKBONES: dict[str, type[Backbone]] = {
    "din": DIN,
    "deepfm": DeepFM,
    "dcnv2": DCNv2,
    "fibinet": FiBiNET,
    "autoint": AutoInt,
}
POOLED = 2  # fields of the history: what was liked, what was not
LABELS = 2


class Asked(NamedTuple):
    """Examples: users (n,), items (n,); last items (n, length), PAD on the right, which were liked; and which
    vectors each reads of its user and of its item (n, 2)."""

    user: Tensor
    item: Tensor
    past: Tensor
    liked: Tensor
    dense: Tensor


class FieldVectors(nn.Module):
    """One table for all codes of all fields: row 0 pads, then a block for each field, its COLD row first."""

    def __init__(self, found: Fields, dim: int, spread: float, draws: Generator) -> None:
        super().__init__()
        starts, end = [], 1
        for one in found.attributes:
            starts.append(end)
            end += one.size
        self.blocks = list(zip(starts, [*starts[1:], end], strict=True))
        self.of = [one.of for one in found.attributes]
        for name, one, start in zip(self.places(), found.attributes, starts, strict=True):
            self.register_buffer(name, placed(one, start), persistent=False)
        self.weight = table(end, dim, spread, draws)
        self.tone = table(LABELS, dim, spread, draws)

    def places(self) -> list[str]:
        return [f"codes_{number}" for number in range(len(self.of))]

    def codes(self, number: int) -> Tensor:
        """Rows of the table of every owner of a field (n_owners, most)."""
        return self.get_buffer(f"codes_{number}")

    def forward(self, asked: Asked) -> Tensor:
        """Vectors (n, attributes + POOLED, dim)."""
        owner = {"user": asked.user, "item": asked.item}
        found = [self.mean_of(self.codes(n)[owner[of]]) for n, of in enumerate(self.of)]
        items = self.past_items(asked)
        found += [self.mean_of(items * asked.liked), self.mean_of(items * ~asked.liked)]
        return torch.stack(found, 1)

    def mean_of(self, rows: Tensor) -> Tensor:
        """Mean of each line's vectors (n, dim); 0 where all of it pads."""
        if rows.shape[1] == 1:
            return embedding(rows[:, 0], self.weight)
        return embedding_bag(rows, self.weight, mode="mean", padding_idx=0)

    def past_items(self, asked: Asked) -> Tensor:
        """Rows of the table of the last items (n, length), 0 where they pad."""
        return torch.where(asked.past == PAD, 0, self.codes(1)[asked.past.long(), 0])

    def events(self, asked: Asked) -> Events:
        real = asked.past != PAD
        vectors = embedding(self.past_items(asked)[real], self.weight)
        tones = embedding(asked.liked[real].long(), self.tone)
        target = embedding(self.codes(1)[asked.item, 0], self.weight)
        return Events(vectors + tones, real.nonzero()[:, 0], target)

    @torch.no_grad()
    def settle(self) -> None:
        """Give every field's COLD row, which no training row reads, the mean of the learnt ones."""
        for start, end in self.blocks:
            if end - start > 1:
                self.weight[start] = self.weight[start + 1 : end].mean(0)
        self.weight[0] = 0


def placed(one: Attribute, start: int) -> Tensor:
    codes = torch.from_numpy(one.codes)
    return torch.where(codes == PAD, 0, codes + start)


class Network(nn.Module):
    """Fields under a backbone. An adaptor adds one for each kind of vector that it adapts."""

    def __init__(
        self, backbone: str, found: Fields, settings: CtrSettings, adaptor: Adaptor | None, draws: Generator
    ) -> None:
        super().__init__()
        self.fields = FieldVectors(found, settings.dim, settings.spread, draws)
        self.adaptor = adaptor
        count = len(found.attributes) + POOLED + (len(adaptor.kinds) if adaptor else 0)
        self.backbone = BACKBONES[backbone](count, settings, draws)

    def forward(self, asked: Asked, dense: Fieldwise | None = None, draws: Generator | None = None) -> Tensor:
        """Logits (n,). dense: where adapted vectors are read; the adaptor itself if not given."""
        found = self.fields(asked)
        if self.adaptor is not None:
            source = dense or self.adaptor
            adapted = [source.read(kind, asked.dense[:, kind]) for kind in self.adaptor.kinds]
            found = torch.cat([found, torch.stack(adapted, 1)], 1)
        events = self.fields.events(asked) if self.backbone.reads_events else None
        return self.backbone(found, events, draws)
