"""GRU4Rec: a gated recurrent unit foretells the next item of a history.

Hidasi et al., ICLR 2016, arXiv 1511.06939; losses as in `pipeline.collab.sequence_losses`.

    next_item/split -> windows of histories -> GRU -> next item among all -> rankings, vectors

Departures: users' histories in place of sessions, one vector an item for reading and scoring, and a
linear map from the unit's state to it.

Defaults are SASRec's; the width was not searched. On the validation part of ML-100K (see
`pipeline.collab.sasrec`), with batch 4096: NDCG@10 .1018 (epoch 14 of 16).
"""

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.collab.readers import STAGE, ReaderSettings, fit_and_rank, from_network
from pipeline.stage import Artefact, Draft, stage

if TYPE_CHECKING:
    from torch import Generator

    from pipeline.collab.sequences import Reader


class GRU4RecSettings(ReaderSettings):
    layers: int = Field(1, ge=1, description="recurrent layers")
    hidden: int = Field(128, ge=1, description="width of the recurrent state")


def build(n_items: int, settings: GRU4RecSettings, draws: "Generator") -> "Reader":
    """The network with its first weights."""
    from pipeline.collab.recurrent import Recurrent

    return Recurrent(n_items, settings, draws)


@stage("next_item/gru4rec", settings=GRU4RecSettings, version=4, scorer=from_network(build), **STAGE)
def gru4rec(split: Artefact, settings: GRU4RecSettings, out: Draft) -> None:
    """A gated recurrent unit over each user's history, and the orders and vectors it gives."""
    fit_and_rank(split, settings, out, build, method="gru4rec")
