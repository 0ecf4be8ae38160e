"""Which items of a user's past to show beside a target: the most similar ones, or any, in some order.

    past + a number for each of its items -> the `longest` highest -> in order of time, or of the number

A past is a frame of lists of equal length, a row per example and oldest first; other lists beside `items` go
along. Pure functions over frames. A past is short, so its vectors are compared with the target's directly: the
table `similar_items` holds the nearest of all items, few of which a user has used.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from pipeline.data.histories import as_lists
from pipeline.data.negatives import mixed
from pipeline.stage import Check, Draft, Verdict
from pipeline.text.embeddings import Floats, unit
from pipeline.text.similar_items import DIGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Order = Literal["time", "similarity"]
EVENTS_AT_ONCE = 100_000  # vectors compared together; bounds memory
FURTHEST = -2.0  # below every cosine
ROUNDING = 1e-5  # of a cosine that is summed in another order


def similarities(past: pl.DataFrame, targets: pl.Series, items: pl.Series, vectors: Floats) -> "NDArray[Any]":
    """Cosine of every past item with its example's target, (events,), in the order of the exploded past.

    items: dense items in rising order; vectors: their rows. Raises ValueError for one without a vector.
    """
    rows, events = unit(vectors), exploded(past, targets)
    own, other = (places(items, events[name]) for name in ("items", "target"))
    found = np.zeros(len(own), dtype=np.float32)
    for start in range(0, len(own), EVENTS_AT_ONCE):
        cut = slice(start, start + EVENTS_AT_ONCE)
        found[cut] = np.einsum("ij,ij->i", rows[own[cut]], rows[other[cut]])
    return found.round(DIGITS)


def places(items: pl.Series, wanted: pl.Series) -> "NDArray[np.int64]":
    """Row of each wanted item among the items."""
    known, asked = items.to_numpy(), wanted.to_numpy()
    found = np.searchsorted(known, asked).clip(max=len(known) - 1)
    if len(asked) and (known[found] != asked).any():
        raise ValueError(f"item {asked[known[found] != asked][0]} has no vector")
    return found


def exploded(past: pl.DataFrame, targets: pl.Series) -> pl.DataFrame:
    """One row per past item: `items` and `target`."""
    return past.select("items", target=targets).explode("items", empty_as_null=False)


def chances(past: pl.DataFrame, rows: pl.Series, seed: int) -> "NDArray[np.uint64]":
    """A number by chance for every past item, (events,): a hash of seed, the example's row and the place."""
    owner = rows.to_numpy().repeat(past["items"].list.len().to_numpy())
    place = past.select(pl.int_ranges(pl.col("items").list.len()).explode(empty_as_null=False)).to_series()
    return mixed(seed, owner, place.to_numpy())


def highest(past: pl.DataFrame, number: "NDArray[Any]", longest: int, order: Order) -> pl.DataFrame:
    """The `longest` past items of the highest numbers, the later of equals; the same columns.

    order: `time`, oldest first; `similarity`, rising numbers, so that the highest stands last.
    """
    events = past.with_row_index("n").explode(past.columns, empty_as_null=False)
    events = events.with_columns(number=pl.Series(number), place=pl.int_range(pl.len()))
    falling = events.sort("n", "number", "place", descending=[False, True, True])
    kept = falling.filter(pl.int_range(pl.len()).over("n") < longest)
    found = kept.sort("n", "place") if order == "time" else kept.sort("n", "number", "place")
    lengths = past["items"].list.len().clip(upper_bound=longest)
    return past.select(as_lists(found[name], lengths) for name in past.columns)


# --- the check ---------------------------------------------------------------------------------------------


def retrieval_check(variants: Collection[str]) -> Check:
    """The blocking check of prompts of these variants, with the inputs `split` and `similar`."""

    def shows_the_most_similar(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No past item that is left out is nearer to the target than one that is shown, and K are shown.

        Judged by the table `similar_items`, which is made another way, on prompts of which nothing was cut.
        """
        if draft.variant not in variants:
            return Verdict(True, "not judged: this control does not retrieve")
        prompts = draft.read("prompts").filter(form=1, items_dropped=0)
        histories = inputs["split"].scan("examples").select("row", "history").collect()
        similar = inputs["similar"].scan("similar_items").select("item", "neighbour", "similarity").collect()
        found = misplaced(prompts, histories, similar, settings.history)
        return Verdict(
            found.is_empty(), f"{found.height} of {prompts.height} prompts", {"prompts": prompts.height}
        )

    return Check(shows_the_most_similar)


def misplaced(
    prompts: pl.DataFrame, histories: pl.DataFrame, similar: pl.DataFrame, longest: int
) -> pl.DataFrame:
    """Prompts (row) that show fewer than `longest` of a longer past, or leave out a nearer item.

    prompts: row, item, shown; histories: row, history; similar: item, neighbour, similarity. Items that are not
    among the target's neighbours are further than all that are; the target itself is nearest.
    """
    both = prompts.select("row", "item", "shown").join(histories, on="row", how="left")
    few = pl.col("shown").list.len() < pl.min_horizontal(pl.col("history").list.len(), pl.lit(longest))
    events = both.explode("history", empty_as_null=False).join(
        similar, left_on=("item", "history"), right_on=("item", "neighbour"), how="left"
    )
    near = (
        pl.when(pl.col("item") == pl.col("history"))
        .then(1.0)
        .otherwise(pl.col("similarity").fill_null(FURTHEST))
    )
    is_shown = pl.col("shown").list.contains(pl.col("history"))
    judged = (
        events.select("row", near=near, is_shown=is_shown)
        .group_by("row")
        .agg(
            left=pl.col("near").filter(~pl.col("is_shown")).max(), shown=pl.col("near").filter("is_shown").min()
        )
    )
    passed_over = judged.filter(pl.col("left") > pl.col("shown") + ROUNDING).select("row")
    return pl.concat([both.filter(few).select("row"), passed_over]).unique().sort("row")
