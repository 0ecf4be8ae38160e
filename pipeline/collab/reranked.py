"""The track `rerank` by fitted models: one retrieves a list, and each of them orders every list.

    fitted models -> the best on validation -> its first items -> rerank/retrieved -> candidates
    fitted models + candidates -> a score of each candidate -> order of each list -> rerank/orders -> rankings

Nothing is fitted here: the models are those of the track `next_item`, and what they say of a candidate is what
they say of it among the whole catalogue (`pipeline.collab.fitted`). Nothing is masked: lists hold no used item,
but for a target that its user had used before. A method that reads lists itself writes the same
table, in a stage that predicts `orders`.
"""

from collections.abc import Iterable

import polars as pl
from pydantic import Field

from pipeline.collab.fitted import chosen, models, scores_of, valid_ndcg_10
from pipeline.collab.ranked import pair_scores
from pipeline.data.candidates import (
    Used,
    asked,
    lists_are_full,
    retrieved_list,
    the_target_once_and_nothing_used,
    with_lists,
)
from pipeline.evaluate.pointwise import PARTS
from pipeline.evaluate.reranking import every_list_ordered_once, stored_lists, track_of
from pipeline.schema import Candidates, Rankings, empty
from pipeline.stage import Artefact, Check, Draft, Every, Settings, stage

KEY = ("list", "part", "user")


class RetrievedSettings(Settings):
    retriever: str | None = Field(
        default=None,
        description="model of next_item, such as als; the best on validation (NDCG@10) where absent",
    )
    size: int = Field(
        default=50, ge=5, description="items of a list, the target among them; names it: retrieved_50"
    )
    seed: int = Field(default=1, ge=0, description="of the target's place in each list")


def hit_rate(rankings: pl.DataFrame, queries: pl.DataFrame, size: int) -> float:
    """Share of queries whose first target is among a retriever's first `size` items; NaN for no queries."""
    rows = asked(queries)
    if rows.is_empty():
        return float("nan")
    found = rankings.filter(pl.col("rank") <= size, pl.col("score").is_not_null())
    key = ("part", "user", "item")
    hit = rows.join(found, left_on=("part", "user", "target"), right_on=key, how="semi")
    return hit.height / rows.height


@stage(
    "rerank/retrieved",
    settings=RetrievedSettings,
    section="data",
    version=1,
    inputs={
        "rankings": Every("rankings", section="models"),
        "candidates": "rerank/candidates",
        "split": "next_item/split",
        "dataset": "dataset",
    },
    tables={"candidates": Candidates},
    checks=(Check(the_target_once_and_nothing_used), Check(lists_are_full, blocking=False)),
)
def retrieved(
    rankings: list[Artefact],
    candidates: Artefact,
    split: Artefact,
    dataset: Artefact,
    settings: RetrievedSettings,
    out: Draft,
) -> None:
    """Each query's first items by one model, with the target put in: what a second stage would read.

    For the queries that have random lists, so that all lists are of the same users.
    """
    found = models(rankings)
    method = chosen(found, settings.retriever)
    rows = found[method][0].table("rankings").filter(variant="default")
    queries, size = with_lists(split.table("queries"), candidates.table("candidates")), settings.size
    lists = retrieved_list(rows, queries, Used(dataset.table("interactions")), settings.seed, size)
    lengths = lists.group_by("part", "user").len()["len"]
    out.table("candidates", lists)
    out.metric(
        retriever=method,
        valid_ndcg_10=valid_ndcg_10(found[method]),
        **{f"{part}_hr_{size}": hit_rate(rows, queries.filter(part=part), size) for part in PARTS},
        **{f"retrieved_{size}_lists": lengths.len(), f"retrieved_{size}_short": (lengths < size).sum()},
    )


def in_order(scored: pl.DataFrame) -> pl.DataFrame:
    """Candidates (list, part, user, item, label) with scores, as columns track, part, user, rank, item, score,
    target: the best first, equal scores in order of item, items without a score last."""
    rows = scored.sort(*KEY, "score", "item", descending=[False, False, False, True, False], nulls_last=True)
    return rows.select(
        track_of(pl.col("list")),
        "part",
        "user",
        pl.int_range(1, pl.len() + 1).over(KEY).alias("rank"),
        "item",
        "score",
        target=pl.col("label") == 1,
    )


def orders_of(fitted: Artefact, method: str, split: Artefact, lists: pl.DataFrame) -> pl.DataFrame:
    """Table `rankings` of one finished model: its order of every list."""
    queries, n_items = split.table("queries"), split.table("catalogue").height
    rows = in_order(pair_scores(scores_of(fitted, split), queries, lists.drop("place"), n_items))
    named = rows.with_columns(method=pl.lit(method), variant=pl.lit(fitted.variant), seed=pl.lit(fitted.seed))
    return named.select(Rankings.column_names()).cast(empty(Rankings).schema)


def all_orders(rankings: list[Artefact], split: Artefact, lists: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """`orders_of` every model and seed, one at a time."""
    yield empty(Rankings)
    for method, seeds in models(rankings).items():
        yield from (orders_of(fitted, method, split, lists) for fitted in seeds)


class OrdersSettings(Settings):
    """None: lists and models are those of other stages."""


@stage(
    "rerank/orders",
    settings=OrdersSettings,
    section="evaluate",
    version=1,
    inputs={
        "rankings": Every("rankings", section="models"),
        "candidates": "rerank/candidates",
        "retrieved": "rerank/retrieved",
        "split": "next_item/split",
    },
    tables={"rankings": Rankings},
    checks=(Check(every_list_ordered_once),),
    predicts="orders",
    needs="heavy",
)
def orders(
    rankings: list[Artefact],
    candidates: Artefact,
    retrieved: Artefact,
    split: Artefact,
    settings: OrdersSettings,
    out: Draft,
) -> None:
    """Every fitted model's order of every stored list; the retriever's own of its list among them."""
    lists = stored_lists({"candidates": candidates, "retrieved": retrieved})
    out.table("rankings", all_orders(rankings, split, lists))
    out.metric(models=len(models(rankings)), lists=lists.select(KEY).n_unique())
