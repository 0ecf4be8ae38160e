"""Caser: convolutions over the last few items foretell the next one.

Tang and Wang, WSDM 2018, arXiv 1809.07426; losses as in `pipeline.collab.sequence_losses`.

    next_item/split -> windows of histories -> both kinds of filters -> next item among all -> rankings, vectors

Departures: no vector of the user's own, so that a query is answered from its history alone as by the other
readers, and users met first in testing are served; one vector an item for reading and scoring.

Defaults are SASRec's, the filters the authors'; not searched. On the validation part of ML-100K (see
`pipeline.collab.sasrec`), with batch 4096: NDCG@10 .1140 (epoch 14 of 16).
"""

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.collab.readers import STAGE, ReaderSettings, fit_and_rank, from_network
from pipeline.stage import Artefact, Draft, stage

if TYPE_CHECKING:
    from torch import Generator

    from pipeline.collab.sequences import Reader


class CaserSettings(ReaderSettings):
    reach: int = Field(5, ge=1, description="items that the filters look at, the newest included")
    horizontal: int = Field(16, ge=1, description="horizontal filters of each height from 1 to reach")
    vertical: int = Field(4, ge=1, description="vertical filters")


def build(n_items: int, settings: CaserSettings, draws: "Generator") -> "Reader":
    """The network with its first weights."""
    from pipeline.collab.convolutions import Convolutions

    return Convolutions(n_items, settings, draws)


@stage("next_item/caser", settings=CaserSettings, version=4, scorer=from_network(build), **STAGE)
def caser(split: Artefact, settings: CaserSettings, out: Draft) -> None:
    """Convolutions over the last items of each user, and the orders and vectors they give."""
    fit_and_rank(split, settings, out, build, method="caser")
