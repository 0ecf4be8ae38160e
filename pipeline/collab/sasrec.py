"""SASRec: a causal transformer foretells the next item of a history.

Kang and McAuley, ICDM 2018, arXiv 1808.09781

    next_item/split -> windows of histories -> transformer -> next item among all -> rankings, vectors

Departures: cross-entropy over all items by default (the authors' loss is `bce`), the sum of item and place
vector is normalised (they multiply the item's by the root of dim), layers normalise their input and not their
output, GELU and an inner map of 4 dims, no dropout inside attention, and histories longer than `length` are
learnt from whole, window by window; a running mean of the weights is judged and kept (`averaged`).

Without the first norm what the layers add drowns the small vectors. On Amazon Beauty (validation NDCG@10,
dropout .5, lr 1e-3, batch 2048, dim 64, one seed) the norm had .0438 after 7 epochs and the bare sum .0270;
after 19 the norm had .0676 and the authors' factor .0635. On ML-100K the norm had .1169 at epoch 17 of 27 where
the sum had had .1227: within the noise, in half the epochs.

The mean of the weights and places counted from the last item (the authors'; first: from the first read) on
Amazon Beauty's validation part, dropout .5, one seed, NDCG@10:

| loss, lr, passes | places from the first: last weights, mean | from the last: last weights, mean |
| --- | --- | --- |
| cross-entropy, 1e-3, 25 | .0673, .0670 | .0673, .0684 |
| bce, 4e-3, 60 | .0317, .0355 | .0344, .0387 |

On ML-100K the mean had .1188 at epoch 19 of 29 and the last weights .1169 at 17 of 27.

Defaults were chosen on the validation part of ML-100K (leave-last-two, full ranking, seen masked; NDCG@10 of
943 users, whose standard error is some .007; one seed, one thread), before the first norm
was there, places counted from the first item and no mean taken:

| tried | validation NDCG@10 (epoch of it, of so many) |
| --- | --- |
| lr 1e-3, dropout .2, batch 4096 | .0838 (6 of 6) |
| lr 2e-3, dropout .3, batch 4096 | .0901 at 5, .1174 (20 of 25) |
| lr 2e-3, dropout .5, batch 4096 | .0753 at 5, .1117 (24 of 25) |
| lr 2e-3, dropout .3, batch 4096, length 100 | .0880 at 5, .1085 (16 of 16) |
| lr 2e-3, dropout .3, batch 2048 (kept: as good, in fewer epochs) | .1028 at 5, .1161 (16 of 16) |

One look at the test part with the last, patience 8: NDCG@10 .1030, HR@10 .1994 (validation .1227 at epoch 33
of 41).
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from pipeline.collab.readers import STAGE, ReaderSettings, fit_and_rank, from_network
from pipeline.stage import Artefact, Draft, stage

if TYPE_CHECKING:
    from torch import Generator

    from pipeline.collab.sequences import Reader


class SASRecSettings(ReaderSettings):
    layers: int = Field(2, ge=1, description="attention layers")
    heads: int = Field(2, ge=1, description="attention heads a layer; divides dim")
    widening: int = Field(4, ge=1, description="width of a layer's inner map, in dims")

    places: Literal["last", "first"] = Field(
        "last", description="where places are counted from: the last item read, as the authors do, or the first"
    )

    @model_validator(mode="after")
    def heads_share_the_width(self) -> "SASRecSettings":
        if self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        return self


def build(n_items: int, settings: SASRecSettings, draws: "Generator") -> "Reader":
    """The network with its first weights."""
    from pipeline.collab.transformer import Transformer

    return Transformer(n_items, settings, draws, settings.places)


@stage("next_item/sasrec", settings=SASRecSettings, version=6, scorer=from_network(build), **STAGE)
def sasrec(split: Artefact, settings: SASRecSettings, out: Draft) -> None:
    """A causal transformer over each user's history, and the orders and vectors it gives."""
    fit_and_rank(split, settings, out, build, method="sasrec")
