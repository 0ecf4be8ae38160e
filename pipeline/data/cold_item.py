"""The track `cold_item`: items that nobody's training rows hold are to be found, by what is known of them.

    interactions -> filters -> items drawn by seed -> each user up to their last event with one of them
      -> events, queries, catalogue;  their training events once more -> what a fit stops by

A user's last event with an item held out is what is asked for. What stood before it, less all items held out,
is learnt from and is the history; what came later is left out, so nothing that is learnt of a user came after
what they are asked for. A user is asked once, in the part of that item; who never used such an item is learnt
from whole.

Departure from the protocol of TIGER (Rajput et al., NeurIPS 2023), which holds out 5 % of the items that are
anybody's last and asks those few users. Here everybody is asked who ever used an item held out, so that the
figures are of many users; the price is what these did later.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import Field

from pipeline.data.next_item import (
    NextItemSettings,
    ShareSettings,
    Split,
    catalogue,
    core,
    drawn_apart,
    facts,
    liked,
    queries,
    queries_of,
    wrong_histories,
)
from pipeline.data.parts import SplitError, part_by
from pipeline.schema import PARTS, Catalogue, Events, Queries
from pipeline.stage import Artefact, Check, Draft, Settings, Verdict, stage


class ColdItemSettings(ShareSettings):
    """Shares are of the items."""

    valid_share: float = Field(0.05, gt=0, lt=1, description="share held out to choose by")
    test_share: float = Field(0.05, gt=0, lt=1, description="share held out to be found")

    @property
    def apart(self) -> NextItemSettings:
        """The same draw, as the split of the track next_item does it."""
        return NextItemSettings(kind="cold_item", **self.model_dump())


# --- the split ---------------------------------------------------------------------------------------------


def filtered(interactions: pl.DataFrame, settings: ColdItemSettings) -> pl.DataFrame:
    """The interactions that count, sorted by row."""
    kept = liked(interactions.sort("row"), settings.like_at_least)
    return core(kept, settings.user_core, settings.item_core)


def up_to_the_last(events: pl.DataFrame) -> pl.DataFrame:
    """Of events with the part of their item, what stands before a user's last held-out one, and that one.

    Other held-out events are left out, and all that came after it; all of a user who has none is kept.
    """
    held = pl.col("part") != "train"
    last = events.filter(held).group_by("user").agg(last=pl.col("row").max())
    joined = events.join(last, on="user", how="left", maintain_order="left")
    before = pl.col("last").is_null() | (pl.col("row") < pl.col("last"))
    return joined.filter((~held & before) | (pl.col("row") == pl.col("last"))).drop("last")


def split_up(interactions: pl.DataFrame, items: pl.Series, settings: ColdItemSettings) -> Split:
    """Interactions and all dense items, split. Raises SplitError where a part would be empty."""
    kept = liked(interactions, settings.like_at_least)
    whole = filtered(interactions, settings)
    events = up_to_the_last(drawn_apart(whole, "item", settings.apart)).select(Events.column_names())
    missing = sorted(set(PARTS) - set(events["part"].unique()))
    if missing:
        raise SplitError(
            f"no event falls into {' and '.join(missing)}: {whole.height:,} events have "
            f"{whole['item'].n_unique():,} items; change valid_share, test_share or seed"
        )
    found = (events, queries(events, "cold_item"), catalogue(events, items))
    return Split(*found, interactions.height - kept.height, kept.height - whole.height)


def once_more(events: pl.DataFrame) -> pl.DataFrame:
    """Training events with the last one of each user of three or more as the part valid."""
    train = events.filter(part="train").sort("row")
    last = pl.col("row") == pl.col("row").max().over("user")
    held = last & (pl.len().over("user") >= 3)
    return train.with_columns(part=part_by(held, pl.lit(False))).select(Events.column_names())


# --- checks ------------------------------------------------------------------------------------------------


def no_item_held_out_is_known(draft: Draft, inputs: Mapping[str, Any], settings: ColdItemSettings) -> Verdict:
    """No item held out, whoever used it, stands in a training row or a history; all targets are such items."""
    rows = filtered(inputs["dataset"].table("interactions"), settings)
    drawn = drawn_apart(rows, "item", settings.apart).filter(pl.col("part") != "train")["item"].unique()
    events, asked = draft.read("events"), draft.read("queries")
    held = drawn.implode()
    counts = {
        "training rows of items held out": events.filter(pl.col("item").is_in(held), part="train").height,
        "of them in histories": asked["history"].explode(empty_as_null=False).is_in(held).sum(),
        "targets that are not held out": (~asked["targets"].explode(empty_as_null=False).is_in(held)).sum(),
    }
    broken = [f"{count:,} {kind}" for kind, count in counts.items() if count]
    return Verdict(not broken, "; ".join(broken), {"items_held_out": len(drawn)})


def nothing_learnt_came_later(draft: Draft, inputs: Mapping[str, Any], settings: ColdItemSettings) -> Verdict:
    """A user's history is all their training rows, in order, and each stands before what they are asked for."""
    events, asked = draft.read("events").sort("row"), draft.read("queries")
    when = events.filter(pl.col("part") != "train").select("user", asked="row")
    late = events.filter(part="train").join(when, on="user").filter(pl.col("row") >= pl.col("asked")).height
    wrong = sum(wrong_histories(asked.filter(part=part), events, part, "cold_item") for part in PARTS[1:])
    said = [f"{late:,} training rows came after what their user is asked for"] if late else []
    said += [f"{wrong:,} histories are not what was used before"] if wrong else []
    said += ["a user is asked twice"] if asked["user"].n_unique() != asked.height else []
    return Verdict(not said, "; ".join(said), {"queries": asked.height})


def events_are_interactions(draft: Draft, inputs: Mapping[str, Any], settings: ColdItemSettings) -> Verdict:
    """Every event is an interaction of the dataset, and stands once."""
    events, keys = draft.read("events"), ["row", "user", "item", "at"]
    strange = events.join(inputs["dataset"].table("interactions"), on=keys, how="anti").height
    doubled = events.height - events["row"].n_unique()
    return Verdict(not strange and not doubled, f"{strange:,} are none, {doubled:,} stand twice")


def nothing_held_out_is_learnt(draft: Draft, inputs: Mapping[str, Any], settings: Settings) -> Verdict:
    """What was learnt from holds no item that is to be found, nor anything but the split's training rows.

    Of a stage that has learnt from `warm` and is asked by `split`; or of `warm` itself, not yet finished.
    """
    warm = inputs["warm"].table("events") if "warm" in inputs else draft.read("events")
    split = inputs["split"]
    targets = split.table("queries")["targets"].explode(empty_as_null=False).unique()
    known = warm.filter(pl.col("item").is_in(targets.implode())).height
    train = split.table("events").filter(part="train")
    other = warm.join(train, on=["row", "user", "item"], how="anti").height
    words = f"{known:,} rows of items that are to be found, {other:,} that are no training rows"
    return Verdict(not known and not other, words if known or other else "", {"rows": warm.height})


# --- the stages --------------------------------------------------------------------------------------------


@stage(
    "cold_item/split",
    settings=ColdItemSettings,
    section="data",
    version=1,
    inputs={"dataset": "dataset"},
    tables={"events": Events, "queries": Queries, "catalogue": Catalogue},
    checks=(
        Check(no_item_held_out_is_known),
        Check(nothing_learnt_came_later),
        Check(events_are_interactions),
    ),
)
def cold_split(dataset: Artefact, settings: ColdItemSettings, out: Draft) -> None:
    """Items that are held out with all their events, who is asked for them, and what is learnt from."""
    split = split_up(dataset.table("interactions"), dataset.table("items")["item"], settings)
    for name in ("events", "queries", "catalogue"):
        out.table(name, getattr(split, name))
    out.metric(**facts(split))


@stage(
    "warm_items/split",
    settings=Settings,
    section="data",
    version=1,
    inputs={"split": "cold_item/split"},
    tables={"events": Events, "queries": Queries, "catalogue": Catalogue},
    checks=(Check(nothing_held_out_is_learnt),),
)
def warm_split(split: Artefact, settings: Settings, out: Draft) -> None:
    """The training rows of `cold_item/split` once more, with known items to stop a fit by."""
    events = once_more(split.table("events"))
    out.table("events", events)
    out.table("queries", queries_of(events, "valid", "leave_last").sort("user"))
    out.table("catalogue", catalogue(events, split.table("catalogue")["item"]))
    out.metric(
        train_events=events.filter(part="train").height, valid_queries=events.filter(part="valid").height
    )
