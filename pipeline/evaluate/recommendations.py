"""Recommendations: what a running system would show every user now, by the model that validation chose.

    fitted models -> the best on validation -> all events of every user as history -> the first unused items

The lists are no evaluation: test events are history here, as they are past for whoever recommends tomorrow. The
model is not fitted again: its weights have learnt from training rows only, and it *reads* the later events if
it reads histories (ALS, item neighbours, EASE, Markov counts, SASRec, GRU4Rec, Caser). A model that holds one
vector a user (BPR, mf, LightGCN) or none (popularity) says what it said before, less what was used since. Items
that came after training have no score and are in no list: fit on a newer split for those.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.collab.fitted import chosen, models, scores_of, valid_ndcg_10
from pipeline.collab.ranked import Scores, order
from pipeline.schema import Recommendations
from pipeline.stage import Artefact, Check, Draft, Every, Settings, Verdict, stage

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.collab.ranked import Block


class RecommendationsSettings(Settings):
    method: str | None = Field(
        default=None,
        description="model of the track, such as als; the best on validation (NDCG@10) where absent",
    )
    top: int = Field(default=20, ge=1, description="items in each user's list")


def known_by_now(events: pl.DataFrame) -> pl.DataFrame:
    """Every user with an event, as queries (part, user, at, history, targets): all parts are history, and no
    item is to be found."""
    past = events.sort("user", "row").group_by("user", maintain_order=True)
    found = past.agg(pl.col("at").last(), history="item")
    nothing = pl.lit([], dtype=pl.List(pl.UInt32))
    return found.select(pl.lit("now").alias("part"), "user", "at", "history", nothing.alias("targets"))


def without(scores: Scores, used: pl.DataFrame) -> Scores:
    """The same scores, and -inf for pairs (user, item) that were used. Users of a block ascend, and every user
    between its first and its last that used anything is in it."""
    import torch

    pairs = used.sort("user", "item")
    user, item = (pairs[name].to_numpy().astype(np.int64) for name in ("user", "item"))

    def masked(block: "Block") -> "Tensor":
        asked = block.user.numpy()
        own = slice(*np.searchsorted(user, [asked[0], asked[-1] + 1]))
        place = np.searchsorted(asked, user[own])
        found = scores(block)
        at = (torch.from_numpy(place).to(found.device), torch.from_numpy(item[own]).to(found.device))
        return found.index_put(at, torch.tensor(-torch.inf, device=found.device, dtype=found.dtype))

    return masked


def recommended(
    scores: Scores, events: pl.DataFrame, interactions: pl.DataFrame, n_items: int, top: int
) -> pl.DataFrame:
    """Columns user, rank, item, score: for every user with an event the first `top` items never used.

    interactions: user, item; all of the dataset, so that an item that the track's filters left out, such as a
    film that was disliked, is no recommendation either.
    """
    asked = known_by_now(events)
    used = interactions.select("user", "item").join(asked, on="user", how="semi")
    found = order(without(scores, used), asked, n_items, top=top)
    return found.filter(pl.col("score").is_not_null()).select("user", "rank", "item", "score")


def nothing_used_is_recommended(draft: Draft, inputs: Mapping[str, Any], settings: Settings) -> Verdict:
    """No list holds an item that its user ever used, in any part, or that the track's filters left out."""
    used = inputs["dataset"].table("interactions").select("user", "item")
    wrong = draft.read("recommendations").join(used, on=["user", "item"], how="semi").height
    return Verdict(not wrong, f"{wrong:,} recommended items were used before" if wrong else "")


def places_without_gaps(draft: Draft, inputs: Mapping[str, Any], settings: Settings) -> Verdict:
    """Each user's places are 1, 2, 3 ... with an item once, for users of the split and for nobody else."""
    found = draft.read("recommendations")
    lists = found.group_by("user").agg(
        gaps=(pl.col("rank").sort() != pl.int_range(1, pl.len() + 1)).any(),
        twice=pl.col("item").is_duplicated().any(),
    )
    strangers = lists.join(inputs["split"].table("events"), on="user", how="anti").height
    counts = {
        "lists have a gap or a doubled place": lists["gaps"].sum(),
        "lists hold an item twice": lists["twice"].sum(),
        "lists are of users without events": strangers,
    }
    said = [f"{count:,} {fault}" for fault, count in counts.items() if count]
    return Verdict(not said, "; ".join(said), {"lists": lists.height})


def lists_are_full(draft: Draft, inputs: Mapping[str, Any], settings: RecommendationsSettings) -> Verdict:
    """Every user with events has a list of full length; a user who used nearly everything cannot."""
    users = inputs["split"].table("events")["user"].n_unique()
    full = draft.read("recommendations").filter(rank=settings.top).height
    share = full / users
    return Verdict(full == users, f"{users - full:,} of {users:,} lists are short", {"share_full": share})


@stage(
    "next_item/recommendations",
    settings=RecommendationsSettings,
    section="evaluate",
    version=1,
    inputs={
        "rankings": Every("rankings", section="models"),
        "split": "next_item/split",
        "dataset": "dataset",
    },
    tables={"recommendations": Recommendations},
    checks=(
        Check(nothing_used_is_recommended),
        Check(places_without_gaps),
        Check(lists_are_full, blocking=False),
    ),
    needs="heavy",
)
def recommendations(
    rankings: list[Artefact],
    split: Artefact,
    dataset: Artefact,
    settings: RecommendationsSettings,
    out: Draft,
) -> None:
    """Each user's list, by the best model on validation, of all that is known of the user; not fitted again."""
    found = models(rankings)
    method = chosen(found, settings.method)
    fitted = found[method][0]
    interactions, n_items = dataset.table("interactions"), split.table("catalogue").height
    scores = scores_of(fitted, split)
    lists = recommended(scores, split.table("events"), interactions, n_items, settings.top)
    named = (
        lists.join(dataset.table("users"), on="user")
        .join(dataset.table("items"), on="item")
        .with_columns(method=pl.lit(method), variant=pl.lit(fitted.variant), seed=pl.lit(fitted.seed))
    )
    out.table("recommendations", named.select(Recommendations.column_names()).sort("user", "rank"))
    out.metric(
        method=method,
        valid_ndcg_10=valid_ndcg_10(found[method]),
        users=lists["user"].n_unique(),
        coverage=lists["item"].n_unique() / n_items,
    )
