"""Popularity: everybody gets what most others liked.

    train labels -> likes of each item -> score of held-out pairs

The score is the number of the item's training rows with label 1, not smoothed and not divided by its rows: an
item that many saw and half disliked beats one that a few loved. It orders pairs and is no probability.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.collab.labelled import (
    Labelled,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    held_out,
    known,
    part_of,
    rows_of,
)
from pipeline.schema import Pairs
from pipeline.stage import Artefact, Check, Draft, Settings, stage


class PopularitySettings(Settings):
    """None: there is nothing to choose."""


def likes(train: Labelled, n_items: int) -> NDArray[np.float64]:
    """Training rows with label 1 of every item (n_items,); 0 for an item without any."""
    return np.bincount(train.item[train.label == 1], minlength=n_items).astype(np.float64)


@stage(
    "popularity",
    settings=PopularitySettings,
    section="models",
    version=1,
    inputs={"split": "ctr/split"},
    tables={"pairs": Pairs},
    checks=(Check(every_pair_scored_once),),
    predicts="pairs",
)
def popularity(split: Artefact, settings: PopularitySettings, out: Draft) -> None:
    """Score of a pair: how many training rows like its item."""
    examples = rows_of(split)
    seen = known(split.scan("examples"))
    count = likes(part_of(examples, "train"), len(seen.items))
    out.table("pairs", as_pairs(examples, "popularity", count[held_out(examples)["item"].to_numpy()], None))
    out.metric(most_likes=int(count.max(initial=0)), **cold_counts(examples, seen))
