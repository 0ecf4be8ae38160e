"""The retriever of a list that is ordered anew: its own order of it, and its figures beside another's.

    rerank/retrieved (which model) + rerank/orders (every model's order) -> its own order of its own lists

Whoever orders such a list anew starts from this order, and gains or loses against it.
"""

import polars as pl

from pipeline.evaluate.ranking import mean_of
from pipeline.evaluate.reranking import track_of
from pipeline.stage import Artefact

BESIDE = ("hr_1", "hr_10", "ndcg_10")


def own_order(retrieved: Artefact, orders: Artefact) -> pl.DataFrame:
    """The retriever's order of its own lists, the target where it puts it: track, part, user, rank, item,
    score, target. Items that it cannot score stand last."""
    lists = retrieved.scan("candidates").select(track_of(pl.col("list"))).unique()
    own = (pl.col("method") == retrieved.metrics["retriever"]) & (pl.col("variant") == "default")
    rows = (
        orders.scan("rankings").filter(own).join(lists, on="track", how="semi", maintain_order="left").collect()
    )
    first = rows.filter(pl.col("seed") == pl.col("seed").first())  # the seed that retrieved
    return first.drop("method", "variant", "seed").sort("part", "user", "rank")


def beside_the_retriever(orders: pl.DataFrame, own: pl.DataFrame) -> dict[str, float]:
    """HR@1, HR@10 and NDCG@10 of orders and of the retriever's own, of one part, and `open_hr_10`.

    orders, own: user, rank, item, score, target. The open form counts a target as lost that the retriever puts
    last or cannot score: the stored list may hold it only because it is the target.
    """
    last = pl.col("rank") == pl.col("rank").max().over("user")
    lost = own.filter(pl.col("target") & (last | pl.col("score").is_null())).select("user", "item")
    opened = orders.join(lost.with_columns(lost=True), on=("user", "item"), how="left", maintain_order="left")
    opened = opened.with_columns(score=pl.when(pl.col("lost").is_null()).then("score"))
    found = {name: mean_of(orders, name) for name in BESIDE}
    found |= {f"retriever_{name}": mean_of(own, name) for name in BESIDE}
    return found | {"open_hr_10": mean_of(opened, "hr_10")}
