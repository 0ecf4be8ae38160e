"""What a user thought of the items of a past: the source's stars where it has them, else liked or disliked.

    examples + interactions -> rating of every history item -> "4 stars" | "liked"

A history tells items, not the interactions behind them, so each item is given the rating of the user's latest
use of it before the example (of the one before, where it stands there twice). No rating of the example's own
moment or later is ever looked at.
"""

import polars as pl

from pipeline.data.histories import as_lists


def history_ratings(examples: pl.DataFrame, interactions: pl.DataFrame) -> pl.Series:
    """Ratings of each example's history, a list aligned with it; null where there is none.

    examples: row, user, at, history; interactions: row, user, item, at, rating of what histories may hold.
    """
    events = numbered(examples)
    uses = interactions.select("user", "item", used_at="at", use="row", rating="rating")
    found = (
        events.join(uses, on=("user", "item"), how="inner")
        .filter(pl.col("used_at") < pl.col("at"))
        .sort("n", "place", "used_at", "use", descending=[False, False, True, True])
        .filter(pl.int_range(pl.len()).over("n", "place") == pl.col("later"))
    )
    told = events.join(
        found.select("n", "place", "rating"), on=("n", "place"), how="left", maintain_order="left"
    )
    return as_lists(told["rating"], examples["history"].list.len())


def numbered(examples: pl.DataFrame) -> pl.DataFrame:
    """One row per history item: n, place in it, and how many `later` ones of the history are the same item."""
    events = examples.select("user", "at", item="history").with_row_index("n")
    events = events.explode("item", empty_as_null=False).with_columns(place=pl.int_range(pl.len()).over("n"))
    return events.with_columns(later=pl.len().over("n", "item") - 1 - pl.int_range(pl.len()).over("n", "item"))


def notes(labels: pl.Series, ratings: pl.Series) -> pl.Series:
    """What stands behind each history item, lists of texts: `4 stars`; without a rating `liked` or `disliked`.

    labels, ratings: lists of equal lengths.
    """
    events = pl.DataFrame(
        {"label": labels.explode(empty_as_null=False), "stars": ratings.explode(empty_as_null=False)}
    )
    known = events["stars"].drop_nulls().unique().to_list()
    stars = pl.col("stars").replace_strict(
        known, [spell(v) for v in known], default=None, return_dtype=pl.String
    )
    word = pl.when(pl.col("label") > 0).then(pl.lit("liked")).otherwise(pl.lit("disliked"))
    return as_lists(events.select(notes=pl.coalesce(stars, word))["notes"], labels.list.len())


def spell(stars: float) -> str:
    """`1 star`, `3.5 stars`."""
    return f"{stars:g} star" if stars == 1 else f"{stars:g} stars"
