"""Leakage guards: what a prompt may show of the past, and that it shows nothing of the answer.

Pure functions over tables; methods' blocking checks call them. All return counts or the rows at fault.
"""

from collections.abc import Callable

import polars as pl

NOT_JUDGED = "; not judged: labels that histories show of earlier held-out rows, as history_from allows"


def first_used(interactions: pl.DataFrame) -> pl.DataFrame:
    """When each user first used each item: user, item, first."""
    return interactions.group_by("user", "item").agg(first=pl.col("at").min())


def shown_too_early(prompts: pl.DataFrame, examples: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """History items (row, user, item) that a prompt shows although its user had not used them before its time.

    prompts: row, user, shown; examples: row, at; interactions: user, item, at.
    """
    shown = prompts.select("row", "user", item="shown").explode("item", empty_as_null=False)
    when = shown.join(examples.select("row", "at"), on="row", how="left")
    known = when.join(first_used(interactions), on=("user", "item"), how="left")
    return known.filter(pl.col("first").is_null() | (pl.col("first") >= pl.col("at"))).select(
        "row", "user", "item"
    )


def targets_shown(prompts: pl.DataFrame) -> pl.DataFrame:
    """Prompts (row, user, item) whose own target stands in their history."""
    return prompts.filter(pl.col("shown").list.contains(pl.col("item"))).select("row", "user", "item")


def targets_leaked(prompts: pl.DataFrame, examples: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """Of `targets_shown`, those whose user had really not used the item before."""
    found = targets_shown(prompts).join(examples.select("row", "at"), on="row", how="left")
    known = found.join(first_used(interactions), on=("user", "item"), how="left")
    return known.filter(pl.col("first").is_null() | (pl.col("first") >= pl.col("at"))).select(
        "row", "user", "item"
    )


def moved_by_labels(
    make: Callable[[pl.DataFrame], pl.DataFrame],
    examples: pl.DataFrame,
    prompts: pl.DataFrame,
    interactions: pl.DataFrame | None = None,
    asked: pl.Series | None = None,
) -> pl.DataFrame:
    """Prompts (row, prompt, flipped) whose words or vectors change when every example's label is turned round.

    interactions: given where histories must be of train only; then every label that a history shows of a
    held-out interaction is turned round too, so a prompt that hangs on one is found. asked: rows of all
    prompts, where `prompts` are a sample of them; no prompt shows the history of another row.
    """
    turned = examples.with_columns(opposite(pl.col("label")))
    if interactions is not None:
        turned = with_held_out_turned(turned, interactions, prompts["row"] if asked is None else asked)
    again = make(turned).select("row", "form", flipped="prompt", others="vectors")
    mine = prompts.select("row", "form", "prompt", "vectors")
    both = mine.join(again, on=("row", "form"), how="full", coalesce=True)
    moved = pl.col("prompt").ne_missing(pl.col("flipped")) | pl.col("vectors").ne_missing(pl.col("others"))
    return both.filter(moved).select("row", "prompt", "flipped")


def opposite(label: pl.Expr) -> pl.Expr:
    return (label == 0).cast(pl.UInt8)


def with_held_out_turned(examples: pl.DataFrame, interactions: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """Examples; the histories of `rows` show the opposite label of each event that is not one of train.

    examples: row, part, user, history, history_labels; interactions: row, user, item. A history tells items,
    not rows: the user's first uses of an item are taken for those of train, as many as train has.
    """
    train = interactions.join(examples.filter(part="train"), on="row", how="semi")
    uses = train.group_by("user", item="item").agg(uses=pl.len())
    events = (
        examples.filter(pl.col("row").is_in(rows.implode()))
        .select("row", "user", item="history", label="history_labels")
        .explode("item", "label", empty_as_null=False)
        .join(uses, on=("user", "item"), how="left", maintain_order="left")
        .with_columns(nth=pl.int_range(pl.len()).over("row", "item"))
    )
    held_out = pl.col("nth") >= pl.col("uses").fill_null(0)
    label = pl.when(held_out).then(opposite(pl.col("label"))).otherwise("label")
    lists = events.group_by("row", maintain_order=True).agg(turned=label)
    joined = examples.join(lists, on="row", how="left", maintain_order="left")
    return joined.with_columns(history_labels=pl.coalesce("turned", "history_labels")).drop("turned")


def with_later_ratings_altered(
    interactions: pl.DataFrame, chosen: pl.DataFrame, examples: pl.DataFrame, held_out_too: bool
) -> pl.DataFrame:
    """Interactions with another rating wherever a user gave one at or after the moment of their chosen example.

    interactions: row, user, at, rating; chosen: row and user, one row a user; examples: row, part, at.
    held_out_too: also every rating of an interaction that is not one of train.
    """
    moments = chosen.select("row", "user").join(examples.select("row", "at"), on="row", how="left")
    cut = interactions.join(moments.select("user", cut="at"), on="user", how="left", maintain_order="left")
    train = examples.filter(part="train")["row"]
    hidden = pl.col("at") >= pl.col("cut")
    if held_out_too:
        hidden = hidden.fill_null(False) | ~pl.col("row").is_in(train.implode())
    other = pl.col("rating") + pl.col("rating").max() - pl.col("rating").min() + 1
    return cut.with_columns(rating=pl.when(hidden).then(other).otherwise("rating")).drop("cut")
