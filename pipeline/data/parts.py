"""Which part a row falls into, where two tracks cut alike: by time, as published; and why a cut cannot be."""

from itertools import combinations

import polars as pl

from pipeline.schema import PARTS


class SplitError(ValueError):
    """Interactions that cannot be split as the study says; the message says what to write instead."""


def published(interactions: pl.DataFrame) -> pl.DataFrame:
    """Interactions as they are. Raises SplitError where the source names no part."""
    if interactions["part"].null_count():
        raise SplitError(
            "kind: published needs each row's part: name its column in data.dataset.interactions.columns.part"
        )
    return interactions


def require_global_order(interactions: pl.DataFrame, instead: str) -> None:
    """An order that starts again for every user says nothing of what was before what.

    instead: the kind to use then. Raises SplitError where places of the order are shared by many rows.
    """
    distinct = interactions["at"].n_unique()
    if interactions.height > 2 * distinct:
        raise SplitError(
            f"the source has an order, not a time, and {interactions.height:,} rows share {distinct:,} places "
            f"of it, so it seems to be counted per user: use kind: {instead}, or kind: published where the "
            "source has its own parts"
        )


def cut_by_time(interactions: pl.DataFrame, valid_share: float, test_share: float) -> pl.DataFrame:
    """Interactions (sorted by row) with `part`: one cut for all users, of these shares of the rows.

    Rows at the cut's very moment go to the later part.
    """
    rows, at = interactions.height, interactions["at"]
    test = rows - max(round(rows * test_share), 1)
    valid = max(test - max(round(rows * valid_share), 1), 0)
    return interactions.with_columns(part=part_by(pl.col("at") >= at[valid], pl.col("at") >= at[test]))


def part_by(later: pl.Expr, last: pl.Expr) -> pl.Expr:
    """train, valid where `later`, test where `last`."""
    return pl.when(last).then(pl.lit("test")).when(later).then(pl.lit("valid")).otherwise(pl.lit("train"))


def overlaps(rows: pl.DataFrame, whose: pl.Expr, by: str) -> list[str]:
    """Where a part begins before the part before it has ended, in the order of the column `by`.

    whose: the user where each user is cut apart, one value for all where there is one cut.
    """
    spans = rows.group_by(whose.alias("whose"), "part").agg(first=pl.col(by).min(), last=pl.col(by).max())
    said = []
    for earlier, later in combinations(PARTS, 2):
        both = spans.filter(part=earlier).join(spans.filter(part=later), on="whose")
        wrong = both.filter(pl.col("last") >= pl.col("first_right")).height
        if wrong:
            whom = f" for {wrong:,} users" if spans["whose"].dtype.is_numeric() else ""
            said.append(f"{later} begins before {earlier} has ended{whom}")
    return said
