"""The track `ctr`: which interactions are learnt from, which are predicted, and what was known before each.

    interactions -> parts (by time, per user, or as published) -> liked or not -> histories -> caps -> examples

A history holds only what the user did strictly earlier than the example, in any part: a row of the test part
may show a test row of an hour before, as a running system would. Rows of one second are no history of each other.
Caps choose users, then rows, by a hash of what the row is: never by its label, and whatever the order of rows.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.schema import PARTS, Examples
from pipeline.stage import Check, Draft, Settings, Verdict, stage
from pipeline.store import Artefact

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

ROWS_AT_ONCE = 500_000  # histories gathered together; bounds memory
DRAWS = 64  # of one negative, before the user is taken to have used nearly everything


class SplitError(ValueError):
    """Interactions that cannot be split as the study says; the message says what to write instead."""


class SplitSettings(Settings):
    kind: Literal["time", "per_user", "published"] = Field(
        "time",
        description="time: everything before one moment is learnt from; per_user: each user's last rows are held "
        "out, for sources whose order is counted per user; published: the source's own parts",
    )
    valid_share: float = Field(0.1, gt=0, lt=1, description="share of rows, just before the test part")
    test_share: float = Field(0.1, gt=0, lt=1, description="share of rows, the latest")
    like_at_least: float | None = Field(
        None, description="smallest rating that is a like; absent where there are no ratings: all rows are likes"
    )
    history: int = Field(50, ge=0, description="longest history kept")
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
            require_global_order(interactions)
        cut = cut_by_time(interactions, settings)
    else:
        cut = cut_per_user(interactions, settings)
    missing = set(PARTS) - set(cut["part"].unique())
    if missing:
        raise SplitError(
            f"no row falls into {' and '.join(sorted(missing))}: {cut.height:,} rows have only "
            f"{cut['at'].n_unique():,} different times. Change valid_share or test_share"
        )
    return cut


def published(interactions: pl.DataFrame) -> pl.DataFrame:
    if interactions["part"].null_count():
        raise SplitError(
            "kind: published needs each row's part: name its column in data.dataset.interactions.columns.part"
        )
    return interactions


def require_global_order(interactions: pl.DataFrame) -> None:
    """An order that starts again for every user says nothing of what was before what."""
    distinct = interactions["at"].n_unique()
    if interactions.height > 2 * distinct:
        raise SplitError(
            f"the source has an order, not a time, and {interactions.height:,} rows share {distinct:,} places of "
            "it, so it seems to be counted per user: use kind: per_user, or kind: published where the source "
            "has its own parts"
        )


def cut_by_time(interactions: pl.DataFrame, settings: SplitSettings) -> pl.DataFrame:
    """One cut for all users. Rows at the cut's very moment go to the later part."""
    rows, at = interactions.height, interactions["at"]
    test = at[min(int(rows * (1 - settings.test_share)), rows - 1)]
    valid = at[int(rows * (1 - settings.test_share - settings.valid_share))]
    return interactions.with_columns(part=part_by(pl.col("at") >= valid, pl.col("at") >= test))


def cut_per_user(interactions: pl.DataFrame, settings: SplitSettings) -> pl.DataFrame:
    """Each user's last rows, by share and at least one of each; a user of fewer than three is only learnt from."""
    rank = pl.col("at").rank("min").over("user") - 1
    rows = pl.len().over("user")
    test = (rows * settings.test_share).ceil()
    valid = (rows * settings.valid_share).ceil()
    held = rows >= 3
    later = held & (rank >= rows - test - valid)
    return interactions.with_columns(part=part_by(later, held & (rank >= rows - test)))


def part_by(later: pl.Expr, last: pl.Expr) -> pl.Expr:
    return pl.when(last).then(pl.lit("test")).when(later).then(pl.lit("valid")).otherwise(pl.lit("train"))


# --- labels and negatives ----------------------------------------------------------------------------------


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
        raise SplitError(f"ratings run from {low:g} to {high:g}: set like_at_least, the smallest that is a like")
    return interactions.with_columns(label=(pl.col("rating") >= settings.like_at_least).cast(pl.UInt8))


def with_negatives(rows: pl.DataFrame, clock: str, per_positive: int, seed: int) -> pl.DataFrame:
    """The rows and, for each like, rows of label 0 at the same moment, numbered after the last row.

    Items are drawn evenly from those that were there before: interacted with, by anybody, strictly earlier
    (where the source has only an order: in the train part). Never one that the user had used by then. A draw
    hangs on seed, user, item and time alone, so other rows and their order change it only through what was
    there. A user who had used nearly everything gets fewer; none are drawn twice at one moment.
    """
    likes = rows.filter(pl.col("label") == 1)
    pool = Pool(rows, by_order=clock == "order")
    asked = likes.select(pl.all().repeat_by(per_positive).explode()) if per_positive > 1 else likes
    draw = np.tile(np.arange(per_positive, dtype=np.uint64), likes.height)
    items = pool.draw(asked, draw, seed)
    drawn = asked.with_columns(item=pl.Series(items, dtype=pl.Int64), label=pl.lit(0, dtype=pl.UInt8))
    drawn = drawn.filter(pl.col("item") >= 0).cast({"item": pl.UInt32})
    drawn = drawn.unique(["user", "item", "at"], keep="first", maintain_order=True)
    numbers = pl.int_range(rows.height, rows.height + drawn.height, dtype=pl.UInt32, eager=True)
    return pl.concat([rows, drawn.with_columns(row=numbers)])
