"""The honest table: every method with intervals, and what it beats, tested and corrected.

    predictions of all methods, figures per user -> leaderboard (with intervals), comparisons (paired tests)

One machine for all tracks. Two questions are asked of every method, on the test part. `baseline`: is it better
than the best baseline, the one that was best on the validation part by the same metric? `control`: is it better
than itself with the claimed ingredient taken away or shuffled? `pipeline.evaluate.statistics` says how the
tests work, `pipeline.evaluate.tracks` what each track measures and of whom it asks the first question.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.evaluate import statistics, tracks
from pipeline.evaluate.pointwise import PARTS, listed, refusal
from pipeline.evaluate.results import (
    LOWER_IS_BETTER,
    Contender,
    Name,
    Result,
    Track,
    contenders,
    refuse_unequal,
    results,
)
from pipeline.evaluate.statistics import Floats, UserMean
from pipeline.evaluate.tracks import COLD_ITEM, CTR, NEXT_ITEM, RERANK
from pipeline.schema import Comparisons, Leaderboard, empty
from pipeline.stage import Artefact, Check, Draft, Every, Input, Settings, Verdict, stage

CONFIDENCE = 0.95  # of every interval; the report and the tables say so
ROUNDING = 1e-9  # of a mean over draws that are all equal
SURE = 0.05  # a corrected p below this counts as a difference in the UI's figures


class LeaderboardSettings(Settings):
    """How sure the table is."""

    resamples: int = Field(1000, ge=100, description="draws of users behind each interval")
    flips: int = Field(10000, ge=100, description="random sign flips behind each p-value")
    seed: int = Field(1, ge=0, description="of the draws and the flips; all methods meet the same ones")


class Duel(NamedTuple):
    """Two results to compare, and the question that asks for it."""

    question: str
    result: Result
    versus: Result

    @property
    def difference(self) -> float:
        return self.result.value - self.versus.value

    @property
    def draws(self) -> Floats:
        return self.result.draws - self.versus.draws

    def per_user(self, track: Track) -> UserMean:
        """The difference as a mean over users."""
        one, other = self.result, self.versus
        if isinstance(one.measure, UserMean) and isinstance(other.measure, UserMean):
            return UserMean(one.measure.amounts - other.measure.amounts, one.measure.weights)
        shares = track.pooled[one.metric].shares(one.contender, other.contender, one.part)
        return UserMean(shares * len(shares), np.ones(len(shares)))


def board(track: Track, found: Sequence[Result]) -> pl.DataFrame:
    """Rows of the leaderboard, in the order of the results."""
    rows = [
        {
            "track": track.name,
            **result.name._asdict(),
            "part": result.part,
            "metric": result.metric,
            "value": result.value,
            **bounds(result.draws, result.users),
            "seed_deviation": float(np.std(result.by_seed, ddof=1)) if len(result.seeds) > 1 else None,
            "seeds": len(result.seeds),
            "users": result.users,
            "users_skipped": result.everyone - result.users,
            "rows": result.rows,
        }
        for result in found
    ]
    return pl.DataFrame(rows, schema=empty(Leaderboard).schema)


def bounds(draws: Floats, users: int) -> dict[str, float]:
    low, high = statistics.interval(draws, CONFIDENCE, users)
    return {"low": float(low), "high": float(high)}


def better(result: Result) -> float:
    """Sorts results of one metric, the best last."""
    return -result.value if result.metric in LOWER_IS_BETTER else result.value


def best(found: Iterable[Result], metric: str, names: Iterable[Name]) -> Name | None:
    """Which of the names is best on the validation part; the first by name where several are."""
    wanted = set(names)
    running = [r for r in found if r.part == "valid" and r.metric == metric and r.name in wanted]
    return max(sorted(running, key=lambda r: r.name), key=better).name if running else None


def duels(track: Track, found: Sequence[Result], field: Sequence[Contender]) -> list[Duel]:
    """All comparisons to make on the test part, those of one question and metric together."""
    at = {(r.name, r.metric): r for r in found if r.part == "test"}
    return [
        Duel(question, at[name, metric], at[versus, metric])
        for question, metric, name, versus in asked(track, found, field)
        if (name, metric) in at and (versus, metric) in at
    ]


def asked(
    track: Track, found: Sequence[Result], field: Sequence[Contender]
) -> Iterator[tuple[str, str, Name, Name]]:
    """Question, metric, method and what it is compared with."""
    baselines = [c.name for c in field if c.kind == "baseline"]
    for metric in track.tested:
        chosen = best(found, metric, baselines)
        others = [c.name for c in field if c.kind in track.asked and c.name != chosen]
        yield from (("baseline", metric, name, chosen) for name in others if chosen)
    for metric in track.tested:
        yield from (("control", metric, name, control) for name, control in controlled(field))


def controlled(field: Iterable[Contender]) -> list[tuple[Name, Name]]:
    """Each method's variants, each with every control that is one of it."""
    field = list(field)
    return [(one.name, other.name) for one in field for other in field if other.tests(one)]


def compare(track: Track, pairs: Sequence[Duel], settings: LeaderboardSettings) -> pl.DataFrame:
    """Rows of comparisons; p-values are corrected inside each question and metric."""
    rows = []
    for (question, metric), group in groupby(pairs, key=lambda d: (d.question, d.result.metric)):
        together = list(group)
        splits = [duel.per_user(track) for duel in together]
        p = statistics.flip_test(np.array([s.amounts for s in splits]), settings.flips, settings.seed)
        rows += [
            {
                "track": track.name,
                "question": question,
                **duel.result.name._asdict(),
                "versus_method": duel.versus.name.method,
                "versus_variant": duel.versus.name.variant,
                "metric": metric,
                "difference": duel.difference,
                **bounds(duel.draws, duel.result.users),
                "p": raw,
                "p_holm": corrected,
                "effect": effect(split),
                "users": duel.result.users,
            }
            for duel, split, raw, corrected in zip(together, splits, p, statistics.holm(p), strict=True)
        ]
    return pl.DataFrame(rows, schema=empty(Comparisons).schema)


def effect(split: UserMean) -> float | None:
    """Mean over standard deviation of the users' differences, weighted as the metric weights users."""
    figures = split.amounts / np.where(split.weights > 0, split.weights, 1)
    return statistics.effect_size(figures, split.weights)


def figures_are_possible(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Figures lie in 0..1, log loss above 0; a corrected p is no smaller than the raw one."""
    table, tests = draft.read("leaderboard"), draft.read("comparisons")
    roof = pl.when(pl.col("metric").is_in(LOWER_IS_BETTER)).then(np.inf).otherwise(1.0)
    within = [pl.col(column).is_between(0, roof) for column in ("value", "low", "high")]
    impossible = table.filter(~pl.all_horizontal(within))
    wrong = tests.filter(~(pl.col("p").is_between(0, 1) & pl.col("p_holm").is_between(pl.col("p"), 1)))
    broken = [f"{told(row)} {row['value']}" for row in impossible.to_dicts()]
    broken += [f"{told(row)} p {row['p']}, corrected {row['p_holm']}" for row in wrong.to_dicts()]
    return refusal(broken, table.height + tests.height)


def all_on_the_same_rows(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Figures that stand under each other in a part and metric count the same users and rows."""
    table = draft.read("leaderboard")
    counted = pl.struct("users", "users_skipped", "rows")
    other = table.filter(counted != counted.first().over("track", "part", "metric"))
    return refusal([f"{told(row)} over {row['rows']} other rows" for row in other.to_dicts()], table.height)


def every_control_is_compared(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Each method's variant is compared with every control of it that was run."""
    wanted = [
        (track.name, one, other)
        for track in tracks_of(draft)
        for one, other in controlled(contenders(track, listed(inputs["predictions"])))
    ]
    tests = draft.read("comparisons").filter(question="control")
    made = set(tests.select("track", "method", "variant", "versus_method", "versus_variant").iter_rows())
    broken = [
        f"{one} was not compared with {other}" for of, one, other in wanted if (of, *one, *other) not in made
    ]
    return refusal(broken, len(wanted))


def intervals_hold_their_values(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Each value lies inside its own interval; where one does not, there are too few users to judge by."""
    table = draft.read("leaderboard")
    inside = pl.col("value").is_between(pl.col("low") - ROUNDING, pl.col("high") + ROUNDING)
    outside = table.filter(~inside)
    return refusal([f"{told(row)} outside its interval" for row in outside.to_dicts()], table.height)


def nobody_is_too_good(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """No figure so high that, on real data, a leaked answer is likelier than a good method."""
    table, limits = draft.read("leaderboard"), family(draft).suspicious
    limit = pl.col("metric").replace_strict(limits, default=None, return_dtype=pl.Float64)
    suspect = table.filter(pl.col("value") > limit)
    return refusal([f"{told(row)} {row['value']:.4f}" for row in suspect.to_dicts()], table.height)


def family(draft: Draft) -> Track:
    """The track that a stage belongs to: `ctr` of `ctr/leaderboard`."""
    return tracks.TRACKS[draft.stage.name.split("/")[0]]


def tracks_of(draft: Draft) -> list[Track]:
    """The tracks on a stage's leaderboard: the stage's own, or all lists of `rerank`."""
    return [tracks.of(name) for name in sorted(draft.read("leaderboard")["track"].unique())]


def told(row: Mapping[str, str]) -> str:
    return f"{row['method']}/{row['variant']}: {row.get('part', 'test')} {row['metric']}"


CHECKS = (
    Check(figures_are_possible),
    Check(all_on_the_same_rows),
    Check(every_control_is_compared),
    Check(intervals_hold_their_values, blocking=False),
    Check(nobody_is_too_good, blocking=False),
)


@stage(
    "ctr/leaderboard",
    settings=LeaderboardSettings,
    section="evaluate",
    version=1,
    inputs={"predictions": Every(CTR.predictions), "users": "ctr/user_metrics"},
    tables={"leaderboard": Leaderboard, "comparisons": Comparisons},
    checks=CHECKS,
)
def leaderboard(
    predictions: list[Artefact], users: Artefact, settings: LeaderboardSettings, out: Draft
) -> None:
    """All methods on the same rows, with intervals over users and corrected paired tests."""
    judge([CTR], predictions, users, settings, out)


@stage(
    "next_item/leaderboard",
    settings=LeaderboardSettings,
    section="evaluate",
    version=2,
    inputs={"predictions": Every(NEXT_ITEM.predictions), "users": "next_item/user_metrics"},
    tables={"leaderboard": Leaderboard, "comparisons": Comparisons},
    checks=CHECKS,
)
def next_item_leaderboard(
    predictions: list[Artefact], users: Artefact, settings: LeaderboardSettings, out: Draft
) -> None:
    """All methods' orders of the catalogue for the same users, with intervals and corrected paired tests."""
    judge([NEXT_ITEM], predictions, users, settings, out)


@stage(
    "rerank/leaderboard",
    settings=LeaderboardSettings,
    section="evaluate",
    version=1,
    inputs={"predictions": Every("orders"), "users": "rerank/user_metrics"},
    tables={"leaderboard": Leaderboard, "comparisons": Comparisons},
    checks=CHECKS,
)
def rerank_leaderboard(
    predictions: list[Artefact], users: Artefact, settings: LeaderboardSettings, out: Draft
) -> None:
    """All methods' orders of the same stored lists, each kind of list by itself, with intervals and tests."""
    names = users.table(RERANK.users)["track"].unique().sort()
    judge([tracks.of(name) for name in names], predictions, users, settings, out)


@stage(
    "cold_item/leaderboard",
    settings=LeaderboardSettings,
    section="evaluate",
    version=1,
    inputs={"predictions": Every("cold_rankings"), "users": "cold_item/user_metrics"},
    tables={"leaderboard": Leaderboard, "comparisons": Comparisons},
    checks=CHECKS,
)
def cold_item_leaderboard(
    predictions: list[Artefact], users: Artefact, settings: LeaderboardSettings, out: Draft
) -> None:
    """All methods' orders where what is to be found has no training rows, with intervals and tests."""
    judge([COLD_ITEM], predictions, users, settings, out)


class Judged(NamedTuple):
    """The two tables of a track, and its headlines."""

    leaderboard: pl.DataFrame
    comparisons: pl.DataFrame
    facts: Mapping[str, float | str]


def judge(
    of: Sequence[Track], predictions: list[Artefact], users: Artefact, settings: LeaderboardSettings, out: Draft
) -> None:
    """Write the tables of tracks. Raises ValueError where runs were measured on different users or rows."""
    found = [judged(track, predictions, users, settings) for track in of]
    tests = pl.concat([empty(Comparisons), *(one.comparisons for one in found)])
    out.table("leaderboard", pl.concat([empty(Leaderboard), *(one.leaderboard for one in found)]))
    out.table("comparisons", tests)
    for one in found:
        out.metric(**one.facts)
    out.metric(comparisons=tests.height, sure=tests.filter(pl.col("p_holm") < SURE).height)


def judged(track: Track, predictions: list[Artefact], users: Artefact, settings: LeaderboardSettings) -> Judged:
    """Everything about one track, each kind of list by itself."""
    figures, field = users.table(track.users).filter(track=track.name), contenders(track, predictions)
    refuse_unequal(track, figures)
    drawn = {"resamples": settings.resamples, "seed": settings.seed}
    found = [r for part in PARTS for one in field for r in results(track, one, figures, part, **drawn)]
    tests = compare(track, duels(track, found, field), settings)
    return Judged(board(track, found), tests, headlines(track, found, field))


def headlines(track: Track, found: Sequence[Result], field: Sequence[Contender]) -> dict[str, float | str]:
    """The winner of validation and its test figures, then the same for the best baseline.

    Of a stored list under its name: `random_20_best`.
    """
    _, slash, name_of_list = track.name.partition("/")
    of = f"{name_of_list}_" if slash else ""
    facts: dict[str, float | str] = {}
    for role, kinds in (("best", ("baseline", "method")), ("baseline", ("baseline",))):
        name = best(found, track.main, [c.name for c in field if c.kind in kinds])
        if name:
            facts[of + role] = str(name)
            facts |= {f"{of}{role}_{r.metric}": r.value for r in found if r.name == name and r.part == "test"}
    return facts
