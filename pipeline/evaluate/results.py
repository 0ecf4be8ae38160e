"""What is known of every method and variant on one part: each metric's value, on all draws of users, per seed.

    pairs of all methods, user_metrics -> contenders -> one Result per metric

Pooled AUC is measured on the pairs, every other metric is a mean over the users of user_metrics. One
contender's pairs are in memory at a time; the same seed gives all contenders the same draws.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from pipeline.evaluate import statistics
from pipeline.evaluate.statistics import Floats, Measure, Rows, UserMean
from pipeline.stage import Artefact

METRICS = ("auc", "uauc", "uauc_weighted", "log_loss", "accuracy")
LOWER_IS_BETTER = ("log_loss",)
Kind = Literal["baseline", "method", "control"]


class Name(NamedTuple):
    """A method and its variant."""

    method: str
    variant: str

    def __str__(self) -> str:
        return f"{self.method}/{self.variant}"


@dataclass(frozen=True)
class Contender:
    """A method and variant with the artefacts that hold its pairs, of all seeds."""

    name: Name
    kind: Kind
    artefacts: Sequence[Artefact]


@dataclass(frozen=True)
class Result:
    """One metric of one contender on one part.

    seeds: the metric of each seed's run; measure: their mean, for any draw; draws: that mean on every draw
    (resamples,), NaN where a draw had nothing to measure; everyone, rows: users and rows of the part.
    """

    contender: Contender
    part: str
    metric: str
    seeds: Sequence[Measure]
    measure: Measure
    draws: Floats
    everyone: int
    rows: int

    @property
    def name(self) -> Name:
        return self.contender.name

    @property
    def value(self) -> float:
        return statistics.value(self.measure, self.everyone)

    @property
    def by_seed(self) -> list[float]:
        return [statistics.value(seed, self.everyone) for seed in self.seeds]

    @property
    def users(self) -> int:
        """Users that count in the metric."""
        if not isinstance(self.measure, UserMean):
            return self.everyone
        return int((self.measure.weights > 0).sum())


def contenders(artefacts: Iterable[Artefact]) -> list[Contender]:
    """Every method and variant that has pairs, by name, with its kind."""
    found: dict[Name, list[Artefact]] = {}
    for artefact in artefacts:
        for pair in artefact.scan("pairs").select("method", "variant").unique().collect().iter_rows():
            found.setdefault(Name(*pair), []).append(artefact)
    return [Contender(name, kind(name, held[0]), held) for name, held in sorted(found.items())]


def kind(name: Name, artefact: Artefact) -> Kind:
    """Predictions of models are baselines; a method's own stage says which of its variants are controls."""
    if artefact.manifest["section"] != "methods":
        return "baseline"
    return "control" if name.variant in artefact.manifest["controls"] else "method"


def results(contender: Contender, users: pl.DataFrame, part: str, *, resamples: int, seed: int) -> list[Result]:
    """All metrics of a contender on a part; a metric that has nothing to measure is left out.

    users: the rows of user_metrics, of all contenders and parts.
    """
    own = users.filter(part=part, **contender.name._asdict()).sort("seed", "user")
    runs = own.partition_by("seed", maintain_order=True)
    if not runs:
        return []
    everyone, rows = runs[0].height, int(runs[0]["rows"].sum())
    by_metric = {"auc": pooled(contender, part), **per_user(runs)}
    measures = [joined(seeds) for seeds in by_metric.values()]
    resampled = statistics.bootstrap(measures, everyone, resamples, seed, rows)
    found = [
        Result(contender, part, metric, seeds, measure, draws, everyone, rows)
        for (metric, seeds), measure, draws in zip(by_metric.items(), measures, resampled, strict=True)
    ]
    return [r for r in found if np.isfinite(r.value) and np.isfinite(r.draws).any()]


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


def pooled(contender: Contender, part: str) -> list[Measure]:
    """The pooled AUC of each seed of a contender."""
    users, labels, scores = rows_of(contender, part)
    return [statistics.pooled_auc(users, labels, score) for score in scores]


def per_user(runs: Sequence[pl.DataFrame]) -> dict[str, list[Measure]]:
    """Metric -> one mean over users for each seed, from that seed's rows of user_metrics, sorted by user.

    A metric of probabilities is left out where any seed lacks any of them.
    """
    held = [user_means(run) for run in runs]
    return {metric: [one[metric] for one in held] for metric in METRICS if all(metric in one for one in held)}


def user_means(run: pl.DataFrame) -> dict[str, Measure]:
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


def joined(seeds: Sequence[Measure]) -> Measure:
    """The mean over seeds; for means over users again one, as seeds share users and so weights."""
    means = [seed for seed in seeds if isinstance(seed, UserMean)]
    if len(means) < len(seeds):
        return statistics.Average(seeds)
    return UserMean(np.mean([one.amounts for one in means], axis=0), means[0].weights)


def refuse_unequal(users: pl.DataFrame) -> None:
    """Raise ValueError, with the run's name, where runs of a part differ in users, rows or liked rows."""
    for (part,), rows in users.partition_by("part", as_dict=True).items():
        runs = rows.sort("user").partition_by("method", "variant", "seed", maintain_order=True)
        first = runs[0]
        for run in runs:
            if not run.select("user", "rows", "positives").equals(first.select("user", "rows", "positives")):
                raise ValueError(f"{named(run)} was scored on other {part} rows than {named(first)}")


def named(run: pl.DataFrame) -> str:
    method, variant, seed = run.select("method", "variant", "seed").row(0)
    return f"{method}/{variant}, seed {seed}"
