"""Pointwise metrics of the ctr track, and every user's own figures.

    pairs of all methods -> user_metrics (one row per method, variant, seed, part and user)

AUC is the share of (liked, not liked) pairs of rows that the score puts in the right order, a tie counting
half (Hanley and McNeil, Radiology 143, 1982): pooled over all rows in `auc`, inside each user in
`auc_by_user`. Pairs are counted in integers, so no figure depends on the order of rows or of summing.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from pipeline.schema import UserMetrics, empty
from pipeline.stage import Artefact, Check, Draft, Every, Input, Settings, Verdict, stage

RUN = ("track", "method", "variant", "seed")
PARTS = ("valid", "test")
THRESHOLD = 0.5  # a probability from here on is read as "liked"


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of labels (n,) in {0, 1} and scores (n,) of any scale.

    NaN where there is one class only, as there is no pair to order. Raises ValueError for other labels,
    scores that are not finite, or lengths that differ.
    """
    truth, order = checked(labels, scores)
    positives, negatives = np.sort(order[truth]), np.sort(order[~truth])
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, "left").sum()
    below_or_tied = np.searchsorted(negatives, positives, "right").sum()
    return int(below + below_or_tied) / (2 * len(positives) * len(negatives))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; see `losses`. Raises ValueError as `losses`; NaN for no rows."""
    return mean(losses(labels, probabilities))


def accuracy(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Share of rows on the right side of probability one half (one half itself is read as liked).

    Raises ValueError as `hits`; NaN for no rows.
    """
    return mean(hits(labels, probabilities).astype(np.float64))


def losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Each row's -log P(its label), (n,). A certain and wrong row costs 36.04, not infinity.

    Probabilities are kept off 0 and 1 by the machine's epsilon, as scikit-learn does. Raises ValueError for
    probabilities outside 0..1, and as `auc`.
    """
    truth, chance = checked(labels, probabilities)
    refuse_impossible(chance)
    tiny = np.finfo(np.float64).eps
    return -np.log(np.clip(np.where(truth, chance, 1 - chance), tiny, 1 - tiny))


def hits(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.bool_]:
    """Whether each row is on the right side of probability one half, (n,). Raises ValueError as `losses`."""
    truth, chance = checked(labels, probabilities)
    refuse_impossible(chance)
    return (chance >= THRESHOLD) == truth


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels as truth values and scores as floats, both (n,). Raises ValueError, see `auc`."""
    truth, order = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != order.shape:
        raise ValueError(f"labels {truth.shape} and scores {order.shape} must be two equal (n,)")
    if not ((truth == 0) | (truth == 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(order).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(order))} of {len(order)} scores are not finite")
    return truth.astype(np.bool_), order


def refuse_impossible(probabilities: NDArray[np.float64]) -> None:
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError("probabilities must lie in 0..1")


def mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def auc_by_user(users: ArrayLike, labels: ArrayLike, scores: ArrayLike) -> pl.DataFrame:
    """Every user's own AUC from three (n,) arrays: columns user, rows, positives, auc; users ascending.

    `auc` is null for a user of one class. One sort, no loop over users. Raises ValueError as `auc`.
    """
    truth, order = checked(labels, scores)
    owner = np.asarray(users, dtype=np.uint32)
    table = pl.DataFrame({"user": owner, "order": order, "truth": truth}).sort("user", "order")
    owner, order, truth = (column.to_numpy() for column in table.get_columns())
    starts = np.flatnonzero(changes(owner))
    rows = np.diff(np.r_[starts, len(owner)])
    positives = total(truth, starts)
    earlier = 2 * np.repeat(before(~truth)[starts], rows)  # negatives of the users sorted before
    ordered = total(np.where(truth, twice_below(owner, order, truth) - earlier, 0), starts)
    pairs = positives * (rows - positives)
    area = pl.Series(ordered / np.where(pairs > 0, 2 * pairs, 1), dtype=pl.Float64)
    return pl.DataFrame({"user": owner[starts], "rows": rows, "positives": positives, "auc": area}).select(
        pl.col("user", "rows", "positives").cast(pl.UInt32),
        pl.when(pl.Series(pairs) > 0).then("auc").alias("auc"),
    )


def changes(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Whether each row (n,) differs from the row before it in any column; the first one does."""
    differs = np.ones(len(columns[0]), dtype=np.bool_)
    differs[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return differs


def total(values: NDArray[np.generic], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of values (n,) in each stretch that begins at `starts`."""
    return np.add.reduceat(values, starts, dtype=np.int64) if len(starts) else np.zeros(0, dtype=np.int64)


def before(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many flags are set before each place, and in all: (n + 1,)."""
    return np.r_[0, np.cumsum(flags, dtype=np.int64)]


def twice_below(
    owner: NDArray[np.generic], order: NDArray[np.generic], truth: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """For rows sorted by owner and score: twice the negatives below each row, plus those tied with it."""
    first = np.flatnonzero(changes(owner, order))
    ends = np.r_[first[1:], len(order)]
    negatives = before(~truth)
    return np.repeat(negatives[first] + negatives[ends], ends - first)


def users_of(pairs: pl.DataFrame) -> pl.DataFrame:
    """Figures of every user in pairs of one run and part: user, rows, positives, auc, log_loss, accuracy.

    The last two are null for a user with any row without a probability.
    """
    figures, known = (
        auc_by_user(pairs["user"], pairs["label"], pairs["score"]),
        pairs["probability"].is_not_null(),
    )
    labels, chances = pairs.filter(known)["label"], pairs.filter(known)["probability"]
    rows = figures["rows"].to_numpy().astype(np.int64)
    sorting = np.argsort(pairs["user"].to_numpy(), kind="stable")

    def by_user(values: NDArray[np.generic]) -> pl.Series:
        every = np.full(pairs.height, np.nan)
        every[known.to_numpy()] = values
        sums = np.add.reduceat(every[sorting], np.cumsum(rows) - rows) if len(rows) else every
        return pl.Series(sums / rows).fill_nan(None)

    return figures.with_columns(
        log_loss=by_user(losses(labels, chances)), accuracy=by_user(hits(labels, chances))
    )


def measure_users(pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of user_metrics for one artefact's pairs, whatever runs and parts it holds.

    Rows whose score is not finite are left out; the stage's check names their method and blocks.
    """
    kept = pairs.filter(pl.col("score").is_finite())
    found = [
        users_of(rows).select(*(pl.lit(v).alias(k) for k, v in zip((*RUN, "part"), key, strict=True)), pl.all())
        for key, rows in kept.partition_by(*RUN, "part", as_dict=True).items()
    ]
    return pl.concat([empty(UserMetrics), *(f.cast(empty(UserMetrics).schema) for f in found)])


def faults(pairs: pl.DataFrame, examples: pl.DataFrame) -> dict[str, int]:
    """How often one run's pairs break the split's rows: kind of fault -> count, faultless kinds left out.

    Both hold part, row, user, item and label; `examples` are the rows to be scored, each once.
    """
    wanted = examples.select("part", "row", "user", "item", "label")
    both = pairs.join(wanted, on=("part", "row"), how="inner", suffix="_wanted")
    twice = pairs.height - pairs.select("part", "row").n_unique()
    counts = {
        "missing": wanted.join(pairs, on=("part", "row"), how="anti").height,
        "not in the split": pairs.join(wanted, on=("part", "row"), how="anti").height,
        "scored twice": twice,
        "with another label": both.filter(pl.col("label") != pl.col("label_wanted")).height,
        "with another user or item": both.filter(
            (pl.col("user") != pl.col("user_wanted")) | (pl.col("item") != pl.col("item_wanted"))
        ).height,
    }
    return {kind: count for kind, count in counts.items() if count}


def runs(artefacts: Input) -> Iterator[tuple[str, pl.DataFrame]]:
    """Every run's name, as `binllm/dotted, seed 1`, and pairs. One artefact is in memory at a time."""
    for artefact in listed(artefacts):
        for (_, method, variant, seed), pairs in (
            artefact.table("pairs").partition_by(*RUN, as_dict=True).items()
        ):
            yield f"{method}/{variant}, seed {seed}", pairs


def listed(artefacts: Input) -> Sequence[Artefact]:
    return [artefacts] if isinstance(artefacts, Artefact) else artefacts


def one(artefact: Input) -> Artefact:
    """The only artefact of an input. Raises TypeError for a list."""
    if not isinstance(artefact, Artefact):
        raise TypeError("this input is several artefacts, one was expected")
    return artefact


def every_row_scored_once(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Every method, variant and seed scored the split's valid and test rows, all of them and each once.

    Its labels, users and items are the split's too. A figure over other rows cannot be compared.
    """
    examples = one(inputs["split"]).scan("examples").select("part", "row", "user", "item", "label")
    wanted = examples.filter(pl.col("part").is_in(PARTS)).collect()
    broken: list[str] = []
    names: set[str] = set()
    for name, pairs in runs(inputs["predictions"]):
        found = faults(pairs, wanted) | (
            {"that another stage scored too": pairs.height} if name in names else {}
        )
        names.add(name)
        broken += [f"{name}: {count} rows {kind}" for kind, count in found.items()]
    return refusal(broken, len(names))


def scores_are_finite(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """No score is NaN or infinite: such a row has no place in an order."""
    counts = {
        name: pairs.filter(~pl.col("score").is_finite()).height for name, pairs in runs(inputs["predictions"])
    }
    return refusal(
        [f"{name}: {count} scores not finite" for name, count in counts.items() if count], len(counts)
    )


def refusal(broken: Sequence[str], seen: int) -> Verdict:
    """Passed where nothing is broken; else says what is, the first ten faults in words."""
    return Verdict(not broken, "; ".join(broken[:10]), {"checked": seen, "at fault": len(broken)})


@stage(
    "ctr/user_metrics",
    settings=Settings,
    section="evaluate",
    version=1,
    inputs={"predictions": Every("pairs"), "split": "ctr/split"},
    tables={"user_metrics": UserMetrics},
    checks=(Check(every_row_scored_once), Check(scores_are_finite)),
)
def user_metrics(predictions: list[Artefact], split: Artefact, settings: Settings, out: Draft) -> None:
    """Each user's own AUC, log loss and accuracy, for every method, variant, seed and part."""
    table = pl.concat([empty(UserMetrics), *(measure_users(a.table("pairs")) for a in predictions)])
    out.table("user_metrics", table)
    out.metric(runs=table.select(*RUN).n_unique(), **{f"{p}_users": users_in(table, p) for p in PARTS})


def users_in(table: pl.DataFrame, part: str) -> int:
    return table.filter(part=part)["user"].n_unique()
