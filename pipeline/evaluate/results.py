"""What is known of every method and variant on one part: each metric's value, on all draws of users, per seed.

    predictions of all methods, figures per user -> contenders -> one Result per metric

A track says how it is measured (`Track`; `pipeline.evaluate.tracks` has them all). Most metrics are means over
the users of its table of figures; a pooled one is measured on the predictions themselves. One contender's
predictions are in memory at a time; the same seed gives all contenders the same draws.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from pipeline.evaluate import statistics
from pipeline.evaluate.statistics import Floats, Measure, UserMean
from pipeline.stage import Artefact

LOWER_IS_BETTER = ("log_loss",)
Kind = Literal["baseline", "method", "control", "aside"]


class Name(NamedTuple):
    """A method and its variant."""

    method: str
    variant: str

    def __str__(self) -> str:
        return f"{self.method}/{self.variant}"


@dataclass(frozen=True)
class Contender:
    """A method and variant with the artefacts that hold its pairs, of all seeds.

    of: a control's variants, where it is not one of every variant of its method.
    """

    name: Name
    kind: Kind
    artefacts: Sequence[Artefact]
    of: tuple[str, ...] | None = None

    def tests(self, other: "Contender") -> bool:
        """Whether it is a control of the other."""
        if (self.kind, other.kind) != ("control", "method") or self.name.method != other.name.method:
            return False
        return self.of is None or other.name.variant in self.of


@dataclass(frozen=True)
class Pooled:
    """A metric of all rows together: its measure for each seed of a contender on a part, and each user's share
    (users,) in the difference of two contenders."""

    measures: Callable[[Contender, str], list[Measure]]
    shares: Callable[[Contender, Contender, str], Floats]


@dataclass(frozen=True)
class Track:
    """How a track is measured.

    predictions, users: tables of predictions and of figures per user; counts: columns of the latter in which
    all runs must agree, the first of them the rows of a user. metrics: in the leaderboard's order; main: the
    one that decides; tested: those that comparisons are made by. means: one seed's rows of `users`, sorted by
    user -> the metrics that are means over users; pooled: the others. asked: kinds that are compared with the
    best baseline. aside: variants under another protocol, shown but neither compared nor ever the best.
    suspicious: metric -> value from which on a leaked answer is likelier than a good method.
    """

    name: str
    predictions: Literal["pairs", "rankings"]
    users: str
    counts: tuple[str, ...]
    metrics: tuple[str, ...]
    main: str
    tested: tuple[str, ...]
    means: Callable[[pl.DataFrame], dict[str, Measure]]
    asked: tuple[Kind, ...]
    suspicious: Mapping[str, float]
    pooled: Mapping[str, Pooled] = field(default_factory=dict)
    aside: tuple[str, ...] = ()


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


def contenders(track: Track, artefacts: Iterable[Artefact]) -> list[Contender]:
    """Every method and variant that has predictions of the track, by name, with its kind."""
    found: dict[Name, list[Artefact]] = {}
    for artefact in artefacts:
        rows = artefact.scan(track.predictions).filter(track=track.name)
        for pair in rows.select("method", "variant").unique().collect().iter_rows():
            found.setdefault(Name(*pair), []).append(artefact)
    return [
        Contender(name, kind(track, name, held[0]), held, controlled_by(name, held[0]))
        for name, held in sorted(found.items())
    ]


def controlled_by(name: Name, artefact: Artefact) -> tuple[str, ...] | None:
    """The variants that a control is one of, None for all; an artefact from before this was told says all."""
    variants = artefact.manifest.get("control_of", {}).get(name.variant)
    return None if variants is None else tuple(variants)


def kind(track: Track, name: Name, artefact: Artefact) -> Kind:
    """Predictions of models are baselines; a method's own stage says which of its variants are controls."""
    if name.variant in track.aside:
        return "aside"
    if artefact.manifest["section"] != "methods":
        return "baseline"
    return "control" if name.variant in artefact.manifest["controls"] else "method"


def results(
    track: Track, contender: Contender, users: pl.DataFrame, part: str, *, resamples: int, seed: int
) -> list[Result]:
    """All metrics of a contender on a part; a metric that has nothing to measure is left out.

    users: the rows of the track's table of figures, of all contenders and parts.
    """
    own = users.filter(part=part, **contender.name._asdict()).sort("seed", "user")
    runs = own.partition_by("seed", maintain_order=True)
    if not runs:
        return []
    everyone, rows = runs[0].height, int(runs[0][track.counts[0]].sum())
    by_metric = {m: one.measures(contender, part) for m, one in track.pooled.items()} | per_user(track, runs)
    measures = [joined(seeds) for seeds in by_metric.values()]
    resampled = statistics.bootstrap(measures, everyone, resamples, seed, rows)
    found = [
        Result(contender, part, metric, seeds, measure, draws, everyone, rows)
        for (metric, seeds), measure, draws in zip(by_metric.items(), measures, resampled, strict=True)
    ]
    return [r for r in found if np.isfinite(r.value) and np.isfinite(r.draws).any()]


def per_user(track: Track, runs: Sequence[pl.DataFrame]) -> dict[str, list[Measure]]:
    """Metric -> one mean over users for each seed, from that seed's rows of figures, sorted by user.

    A metric that any seed lacks is left out.
    """
    held = [track.means(run) for run in runs]
    return {m: [one[m] for one in held] for m in track.metrics if all(m in one for one in held)}


def joined(seeds: Sequence[Measure]) -> Measure:
    """The mean over seeds; for means over users again one, as seeds share users and so weights."""
    means = [seed for seed in seeds if isinstance(seed, UserMean)]
    if len(means) < len(seeds):
        return statistics.Average(seeds)
    return UserMean(np.mean([one.amounts for one in means], axis=0), means[0].weights)


def refuse_unequal(track: Track, users: pl.DataFrame) -> None:
    """Raise ValueError, with the run's name, where runs of a part differ in users or in the track's counts."""
    for (part,), rows in users.partition_by("part", as_dict=True).items():
        runs = rows.sort("user").partition_by("method", "variant", "seed", maintain_order=True)
        first = runs[0]
        for run in runs:
            if not run.select("user", *track.counts).equals(first.select("user", *track.counts)):
                raise ValueError(f"{named(run)} was scored on other {part} rows than {named(first)}")


def named(run: pl.DataFrame) -> str:
    method, variant, seed = run.select("method", "variant", "seed").row(0)
    return f"{method}/{variant}, seed {seed}"
