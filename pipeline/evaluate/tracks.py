"""The tracks: what each measures, where its figures are read, and what is asked of whom.

`pipeline.evaluate.results` and `pipeline.evaluate.leaderboard` are the same machine for all of them.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from pipeline.evaluate import ranking, reranking, statistics
from pipeline.evaluate.results import Contender, Pooled, Track
from pipeline.evaluate.statistics import Floats, Measure, Rows, UserMean


def rows_of(contender: Contender, part: str) -> Rows:
    """The contender's scored rows of a part, in the order of `row`; users are numbered in their order."""
    wanted = {"part": part, **contender.name._asdict()}
    kept = [
        a.scan("pairs").filter(**wanted).select("seed", "row", "user", "label", "score")
        for a in contender.artefacts
    ]
    runs = pl.concat(kept).sort("seed", "row").collect().partition_by("seed", maintain_order=True)
    users = np.unique(runs[0]["user"].to_numpy(), return_inverse=True)[1]
    return Rows(users, runs[0]["label"].to_numpy(), np.array([run["score"].to_numpy() for run in runs]))


def pooled_auc(contender: Contender, part: str) -> list[Measure]:
    """The pooled AUC of each seed of a contender."""
    users, labels, scores = rows_of(contender, part)
    return [statistics.pooled_auc(users, labels, score) for score in scores]


def auc_shares(contender: Contender, versus: Contender, part: str) -> Floats:
    """Each user's share (users,) in the difference of two contenders' pooled AUC."""
    return statistics.exchange_shares(rows_of(contender, part), rows_of(versus, part))


def pointwise_means(run: pl.DataFrame) -> dict[str, Measure]:
    """UAUC over users of both classes, also weighted by rows; log loss and accuracy of all rows, if known."""
    rows, area = run["rows"].to_numpy().astype(np.float64), run["auc"]
    both = area.is_not_null().to_numpy().astype(np.float64)  # users with liked and disliked rows
    known = area.fill_null(0.0).to_numpy()
    found: dict[str, Measure] = {
        "uauc": UserMean(known, both),
        "uauc_weighted": UserMean(known * rows, both * rows),
    }
    for metric in ("log_loss", "accuracy"):
        if not run[metric].null_count():
            found[metric] = UserMean(run[metric].to_numpy() * rows, rows)
    return found


def ranking_means(run: pl.DataFrame) -> dict[str, Measure]:
    """Plain means over users: each user counts once, however many targets it has."""
    everyone = np.ones(run.height)
    return {metric: UserMean(run[metric].to_numpy(), everyone) for metric in ranking.METRICS}


CTR_METRICS = ("auc", "uauc", "uauc_weighted", "log_loss", "accuracy")
CTR = Track(
    name="ctr",
    predictions="pairs",
    users="user_metrics",
    counts=("rows", "positives"),
    metrics=CTR_METRICS,
    main="auc",
    tested=CTR_METRICS,
    means=pointwise_means,
    asked=("method",),
    suspicious={"auc": 0.99, "uauc": 0.99},
    pooled={"auc": Pooled(pooled_auc, auc_shares)},
)
NEXT_ITEM = Track(
    name=ranking.TRACK,
    predictions="rankings",
    users="user_ranks",
    counts=("targets",),
    metrics=ranking.METRICS,
    main="ndcg_10",
    tested=tuple(f"{kind}_{cut}" for cut in ranking.CUTS if cut > 1 for kind in ("hr", "ndcg")),
    means=ranking_means,
    asked=("method", "baseline"),  # models differ enough among themselves to ask whether the best is
    suspicious={"ndcg_10": 0.9},
    aside=("seen_kept",),
)
COLD_ITEM = replace(
    NEXT_ITEM,
    name=ranking.COLD,
    suspicious={"ndcg_10": 0.5},  # nothing but texts says what comes
)
RERANK = Track(  # of all its lists; `of` makes the track of one
    name=reranking.TRACK,
    predictions="rankings",
    users="user_ranks",
    counts=("targets",),
    metrics=ranking.METRICS,
    main="ndcg_10",
    tested=("hr_1", "ndcg_10"),
    means=ranking_means,
    asked=("method", "baseline"),
    suspicious={"hr_1": 0.95},
)
TRACKS = {track.name: track for track in (CTR, NEXT_ITEM, RERANK, COLD_ITEM)}


def of(name: str) -> Track:
    """The track of predictions: one of TRACKS, or a kind of list of `rerank`, as `rerank/random_20`."""
    if name in TRACKS:
        return TRACKS[name]
    metrics = telling(name)
    main = "ndcg_10" if "ndcg_10" in metrics else "ndcg_5"
    return replace(RERANK, name=name, metrics=metrics, main=main, tested=("hr_1", main))


def telling(name: str) -> tuple[str, ...]:
    """The metrics that tell methods apart on short lists with one target.

    HR where the list goes on below the cut; precision, recall and MAP, and whatever looks at the first place,
    say no more than HR, MRR and HR@1 then.
    """
    length = reranking.length_of(name)
    hits = [f"hr_{cut}" for cut in ranking.CUTS if cut < length]
    graded = [f"{kind}_{cut}" for kind in ("ndcg", "mrr") for cut in ranking.CUTS if 1 < cut <= length]
    return (*hits, *graded)
