"""Figures of orders: how well each user's list of the catalogue finds the items that the user took next.

    rankings of all methods -> user_ranks (one row per method, variant, seed, part and user)
                            -> exposure (what the lists of all users together show of the catalogue)

A user may have several targets. An item without a score (cold, or masked because it was seen) is in nobody's
list: a target among them is missed, whatever its place. Definitions are trec_eval's, where it has the metric:
nDCG with gain 1 and discount log2(1 + rank) (Järvelin and Kekäläinen, ACM TOIS 20, 2002), average precision
over all targets also below the cut, precision over K also where a list is shorter.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.evaluate.pointwise import PARTS, RUN, changes, listed, one, refusal
from pipeline.schema import Exposure, UserRanks, empty
from pipeline.stage import Artefact, Check, Draft, Every, Input, Settings, Verdict, stage

TRACK, COLD = "next_item", "cold_item"
CUTS = (1, 5, 10, 20)
KINDS = ("hr", "ndcg", "mrr", "map", "precision", "recall")
METRICS = tuple(f"{kind}_{cut}" for kind in KINDS for cut in CUTS)
Floats = NDArray[np.float64]


def figures(rankings: pl.DataFrame) -> pl.DataFrame:
    """Columns user, targets, first and METRICS, users ascending, from the orders of one run and part.

    rankings: user, rank, score, target; rows that are no targets are not looked at. `first` is the rank of
    the first target found, null where none is. One sort, no loop over users.
    """
    wanted = rankings.filter("target").sort("user", pl.col("score").is_null(), "rank")
    owner = wanted["user"].to_numpy()
    rank = wanted.select(pl.when(pl.col("score").is_not_null()).then(pl.col("rank").cast(pl.Float64)))
    return of_targets(owner, rank.to_series().fill_null(np.inf).to_numpy())


def of_targets(owner: NDArray[Any], rank: Floats) -> pl.DataFrame:
    """`figures` from users (m,) and ranks (m,) of all targets, sorted by both; infinity: not in the list."""
    starts = np.flatnonzero(changes(owner)) if len(owner) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(owner)])
    nth = np.arange(len(owner)) - np.repeat(starts, sizes) + 1  # how many targets are found down to this one
    found: dict[str, Any] = {}
    for cut in CUTS:
        found |= {f"{kind}_{cut}": value for kind, value in at_cut(rank, nth, starts, sizes, cut).items()}
    first = rank[starts]
    return pl.DataFrame(
        {
            "user": pl.Series(owner[starts], dtype=pl.UInt32),
            "targets": pl.Series(sizes, dtype=pl.UInt32),
            "first": pl.Series(np.where(np.isfinite(first), first, 0), dtype=pl.UInt32).replace(0, None),
            **{metric: pl.Series(found[metric], dtype=pl.Float64) for metric in METRICS},
        }
    )


def at_cut(
    rank: Floats, nth: NDArray[Any], starts: NDArray[np.int64], sizes: NDArray[np.int64], cut: int
) -> dict[str, Floats]:
    """Every kind of metric (users,) at one K, from ranks (m,) and `nth` (m,), each target's number in its list.

    hr: any target among the first K. ndcg: gains over those of the best possible list. mrr: one over the first
    target's rank. map: precision at each target found, over all targets. precision: targets found, over K.
    recall: the same over all targets.
    """
    hit = rank <= cut

    def summed(values: Floats) -> Floats:
        kept = np.where(hit, values, 0.0)
        return np.add.reduceat(kept, starts) if len(starts) else np.zeros(0)

    best = np.cumsum(discount(np.arange(1, cut + 1)))
    many = summed(np.ones_like(rank))
    return {
        "hr": (many > 0).astype(np.float64),
        "ndcg": summed(discount(rank)) / best[np.minimum(sizes, cut) - 1],
        "mrr": np.where(hit, 1 / rank, 0.0)[starts],
        "map": summed(nth / rank) / sizes,
        "precision": many / cut,
        "recall": many / sizes,
    }


def discount(rank: NDArray[Any]) -> Floats:
    """What a target at a rank (from 1) is worth; nothing at infinity."""
    return 1 / np.log2(1 + rank)


def mean_of(rankings: pl.DataFrame, metric: str) -> float:
    """The mean over users of one of METRICS, of one run and part; NaN for no users."""
    values = figures(rankings)[metric].to_numpy()
    return float(values.mean()) if len(values) else float("nan")


def faults(rankings: pl.DataFrame, queries: pl.DataFrame) -> dict[str, int]:
    """How often one run's orders break the track's rules: kind of fault -> count, faultless kinds left out.

    rankings: part, user, rank, item, score, target; queries: part, user, targets.
    """
    rows = rankings.sort("part", "user", "rank")
    asked, ranked = queries.select("part", "user"), rows.select("part", "user").unique()
    given = rows.filter("target").select("part", "user", "item")
    wanted = queries.select("part", "user", item="targets").explode("item", empty_as_null=False).unique()
    counts = {
        "queries not ranked": asked.join(ranked, on=("part", "user"), how="anti").height,
        "users ranked that nobody asked for": ranked.join(asked, on=("part", "user"), how="anti").height,
        "items twice in one order": rows.height - rows.select("part", "user", "item").n_unique(),
        "users with a gap or a doubled place": with_gaps(rows),
        "rows out of order": out_of_order(rows),
        "targets not marked": wanted.join(given, on=given.columns, how="anti").height,
        "rows marked that are no targets": given.join(wanted, on=given.columns, how="anti").height,
    }
    return {kind: count for kind, count in counts.items() if count}


def with_gaps(rows: pl.DataFrame) -> int:
    """Users of one run whose places are no run 1, 2, 3 ... down to the last place that the run keeps.

    Below it stand targets only, so it is the last one that holds anything else.
    """
    kept = rows.filter(~pl.col("target"))["rank"].max()
    by_user = rows.group_by("part", "user").agg(
        places=(pl.col("rank") <= kept).sum(), doubled=pl.col("rank").is_duplicated().any()
    )
    return by_user.filter(pl.col("doubled") | (pl.col("places") != kept)).height


def out_of_order(rows: pl.DataFrame) -> int:
    """Rows, sorted by part, user and rank, that should stand before the one above them."""
    above = [pl.col(name).shift(1).over("part", "user") for name in ("rank", "score", "item")]
    rank, score, item = above
    level = pl.col("score").eq_missing(score)
    rises = pl.col("score").is_not_null() & (score.is_null() | (pl.col("score") > score))
    return rows.filter(rank.is_not_null() & (rises | (level & (pl.col("item") < item)))).height


def exposed(rankings: pl.DataFrame, catalogue: pl.DataFrame) -> pl.DataFrame:
    """Columns metric, value: what the first K of all users' lists together show, of one run and part.

    coverage: share of the catalogue that is in any list. popularity: mean training rows of what is listed
    (average recommendation popularity: Yin et al., VLDB 2012). novelty: its mean bits of surprise, -log2 of an
    item's share of the training rows (Zhou et al., PNAS 107, 2010); an item without rows counts as having one.
    """
    rows = catalogue.sort("item")["train_rows"].to_numpy().astype(np.float64)
    surprise = -np.log2(np.maximum(rows, 1) / max(rows.sum(), 1))
    listed = rankings.filter(pl.col("score").is_not_null() & (pl.col("rank") <= max(CUTS)))
    found: dict[str, float | None] = {}
    for cut in CUTS:
        times = np.bincount(listed.filter(pl.col("rank") <= cut)["item"].to_numpy(), minlength=len(rows))
        found[f"coverage_{cut}"] = float((times > 0).mean())
        found[f"popularity_{cut}"] = float(times @ rows / times.sum()) if times.any() else None
        found[f"novelty_{cut}"] = float(times @ surprise / times.sum()) if times.any() else None
    return pl.DataFrame(list(found.items()), schema={"metric": pl.String, "value": pl.Float64}, orient="row")


def runs(artefacts: Input, track: str) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    """Every run of a track, as (track, method, variant, seed), and its orders; one artefact at a time.

    The track `rerank` is all of its lists: `rerank/random_20` and the others.
    """
    for artefact in listed(artefacts):
        own = pl.col("track").str.split("/").list.first() == track
        rows = artefact.scan("rankings").filter(own).collect()
        yield from rows.partition_by(*RUN, as_dict=True, maintain_order=True).items()


def every_method_ranked_every_query(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Every method, variant and seed ranked all of the split's queries, each once, in order and without a gap.

    Its targets are the split's too. A figure over other users or other targets cannot be compared.
    """
    queries = one(inputs["split"]).table("queries")
    broken: list[str] = []
    seen: set[tuple[Any, ...]] = set()
    for run, rows in runs(inputs["predictions"], str(draft.stage.track)):
        found = faults(rows, queries) | (
            {"rows of a run that another stage ranked too": rows.height} if run in seen else {}
        )
        seen.add(run)
        broken += [f"{told(run)}: {count} {kind}" for kind, count in found.items()]
    return refusal(broken, len(seen))


def told(run: tuple[Any, ...]) -> str:
    return f"{run[1]}/{run[2]}, seed {run[3]}"


@stage(
    "next_item/user_metrics",
    settings=Settings,
    section="evaluate",
    version=2,
    inputs={"predictions": Every("rankings"), "split": "next_item/split"},
    tables={"user_ranks": UserRanks, "exposure": Exposure},
    checks=(Check(every_method_ranked_every_query),),
)
def user_metrics(predictions: list[Artefact], split: Artefact, settings: Settings, out: Draft) -> None:
    """Each user's own hit rate, NDCG, MRR, MAP, precision and recall, and what all lists together show."""
    measure(predictions, split, out)


@stage(
    "cold_item/user_metrics",
    settings=Settings,
    section="evaluate",
    version=1,
    inputs={"predictions": Every("cold_rankings"), "split": "cold_item/split"},
    tables={"user_ranks": UserRanks, "exposure": Exposure},
    checks=(Check(every_method_ranked_every_query),),
)
def cold_user_metrics(predictions: list[Artefact], split: Artefact, settings: Settings, out: Draft) -> None:
    """The same where what is to be found has no training rows."""
    measure(predictions, split, out)


def measure(predictions: list[Artefact], split: Artefact, out: Draft) -> None:
    """Write the figures of all runs of the stage's track."""
    catalogue = split.table("catalogue")
    ranks, shown = [empty(UserRanks)], [empty(Exposure)]
    for run, orders in runs(predictions, str(out.stage.track)):
        for (part,), rows in orders.partition_by("part", as_dict=True, maintain_order=True).items():
            ranks.append(keyed(figures(rows), UserRanks, run, part))
            shown.append(keyed(exposed(rows, catalogue), Exposure, run, part))
    table = pl.concat(ranks)
    out.table("user_ranks", table)
    out.table("exposure", pl.concat(shown))
    out.metric(
        runs=table.select(*RUN).n_unique(),
        **{f"{p}_users": table.filter(part=p)["user"].n_unique() for p in PARTS},
    )


def keyed(found: pl.DataFrame, schema: Any, run: tuple[Any, ...], part: Any) -> pl.DataFrame:
    """The frame as rows of a table, with the columns that name a run and part."""
    names = zip((*RUN, "part"), (*run, part), strict=True)
    return (
        found.with_columns(pl.lit(value).alias(name) for name, value in names)
        .select(empty(schema).columns)
        .cast(empty(schema).schema)
    )
