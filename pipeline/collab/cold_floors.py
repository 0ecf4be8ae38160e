"""What the track `cold_item` is measured from: chance, and a model of ids.

    cold_item/split -> a drawn order of everything
    warm_items/split -> SASRec -> it alone, and with the share rule by texts -> orders for cold_item/split

A model of ids has learnt nothing of an item without training rows. Its policy on every track is to put such
items behind all others, so each of them scores 0 here by construction: one is run, SASRec, and not popularity,
EASE and the rest, whose rows would be the same. What it can do with the share rule is asked too (the variant
`with_share`): a cold item is let in behind the known one that its text is most like. That is what a method has
to beat that claims more than to have read the texts.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.collab.cold_share import sharing
from pipeline.collab.content_knn import directions
from pipeline.collab.events import Bools, Floats, trained
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, write_rankings
from pipeline.collab.sasrec import SASRecSettings, build
from pipeline.collab.vectors import products
from pipeline.data.cold_item import nothing_held_out_is_learnt
from pipeline.data.negatives import mixed
from pipeline.schema import Curve, Rankings
from pipeline.stage import Artefact, Check, Draft, stage

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.collab.ranked import Block, Scores


class RandomSettings(RankedSettings):
    """None of its own: there is nothing to choose."""


def lots(n_items: int, seed: int) -> "Scores":
    """Scores in [0, 1) by a hash of seed, user and item."""

    def scores(block: "Block") -> "Tensor":
        import torch

        user, item = np.broadcast_arrays(block.user.numpy()[:, None], np.arange(n_items)[None])
        return torch.from_numpy((mixed(seed, user, item) / 2.0**64).astype(np.float32))

    return scores


@stage(
    "cold_item/random",
    settings=RandomSettings,
    section="models",
    version=1,
    inputs={"split": "cold_item/split"},
    tables={"rankings": Rankings},
    checks=(Check(every_query_ranked_once),),
    seeded=True,
    predicts="cold_rankings",
)
def random_order(split: Artefact, settings: RandomSettings, out: Draft) -> None:
    """A drawn order of all items, another one for each user: what knowing nothing is worth."""
    write_rankings(out, "random", lots(split.table("catalogue").height, out.seed), split, settings)


class ColdSASRecSettings(SASRecSettings):
    share: float = Field(
        0.1, ge=0, le=1, description="largest share of a list for items without training rows, of with_share"
    )
    listed: int = Field(
        100, ge=1, description="first places of a list that they are let in behind, of with_share"
    )


def nearest_known(items: Floats, known: Bools) -> NDArray[np.int64]:
    """For each item (n_items,) a known one: itself, or the one whose vector is nearest; -1 without a vector.

    items: vectors (n_items, d) of length 1, or 0.
    """
    found = np.arange(len(items))
    places = np.flatnonzero(known)
    cold = np.flatnonzero(~known)
    found[cold] = places[products(items[cold], items[places]).argmax(1)]
    found[cold[~items[cold].any(axis=1)]] = -1
    return found


@stage(
    "cold_item/sasrec",
    settings=ColdSASRecSettings,
    section="models",
    version=1,
    inputs={"split": "cold_item/split", "warm": "warm_items/split", "vectors": "text_embeddings"},
    tables={"rankings": Rankings, "curve": Curve},
    checks=(Check(every_query_ranked_once), Check(nothing_held_out_is_learnt)),
    seeded=True,
    predicts="cold_rankings",
    needs="gpu",
)
def cold_sasrec(
    split: Artefact, warm: Artefact, vectors: Artefact, settings: ColdSASRecSettings, out: Draft
) -> None:
    """SASRec, taught known items, asked for those that it cannot know; alone, and with the share rule."""
    from pipeline.collab.pairs import curve_table
    from pipeline.collab.readers import learn

    rows = trained(warm)
    learnt = learn(
        rows, warm.table("queries"), settings, build, out.seed, out.checkpoints / "sasrec.safetensors"
    )
    items = directions(vectors.table("item_embeddings"), rows.n_items)
    known = rows.known.items
    shared = sharing(learnt.scores, nearest_known(items, known), ~known, settings.share, settings.listed)
    write_rankings(out, "sasrec", learnt.scores, split, settings, {"with_share": shared})
    out.table("curve", curve_table({"fit": learnt.fit}))
    out.metric(epochs=learnt.fit.best_epochs, parameters=sum(p.numel() for p in learnt.network.parameters()))
