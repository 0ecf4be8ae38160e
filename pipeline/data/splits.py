"""The track `ctr`: which interactions are learnt from, which are predicted, and what was known before each.

    interactions -> parts (by time, per user, or as published) -> liked or not -> histories -> caps -> examples

A history holds only what the user did strictly earlier than the example. `history_from` says of which parts:
`train`, so that whoever reads histories knows the labels that the baselines learn from and no others; or
`any`, so that a row of the test part may show a test row of an hour before and its label, as a running system
would. Rows of one second are no history of each other. Caps choose users, then rows, by a hash of what the row
is: never by its label, and whatever the order of rows.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from pipeline.data.histories import Histories, slices
from pipeline.data.negatives import mixed, with_negatives
from pipeline.data.parts import SplitError, cut_by_time, overlaps, part_by, published, require_global_order
from pipeline.schema import PARTS, Examples
from pipeline.stage import Check, Draft, Settings, Verdict, stage
from pipeline.store import Artefact

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


TRAIN_LOOKED_AT = 300_000  # rows of the train part whose histories the check recomputes
OF_USERS = 3  # salt of the users drawn; those of the caps are 1 and 2
NO_PAIR = np.iinfo(np.int64).max  # above every pair of user and item


class SplitSettings(Settings):
    kind: Literal["time", "per_user", "users", "published"] = Field(
        "time",
        description="time: everything before one moment is learnt from; per_user: each user's last rows are "
        "held out, for sources whose order is counted per user; users: of some users, drawn by a hash, all "
        "rows behind their first half are held out; published: the source's own parts",
    )
    valid_share: float = Field(
        0.1, gt=0, lt=1, description="share of rows (users: of users) before the test part"
    )
    test_share: float = Field(0.1, gt=0, lt=1, description="share of rows, the latest (users: of users)")
    like_at_least: float | None = Field(
        None,
        description="smallest rating that is a like; absent where there are no ratings: all rows are likes",
    )
    history: int = Field(50, ge=0, description="longest history kept")
    history_from: Literal["train", "any"] = Field(
        "train",
        description="what histories are made of: train, so that language models read the labels that the "
        "baselines learn from and no others; any, earlier rows of the held-out parts too, labels included",
    )
    min_history: int = Field(
        0, ge=0, description="valid and test rows with a shorter history are left out; train keeps all"
    )
    valid_rows: int | None = Field(None, ge=1, description="most valid rows; all if absent")
    test_rows: int | None = Field(None, ge=1, description="most test rows; all if absent")
    rows_per_user: int | None = Field(None, ge=2, description="most valid and most test rows of one user")
    negatives_per_positive: int = Field(
        0,
        ge=0,
        description="rows drawn for each like from items that were there before it and the user had not used; "
        "needed where there are no ratings",
    )
    negative_seed: int = Field(1, ge=0, description="of those draws")

    @model_validator(mode="after")
    def something_to_learn_from(self) -> "SplitSettings":
        if self.valid_share + self.test_share >= 1:
            raise ValueError("valid_share and test_share leave nothing to learn from")
        return self


# --- parts -------------------------------------------------------------------------------------------------


def parts(interactions: pl.DataFrame, settings: SplitSettings, clock: str) -> pl.DataFrame:
    """Interactions (sorted by row) with `part`. Raises SplitError where that cannot be."""
    if settings.kind == "published":
        return published(interactions)
    if settings.kind == "time":
        if clock == "order":
            require_global_order(interactions, instead="per_user")
        cut = cut_by_time(interactions, settings.valid_share, settings.test_share)
    else:
        how = cut_some_users if settings.kind == "users" else cut_per_user
        cut = how(interactions, settings)
    missing = set(PARTS) - set(cut["part"].unique())
    if missing:
        raise SplitError(
            f"no row falls into {' and '.join(sorted(missing))}: {cut.height:,} rows have only "
            f"{cut['at'].n_unique():,} different times, {cut['user'].n_unique():,} users. Change valid_share "
            "or test_share"
        )
    return cut


def cut_per_user(interactions: pl.DataFrame, settings: SplitSettings) -> pl.DataFrame:
    """Each user's last rows, by share, at least one of each; who has fewer than three is only learnt from."""
    rows = pl.len().over("user").cast(pl.Int64)
    rank = pl.col("at").rank("min").over("user") - 1
    test = pl.min_horizontal(pl.max_horizontal((rows * settings.test_share).round(), 1), rows - 2)
    valid = pl.min_horizontal(pl.max_horizontal((rows * settings.valid_share).round(), 1), rows - test - 1)
    held = rows >= 3
    later = held & (rank >= rows - test - valid)
    return interactions.with_columns(part=part_by(later, held & (rank >= rows - test)))


def cut_some_users(interactions: pl.DataFrame, settings: SplitSettings) -> pl.DataFrame:
    """All of most users, and the first half of the others, whose later rows are held out (KAR's protocol).

    Rows of one moment stay together, in the first half where it ends there.
    """
    users = interactions.select(pl.col("user").unique().sort())
    place = mixed(OF_USERS, users["user"].to_numpy()).argsort(kind="stable").argsort()
    test = max(round(users.height * settings.test_share), 1)
    valid = test + max(round(users.height * settings.valid_share), 1)
    drawn = users.with_columns(place=pl.Series(place))
    rows = interactions.join(drawn, on="user", how="left", maintain_order="left")
    earlier = pl.col("at").rank("min").over("user") - 1
    later = earlier >= (pl.len().over("user") + 1) // 2
    part = part_by(later & (pl.col("place") < valid), later & (pl.col("place") < test))
    return rows.with_columns(part=part).drop("place")


# --- labels ------------------------------------------------------------------------------------------------


def labelled(interactions: pl.DataFrame, settings: SplitSettings) -> pl.DataFrame:
    """With `label`: 1 where the rating is a like, or for every row where there are no ratings."""
    missing = interactions["rating"].null_count()
    if missing == interactions.height:
        if not settings.negatives_per_positive:
            raise SplitError(
                "there are no ratings, so every row is a like and nothing can be told apart: "
                "set negatives_per_positive, for example to 1, or map a rating column"
            )
        return interactions.with_columns(label=pl.lit(1, dtype=pl.UInt8))
    if settings.like_at_least is None:
        low, high = interactions["rating"].min(), interactions["rating"].max()
        raise SplitError(
            f"ratings run from {low:g} to {high:g}: set like_at_least, the smallest that is a like"
        )
    return interactions.with_columns(label=(pl.col("rating") >= settings.like_at_least).cast(pl.UInt8))


# --- caps --------------------------------------------------------------------------------------------------


def capped(rows: pl.DataFrame, most: int | None, per_user: int | None, salt: int) -> pl.DataFrame:
    """At most `most` rows: whole users in the order of a hash, `per_user` rows of each by a hash of the row.

    A last user who would be left with one row of several is left out, so that no user's classes are cut away.
    """
    user, item, at = (rows[name].to_numpy() for name in ("user", "item", "at"))
    hashed = rows.with_columns(
        of_user=mixed(salt, user), of_row=mixed(salt, user, item, at), had=pl.len().over("user")
    ).sort("of_user", "user", "of_row", "row")
    if per_user is not None:
        hashed = hashed.filter(pl.int_range(pl.len()).over("user") < per_user)
    if most is not None and most < hashed.height:
        hashed = hashed.head(most)
        alone = (pl.len().over("user") == 1) & (pl.col("had") > 1)
        hashed = hashed.filter(~alone | (pl.lit(most) == 1))
    return hashed.drop("of_user", "of_row", "had").sort("row")


# --- all together ------------------------------------------------------------------------------------------


def examples(
    interactions: pl.DataFrame, settings: SplitSettings, clock: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(examples without histories, interactions with part and label). Raises SplitError."""
    known = labelled(parts(interactions.sort("row"), settings, clock), settings)
    known = known.select("row", "part", "user", "item", "label", "at")
    rows = known
    if settings.negatives_per_positive:
        rows = with_negatives(known, clock, settings.negatives_per_positive, settings.negative_seed)
    train = rows.filter(part="train")
    found = pl.concat([train, *(held_out(rows, known, part, settings) for part in PARTS[1:])]).sort("row")
    for name in ("user", "item"):
        seen = train.group_by(name).agg(pl.len().cast(pl.UInt32).alias(f"{name}_seen"))
        found = found.join(seen, on=name, how="left", maintain_order="left").with_columns(
            pl.col(f"{name}_seen").fill_null(0)
        )
    return found, known


def past(known: pl.DataFrame, settings: SplitSettings) -> pl.DataFrame:
    """The interactions that histories may hold."""
    return known.filter(part="train") if settings.history_from == "train" else known


def held_out(rows: pl.DataFrame, known: pl.DataFrame, part: str, settings: SplitSettings) -> pl.DataFrame:
    """The rows of the valid or test part that stay after `min_history` and the caps."""
    held = rows.filter(pl.col("part") == part)
    if settings.min_history:
        lengths = Histories(held, past(known, settings), settings.min_history).lengths
        held = held.filter(lengths >= settings.min_history)
    most = settings.valid_rows if part == "valid" else settings.test_rows
    return capped(held, most, settings.rows_per_user, salt=PARTS.index(part))


def facts(rows: pl.DataFrame, known: pl.DataFrame) -> dict[str, Any]:
    """Sizes and shares of each part. rows: examples with `history_length`."""
    found: dict[str, Any] = {}
    for part in PARTS:
        held = rows.filter(pl.col("part") == part)
        classes = held.group_by("user").agg(pl.col("label").n_unique())
        found |= {
            f"{part}_rows": held.height,
            f"{part}_rows_before_caps": known.filter(pl.col("part") == part).height,
            f"{part}_positive_share": share(held["label"] == 1),
            f"{part}_users": classes.height,
            f"{part}_two_class_users": classes.filter(pl.col("label") == 2).height,
            f"{part}_items": held["item"].n_unique(),
            f"{part}_cold_user_share": share(held["user_seen"] == 0),
            f"{part}_cold_item_share": share(held["item_seen"] == 0),
            f"{part}_mean_history": round(float(held["history_length"].mean() or 0), 3),  # type: ignore[arg-type]
            f"{part}_no_history_share": share(held["history_length"] == 0),
            f"{part}_first_at": held["at"].min(),
        }
    return found


def share(flags: pl.Series) -> float | None:
    mean = flags.mean()
    return None if mean is None else round(float(mean), 6)  # type: ignore[arg-type]


# --- checks ------------------------------------------------------------------------------------------------


def no_future(draft: Draft, inputs: Mapping[str, Any], settings: SplitSettings) -> Verdict:
    """Training ends before validation and validation before test, and no history holds what it must not.

    Recomputed from the dataset's interactions by another way than the split's: every history item must have
    been used by the user strictly before the example, in train where `history_from` says so, and the history
    must be as long as that past allows. Of a large train part, rows evenly spaced are looked at.
    """
    rows = draft.scan("examples").select("row", "part", "user", "at").collect()
    interactions = inputs["dataset"].scan("interactions").select("row", "user", "item", "at").collect()
    if settings.history_from == "train":
        interactions = interactions.join(rows.filter(part="train"), on="row", how="semi")
    before, every = Past(interactions), max(rows.filter(part="train").height // TRAIN_LOOKED_AT, 1)
    faults = looked_at = 0
    for cut in slices(rows.height):
        some = looked_at_in(draft.scan("examples").slice(cut.start, cut.stop - cut.start), every).collect()
        faults += before.faults(some, settings.history)
        looked_at += some.height
    said = []
    if settings.kind != "published":  # what others call parts need not follow each other
        whose = pl.lit("all") if settings.kind == "time" else pl.col("user")
        said = overlaps(rows, whose, by="at")
    if faults:
        where = " or outside train" if settings.history_from == "train" else ""
        said.append(
            f"{faults:,} histories hold an item of that moment or later{where}, or lack one from before"
        )
    return Verdict(not said, "; ".join(said), {"histories_looked_at": looked_at})


def looked_at_in(rows: pl.LazyFrame, every: int) -> pl.LazyFrame:
    """All held-out rows and one train row of `every`."""
    numbered = rows.with_columns(place=pl.int_range(pl.len()).over("part"))
    return numbered.filter((pl.col("part") != "train") | (pl.col("place") % every == 0)).drop("place")


class Past:
    """When each user first used each item, and how many interactions they had up to each moment."""

    def __init__(self, interactions: pl.DataFrame) -> None:
        uses = interactions.group_by("user", "item").agg(pl.col("at").min()).sort("user", "item")
        self.used = np.append(pairs(uses["user"], uses["item"]), NO_PAIR)
        self.used_at = np.append(uses["at"].to_numpy(), 0)
        moments = interactions.group_by("user", "at").agg(pl.len().alias("n")).sort("user", "at")
        self.lengths = moments.select("user", "at", before=pl.col("n").cum_sum().over("user")).sort("at")

    def faults(self, rows: pl.DataFrame, longest: int) -> int:
        """How many rows have a history item not used strictly before, or not the history's due length."""
        held = rows.select("row", "user", "at", item="history").explode("item", empty_as_null=False)
        pair = pairs(held["user"], held["item"])
        place = np.searchsorted(self.used, pair)
        early = (self.used[place] == pair) & (self.used_at[place] < held["at"].to_numpy())
        lengths = rows.sort("at").join_asof(
            self.lengths, on="at", by="user", allow_exact_matches=False, check_sortedness=False
        )
        due = pl.min_horizontal(pl.col("before").fill_null(0), pl.lit(longest))
        found = pl.col("history").list.len()
        wrong = lengths.filter((found != due) | (found != pl.col("history_labels").list.len()))["row"]
        return pl.concat([held["row"].filter(pl.Series(~early)), wrong]).n_unique()


def pairs(user: pl.Series, item: pl.Series) -> "NDArray[np.int64]":
    """User and item as one number."""
    return (user.to_numpy().astype(np.int64) << 32) | item.to_numpy()


def nothing_lost_or_doubled(draft: Draft, inputs: Mapping[str, Any], settings: SplitSettings) -> Verdict:
    """Every interaction is in one part, and every example that is not a drawn negative is one interaction."""
    rows = draft.scan("examples").select("row", "part", "user", "item", "at").collect()
    interactions = inputs["dataset"].scan("interactions").select("row", "user", "item", "at").collect()
    real = rows.filter(pl.col("row") < interactions.height)
    facts = draft.metrics
    before = sum(facts[f"{part}_rows_before_caps"] for part in PARTS)
    said = []
    if rows["row"].n_unique() != rows.height:
        said.append(f"{rows.height - rows['row'].n_unique():,} rows stand twice")
    if real.join(interactions, on=["row", "user", "item", "at"], how="anti").height:
        said.append("examples differ from the interactions that they were made of")
    if before != interactions.height:
        said.append(f"{interactions.height:,} interactions went in and {before:,} were given a part")
    if real.filter(part="train").height != facts["train_rows_before_caps"]:
        said.append("interactions of the train part are missing from the examples")
    return Verdict(not said, "; ".join(said), {"drawn_negatives": rows.height - real.height})


def two_classes(draft: Draft, inputs: Mapping[str, Any], settings: SplitSettings) -> Verdict:
    """Every part has likes and others; with one class only, nothing can be ordered or measured."""
    shares = {part: draft.metrics[f"{part}_positive_share"] for part in PARTS}
    flat = [part for part, positive in shares.items() if positive in (None, 0.0, 1.0)]
    why = (
        f"is like_at_least {settings.like_at_least:g} right?"
        if settings.like_at_least is not None
        else ("no item was left to draw: users there had used everything")
    )
    said = f"one class or no row in {', '.join(flat)}: {why}"
    return Verdict(not flat, said if flat else "", {f"{k}_positive_share": v for k, v in shares.items()})


# --- the stage ---------------------------------------------------------------------------------------------


@stage(
    "ctr/split",
    settings=SplitSettings,
    section="data",
    version=2,
    inputs={"dataset": "dataset"},
    tables={"examples": Examples},
    checks=(Check(no_future), Check(nothing_lost_or_doubled), Check(two_classes)),
)
def split(dataset: Artefact, settings: SplitSettings, out: Draft) -> None:
    """Labelled rows to learn from and to predict, each with the history that was known before it."""
    clock = dataset.metrics["clock"]
    rows, known = examples(dataset.table("interactions"), settings, clock)
    found = Histories(rows, past(known, settings), settings.history)
    out.table("examples", found.beside(rows))
    out.metric(**facts(rows.with_columns(history_length=found.lengths), known))
    out.picture("timeline", timeline(known, clock))


COLOURS = {"train": "#4c72b0", "valid": "#dd8452", "test": "#55a868"}


def timeline(known: pl.DataFrame, clock: str, bins: int = 80) -> "Figure":
    """Interactions over time, by part."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6))
    axes = figure.subplots()
    edges = np.linspace(float(known["at"].min()), float(known["at"].max()) + 1, bins + 1)  # type: ignore[arg-type]
    shown = edges.astype("int64").astype("datetime64[s]") if clock == "time" else edges
    base = np.zeros(bins)
    for part in PARTS:
        count, _ = np.histogram(known.filter(part=part)["at"].to_numpy(), edges)
        axes.stairs(base + count, shown, baseline=base, fill=True, color=COLOURS[part], label=part)
        base = base + count
    axes.set(ylabel="interactions", xlabel="" if clock == "time" else "order", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.15))
    return figure
