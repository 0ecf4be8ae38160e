"""Popularity on the next_item track: everybody gets what was used most.

    train rows -> rows of each item -> the same order for all, less what a user has seen

Cold users are no exception: they get the same order. Cold items stand behind all others.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.collab.events import Trained, cold_queries, hidden, trained
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, write_rankings
from pipeline.schema import Rankings
from pipeline.stage import Artefact, Check, Draft, stage

if TYPE_CHECKING:
    from pipeline.collab.ranked import Scores


class RankedPopularitySettings(RankedSettings):
    """None of its own: there is nothing to choose."""


def popular(rows: Trained) -> "Scores":
    """Scores: training rows of each item, the same for every query."""
    count, known = rows.popularity.astype(np.float32), rows.known.items
    return lambda block: hidden(np.tile(count, (len(block.user), 1)), known)


def scorer(split: Artefact, fitted: Artefact, settings: RankedPopularitySettings) -> "Scores":
    """Counted anew from the split: nothing in it is drawn."""
    return popular(trained(split))


@stage(
    "next_item/popularity",
    settings=RankedPopularitySettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split"},
    tables={"rankings": Rankings},
    checks=(Check(every_query_ranked_once),),
    predicts="rankings",
    scorer=scorer,
)
def ranked_popularity(split: Artefact, settings: RankedPopularitySettings, out: Draft) -> None:
    """Order of items by their training rows, the same for everybody."""
    rows = trained(split)
    write_rankings(out, "popularity", popular(rows), split, settings)
    out.metric(most_rows=int(rows.popularity.max()), **cold_queries(split.table("queries"), rows))
