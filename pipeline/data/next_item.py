"""The track `next_item`: which events are learnt from, what is to be found, and what was known before.

    interactions -> filters (liked, cores) -> parts -> events
    events -> one query per user and part: history and targets;  items -> catalogue: which were learnt from

Tie rule: events stand in order of (at, row). Rows are numbered in order of (at, place in the source), so `row`
alone is that order, and events of one moment stand as the source has them. The last event of a user is the
last in that order; a history ends before the first target in it.

| kind | held out | the history of a test query |
| --- | --- | --- |
| leave_last | a user's last event (test) and the one before (valid) | the user's train and valid events |
| time | everything from one moment on | the same, before the first target |
| random | rows drawn by seed; each user keeps one train row | the same, of any time |
| cold_item | items drawn by seed, with all their events | train events before the first target |
| cold_user | users drawn by seed, with all their events | the user's own events but the last |
| published | the source's own parts | train and valid events before the first target |
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import polars as pl
from pydantic import Field, model_validator

from pipeline.data.negatives import mixed
from pipeline.data.parts import SplitError, cut_by_time, overlaps, part_by, published, require_global_order
from pipeline.schema import PARTS, Catalogue, Events, Queries
from pipeline.stage import Check, Draft, Settings, Verdict, stage
from pipeline.store import Artefact

Kind = Literal["leave_last", "time", "random", "cold_item", "cold_user", "published"]


class ShareSettings(Settings):
    """Filters, and shares drawn by seed: of rows, items or users."""

    valid_share: float = Field(0.1, gt=0, lt=1, description="share held out to choose by")
    test_share: float = Field(0.1, gt=0, lt=1, description="share held out to be found")
    seed: int = Field(1, ge=0, description="of the draws")
    like_at_least: float | None = Field(
        None, description="only rows with such a rating or a higher one count; all rows if absent"
    )
    user_core: int = Field(1, ge=1, description="users with fewer events are left out, until none is left")
    item_core: int = Field(1, ge=1, description="items with fewer events are left out, until none is left")

    @model_validator(mode="after")
    def something_to_learn_from(self) -> Self:
        if self.valid_share + self.test_share >= 1:
            raise ValueError("valid_share and test_share leave nothing to learn from")
        return self


class NextItemSettings(ShareSettings):
    """Shares are of rows (time, random), items or users; leave_last takes none."""

    kind: Kind = Field(
        "leave_last",
        description="leave_last: each user's last event is the test part, the one before it the valid part; "
        "time: everything before one moment is learnt from; random: rows are drawn, whatever their time, and "
        "each user keeps one to learn from; cold_item, cold_user: items or users are split apart; "
        "published: the source's own parts",
    )


# --- filters -----------------------------------------------------------------------------------------------


def liked(interactions: pl.DataFrame, at_least: float | None) -> pl.DataFrame:
    """The rows with such a rating; a row without a rating is no like. Raises SplitError without any rating."""
    if at_least is None:
        return interactions
    if interactions["rating"].null_count() == interactions.height:
        raise SplitError("there are no ratings: leave like_at_least out, then every row counts")
    return interactions.filter(pl.col("rating") >= at_least)


def core(events: pl.DataFrame, user_core: int, item_core: int) -> pl.DataFrame:
    """The largest set of rows whose users and items all have so many rows in it, filtered until none falls."""
    before = -1
    while events.height != before:
        before = events.height
        events = events.filter(pl.len().over("user") >= user_core)
        events = events.filter(pl.len().over("item") >= item_core)
    return events


# --- parts -------------------------------------------------------------------------------------------------


def parted(events: pl.DataFrame, settings: NextItemSettings, clock: str) -> pl.DataFrame:
    """Events (sorted by row) with `part`. Raises SplitError where a part would be empty."""
    match settings.kind:
        case "leave_last":
            found = leave_last(events)
        case "time":
            if clock == "order":
                require_global_order(events, instead="leave_last")
            found = cut_by_time(events, settings.valid_share, settings.test_share)
        case "random":
            found = drawn_rows(events, settings)
        case "cold_item" | "cold_user":
            found = drawn_apart(events, settings.kind.removeprefix("cold_"), settings)
        case "published":
            found = published(events)
    missing = sorted(set(PARTS) - set(found["part"].unique()))
    if missing:
        raise SplitError(f"no event falls into {' and '.join(missing)}: {advice(events, settings.kind)}")
    return found


def advice(events: pl.DataFrame, kind: Kind) -> str:
    """What to change where a part is empty."""
    if kind == "leave_last":
        longest = events.group_by("user").len()["len"].max()
        return f"no user has three events, the longest row of events has {longest}; use kind: time"
    if kind == "published":
        return "the source names no such part; use another kind"
    return (
        f"{events.height:,} events of {events['user'].n_unique():,} users and {events['item'].n_unique():,} "
        f"items have {events['at'].n_unique():,} different times; change valid_share or test_share"
    )


def leave_last(events: pl.DataFrame) -> pl.DataFrame:
    """Each user's last event is test, the one before valid; users with fewer than three are learnt from."""
    left = pl.len().over("user") - pl.col("row").rank("ordinal").over("user")
    held = pl.len().over("user") >= 3
    return events.with_columns(part=part_by(held & (left <= 1), held & (left == 0)))


def drawn_rows(events: pl.DataFrame, settings: NextItemSettings) -> pl.DataFrame:
    """Each row drawn by a hash of what it is; the row of each user with the largest hash is train."""
    user, item, at = (events[name].to_numpy() for name in ("user", "item", "at"))
    place = pl.Series("place", mixed(settings.seed, user, item, at) / 2.0**64)
    drawn = events.with_columns(place)
    kept = pl.col("place") == pl.col("place").max().over("user")
    valid = settings.test_share + settings.valid_share
    test = ~kept & (pl.col("place") < settings.test_share)
    return drawn.with_columns(part=part_by(~kept & (pl.col("place") < valid), test)).drop("place")


def drawn_apart(events: pl.DataFrame, entity: str, settings: NextItemSettings) -> pl.DataFrame:
    """Whole items or users, in order of a hash: the first are test, the next valid, at least one each."""
    ids = events.select(pl.col(entity).unique().sort())
    ids = ids.with_columns(place=mixed(settings.seed, ids[entity].to_numpy())).sort("place", entity)
    test = max(round(ids.height * settings.test_share), 1)
    valid = test + max(round(ids.height * settings.valid_share), 1)
    order = pl.int_range(pl.len())
    apart = ids.select(entity, part=part_by(order < valid, order < test))
    return events.drop("part").join(apart, on=entity, how="left", maintain_order="left")


# --- queries -----------------------------------------------------------------------------------------------


def looked_at(part: str, kind: Kind) -> tuple[str, ...]:
    """The parts whose events a history of this part may hold."""
    if kind == "cold_user":
        return (part,)
    return ("train", "valid") if part == "test" and kind != "cold_item" else ("train",)


def queries(events: pl.DataFrame, kind: Kind) -> pl.DataFrame:
    """Table `queries` of events (sorted by row): one row per user with something to be found in a part."""
    return pl.concat([queries_of(events, part, kind) for part in PARTS[1:]]).sort("part", "user")


def queries_of(events: pl.DataFrame, part: str, kind: Kind) -> pl.DataFrame:
    """`queries` of one part. An item used twice in it is one target; what was used before may be used again."""
    first = held_out(events, part, kind).group_by("user", maintain_order=True)
    asked = first.agg(pl.col("at", "row").first(), targets=pl.col("item").unique(maintain_order=True))
    known = events.filter(pl.col("part").is_in(looked_at(part, kind)))
    past = known.join(asked.select("user", first="row"), on="user", how="inner", maintain_order="left")
    if kind != "random":
        past = past.filter(pl.col("row") < pl.col("first"))
    history = past.group_by("user", maintain_order=True).agg(history="item")
    found = asked.join(history, on="user", how="left", maintain_order="left")
    none = pl.lit([], dtype=pl.List(pl.UInt32))
    found = found.with_columns(pl.col("history").fill_null(none), part=pl.lit(part))
    return found.select(Queries.column_names())


def held_out(events: pl.DataFrame, part: str, kind: Kind) -> pl.DataFrame:
    """The events that are to be found: all of the part; of users split apart their last."""
    own = events.filter(pl.col("part") == part)
    return own.group_by("user", maintain_order=True).tail(1) if kind == "cold_user" else own


# --- catalogue ---------------------------------------------------------------------------------------------


def catalogue(events: pl.DataFrame, items: pl.Series) -> pl.DataFrame:
    """Table `catalogue` of all dense items: those with train rows get places in order, others none."""
    train = events.filter(part="train").group_by("item").agg(train_rows=pl.len().cast(pl.UInt32)).sort("item")
    train = train.with_columns(place=pl.int_range(pl.len(), dtype=pl.UInt32))
    found = items.sort().to_frame().join(train, on="item", how="left", maintain_order="left")
    return found.select("item", "place", pl.col("train_rows").fill_null(0))


# --- all together ------------------------------------------------------------------------------------------


class Split(NamedTuple):
    """The tables of a split, and how many rows its filters left out."""

    events: pl.DataFrame
    queries: pl.DataFrame
    catalogue: pl.DataFrame
    not_liked: int
    outside_core: int


def split_up(interactions: pl.DataFrame, items: pl.Series, settings: NextItemSettings, clock: str) -> Split:
    """Interactions and all dense items, split. Raises SplitError where that cannot be."""
    kept = liked(interactions.sort("row"), settings.like_at_least)
    events = core(kept, settings.user_core, settings.item_core)
    if events.is_empty():
        raise SplitError(
            f"the filters leave none of {interactions.height:,} interactions ({kept.height:,} are likes): "
            "lower like_at_least, user_core or item_core"
        )
    events = parted(events, settings, clock).select(Events.column_names())
    return Split(
        events,
        queries(events, settings.kind),
        catalogue(events, items),
        interactions.height - kept.height,
        kept.height - events.height,
    )


def facts(split: Split) -> dict[str, Any]:
    """Sizes of all and of each part."""
    events = split.events
    found: dict[str, Any] = {
        "events": events.height,
        "users": events["user"].n_unique(),
        "items": events["item"].n_unique(),
        "items_learnt_from": split.catalogue["place"].count(),
        "left_out_not_liked": split.not_liked,
        "left_out_by_core": split.outside_core,
    }
    for part in PARTS:
        found[f"{part}_events"] = events.filter(pl.col("part") == part).height
    for part in PARTS[1:]:
        asked = split.queries.filter(pl.col("part") == part)
        found |= {f"{part}_{name}": value for name, value in asked_facts(asked, split).items()}
    return found


def asked_facts(asked: pl.DataFrame, split: Split) -> dict[str, Any]:
    """Of the queries of one part: sizes, and what makes them hard or ambiguous."""
    learnt = split.events.filter(part="train")
    cold = split.catalogue.filter(pl.col("place").is_null())["item"]
    known = asked["user"].is_in(learnt["user"].unique().implode())
    targets = asked.select("user", "at", "history", item="targets").explode("item")
    met = targets.select(pl.col("item").is_in(pl.col("history")).sum()).item()
    moments = split.events.select("user", "at").group_by("user", "at").len()
    tied = asked.join(moments.filter(pl.col("len") > 1), on=["user", "at"], how="semi")
    return {
        "queries": asked.height,
        "targets": targets.height,
        "cold_targets": targets["item"].is_in(cold.implode()).sum(),
        "targets_used_before": met,
        "users_not_learnt_from": asked.height - known.sum(),
        "empty_histories": (asked["history"].list.len() == 0).sum(),
        "queries_at_a_shared_moment": tied.height,
        "mean_history": round(float(asked["history"].list.len().mean() or 0), 3),  # type: ignore[arg-type]
    }


# --- checks ------------------------------------------------------------------------------------------------


def no_future(draft: Draft, inputs: Mapping[str, Any], settings: NextItemSettings) -> Verdict:
    """Parts follow each other in time, and no history holds an event of its target's moment on.

    Recomputed by another way than the split's: the n-th item of a history must be the n-th event of its user
    in the parts that may be looked at, that event must stand before the first target, and none may be missing.
    A random split has no time: there a history must hold all of those parts and nothing else.
    """
    events, asked = draft.read("events").sort("row"), draft.read("queries")
    faults = sum(
        wrong_histories(asked.filter(pl.col("part") == part), events, part, settings.kind) for part in PARTS[1:]
    )
    said = [] if events["at"].is_sorted() else ["rows are not numbered in order of time"]
    if settings.kind == "leave_last":
        said += overlaps(events, pl.col("user"), by="row")
    if settings.kind == "time":
        said += overlaps(events, pl.lit("all"), by="at")
    if faults:
        said.append(f"{faults:,} histories hold what came later or was not used, or lack what came before")
    return Verdict(not said, "; ".join(said), {"histories_looked_at": asked.height})


def wrong_histories(asked: pl.DataFrame, events: pl.DataFrame, part: str, kind: Kind) -> int:
    """How many queries of a part have not the history that the events say."""
    known = events.filter(pl.col("part").is_in(looked_at(part, kind)))
    known = known.with_columns(n=pl.col("row").rank("ordinal").over("user").cast(pl.Int64) - 1)
    first = held_out(events, part, kind).group_by("user").agg(first=pl.col("row").min())
    due = known.join(first, on="user").filter((pl.col("row") < pl.col("first")) | pl.lit(kind == "random"))
    shown = asked.select("user", item="history").explode("item", empty_as_null=False)
    shown = shown.with_columns(n=pl.int_range(pl.len()).over("user"))
    keys = ["user", "n", "item"]
    more, less = shown.join(due, on=keys, how="anti"), due.join(shown, on=keys, how="anti")
    return pl.concat([more["user"], less["user"]]).n_unique()


def nothing_lost_or_doubled(draft: Draft, inputs: Mapping[str, Any], settings: NextItemSettings) -> Verdict:
    """Every interaction is one event or filtered out, and every held-out event is a target of one query."""
    events, asked = draft.read("events"), draft.read("queries")
    source = inputs["dataset"].table("interactions")
    keys = ["row", "user", "item", "at"]
    left_out = draft.metrics["left_out_not_liked"] + draft.metrics["left_out_by_core"]
    said = []
    if events["row"].n_unique() != events.height:
        said.append(f"{events.height - events['row'].n_unique():,} rows stand twice")
    if events.join(source, on=keys, how="anti").height:
        said.append("events differ from the interactions that they were made of")
    if events.height + left_out != source.height:
        said.append(f"of {source.height:,} interactions {events.height:,} are events and {left_out:,} left out")
    if unfiltered(settings) and left_out:
        said.append("interactions are left out though there is no filter")
    return Verdict(not said, "; ".join(said + unasked(events, asked, settings.kind)), {"left_out": left_out})


def unfiltered(settings: NextItemSettings) -> bool:
    return settings.like_at_least is None and settings.user_core == settings.item_core == 1


def unasked(events: pl.DataFrame, asked: pl.DataFrame, kind: Kind) -> list[str]:
    """Where targets are not the held-out events."""
    held = pl.concat([held_out(events.sort("row"), part, kind) for part in PARTS[1:]])
    due = held.select("part", "user", "item").unique()
    found = asked.select("part", "user", item="targets").explode("item")
    moments = held.group_by("part", "user").agg(pl.col("at").min())
    said = []
    if found.height != due.height or due.join(found, on=["part", "user", "item"], how="anti").height:
        said.append("the targets are not the held-out events, each item once")
    if asked.height != moments.height or moments.join(asked, on=["part", "user", "at"], how="anti").height:
        said.append("there is not one query for each user with held-out events, at the moment of the first")
    return said


def cold_ones_are_apart(draft: Draft, inputs: Mapping[str, Any], settings: NextItemSettings) -> Verdict:
    """Where items or users are split apart, none has events in two parts, nor is one learnt from asked for."""
    if not settings.kind.startswith("cold_"):
        return Verdict(True, "neither items nor users are split apart")
    entity = settings.kind.removeprefix("cold_")
    parts = draft.read("events").group_by(entity).agg(pl.col("part").n_unique())
    torn = parts.filter(pl.col("part") > 1).height
    asked = draft.read("queries").explode("targets")
    learnt = draft.read("events").filter(part="train")[entity].unique()
    known = asked["targets" if entity == "item" else "user"].is_in(learnt.implode()).sum()
    said = f"{torn:,} {entity}s stand in two parts; {known:,} targets are of {entity}s that were learnt from"
    return Verdict(not torn and not known, said if torn or known else "", {f"{entity}s": parts.height})


def catalogue_is_of_train(draft: Draft, inputs: Mapping[str, Any], settings: NextItemSettings) -> Verdict:
    """The catalogue lists every item from 0 on, and gives a place, in order, to those with train rows only."""
    found = draft.read("catalogue")
    train = draft.read("events").filter(part="train").group_by("item").len("rows").sort("item")
    placed = found.drop_nulls("place")
    said = []
    if found["item"].to_list() != list(range(found.height)):
        said.append("items are not numbered from 0 without a gap")
    if placed["item"].to_list() != train["item"].to_list():
        said.append("places are not those of the items with train rows")
    if placed["place"].to_list() != list(range(placed.height)):
        said.append("places are not in order of item")
    if found.filter(pl.col("train_rows") > 0)["train_rows"].to_list() != train["rows"].to_list():
        said.append("train rows are miscounted")
    return Verdict(not said, "; ".join(said), {"items": found.height, "places": placed.height})


# --- the stage ---------------------------------------------------------------------------------------------


@stage(
    "next_item/split",
    settings=NextItemSettings,
    section="data",
    version=1,
    inputs={"dataset": "dataset"},
    tables={"events": Events, "queries": Queries, "catalogue": Catalogue},
    checks=(
        Check(no_future),
        Check(nothing_lost_or_doubled),
        Check(cold_ones_are_apart),
        Check(catalogue_is_of_train),
    ),
)
def next_split(dataset: Artefact, settings: NextItemSettings, out: Draft) -> None:
    """Events to learn from, what each user is to be recommended, what was known before, and the catalogue."""
    items = dataset.table("items")["item"]
    split = split_up(dataset.table("interactions"), items, settings, dataset.metrics["clock"])
    for name in ("events", "queries", "catalogue"):
        out.table(name, getattr(split, name))
    out.metric(kind=settings.kind, **facts(split))
