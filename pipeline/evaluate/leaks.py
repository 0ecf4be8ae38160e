"""Leakage guards: what a prompt may show of the past, and that it shows nothing of the answer.

Pure functions over tables; methods' blocking checks call them. All return counts or the rows at fault.
"""

from collections.abc import Callable

import polars as pl


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
    make: Callable[[pl.DataFrame], pl.DataFrame], examples: pl.DataFrame, prompts: pl.DataFrame
) -> pl.DataFrame:
    """Prompts (row, prompt, flipped) that change when the label of every example is turned round."""
    turned = examples.with_columns((1 - pl.col("label").cast(pl.Int8)).cast(pl.UInt8).alias("label"))
    again = make(turned).select("row", flipped="prompt")
    both = prompts.select("row", "prompt").join(again, on="row", how="full", coalesce=True)
    return both.filter(pl.col("prompt").ne_missing(pl.col("flipped")))
