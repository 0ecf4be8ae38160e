"""Do 95 % intervals cover 95 % of truths, and do tests at 5 % cry wolf 5 % of the time? By simulation.

    python -m benchmarks.intervals [--worlds 1000] [--resamples 500]

A world is a sample of users from one known population: users like different shares of what they see, are
seen for 2 to hundreds of rows, and a method is better for some than for others. The truth of a metric is its
value in a very large world. Figures go through the pipeline's own functions, from pairs to bounds.

For the track next_item a world is users who each look for one item of a catalogue: some are easy for every
method, and a method is better for some than for others. Scores go through the ranking engine.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from pipeline.collab.ranked import order
from pipeline.evaluate import ranking, statistics
from pipeline.evaluate.pointwise import auc, users_of
from pipeline.evaluate.statistics import Measure, Rows, UserMean
from pipeline.evaluate.tracks import CTR_METRICS as METRICS
from pipeline.evaluate.tracks import pointwise_means as user_means
from pipeline.evaluate.tracks import ranking_means
from pipeline.schema import Queries, empty

Floats = NDArray[np.float64]
SHOWN = (*METRICS, "ndcg_10")
CONFIDENCE, LEVEL = 0.95, 0.05
SIZES = 50, 150  # users of a world
LARGE = SIZES[-1]
SKILL, SPREAD, LEAN = 1.0, 0.7, 0.6  # of methods: mean and deviation over users, and use of who likes much
ITEMS = 200
LIFT, EASY = 1.5, 0.7  # of lists: how far a target stands above other items, and its deviation over users


class World(NamedTuple):
    """Rows (n,) of users 0..U-1 with labels, and the scores (2, n) of two methods."""

    users: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: Floats


def world(random: np.random.Generator, users: int, gain: float = 0, lean: float = LEAN) -> World:
    """Sample a world. The second method has `gain` more skill, and leans on the user's habit by `lean`."""
    rows = 2 + np.exp(random.normal(2.5, 1.0, size=users)).astype(int).clip(max=400)
    owner = np.repeat(np.arange(users), rows)
    habit = random.normal(0, 1, size=users)
    labels = (random.random(len(owner)) < sigmoid(habit)[owner]).astype(int)
    skill = random.normal(SKILL, SPREAD, size=(2, users)) + np.array([[0.0], [gain]])
    leaning = np.array([[LEAN], [lean]]) * habit + random.normal(0, 0.5, size=(2, users))
    noise = random.normal(0, 1, size=(2, len(owner)))
    return World(owner, labels, (labels - 0.5) * skill[:, owner] + leaning[:, owner] + noise)


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def worlds_of(
    seed: int, count: int, make: Callable[[np.random.Generator], World]
) -> Iterator[tuple[int, World]]:
    """Numbered independent worlds."""
    for number, random in enumerate(np.random.default_rng(seed).spawn(count)):
        yield number, make(random)


def figures(one: World, method: int) -> pl.DataFrame:
    """Each user's figures of a method of the world, as the pipeline measures them."""
    score = one.scores[method]
    pairs = {"user": one.users, "label": one.labels, "score": score, "probability": sigmoid(score)}
    return users_of(pl.DataFrame(pairs))


def measures(one: World, method: int) -> dict[str, Measure]:
    """All metrics of a method of the world."""
    pooled = statistics.pooled_auc(one.users, one.labels, one.scores[method])
    return {"auc": pooled, **user_means(figures(one, method))}


@cache
def truth() -> dict[str, float]:
    """Value of each metric of a method in the population, near enough: in a world of 100,000 users."""
    large = world(np.random.default_rng(0), 100_000)
    return {metric: statistics.value(m, 100_000) for metric, m in measures(large, 1).items()}


def coverage(worlds: int, users: int, resamples: int, seed: int) -> dict[str, float]:
    """Share of worlds whose interval holds the truth, for every metric."""
    held = dict.fromkeys(METRICS, 0)
    for number, one in worlds_of(seed, worlds, lambda random: world(random, users)):
        found = measures(one, 1)
        draws = statistics.bootstrap([found[m] for m in METRICS], users, resamples, number, len(one.users))
        for metric, low, high in zip(METRICS, *statistics.interval(draws, CONFIDENCE, users), strict=True):
            held[metric] += low <= truth()[metric] <= high
    return {metric: count / worlds for metric, count in held.items()}


def coverage_of_rows(worlds: int, users: int, resamples: int, seed: int) -> float:
    """The same for the pooled AUC where rows are drawn as if they were independent: the planted mistake."""
    held = 0
    for number, one in worlds_of(seed, worlds, lambda random: world(random, users)):
        n = len(one.users)
        measure = statistics.pooled_auc(np.arange(n), one.labels, one.scores[1])
        draws = statistics.bootstrap([measure], n, resamples, number)[0]
        low, high = statistics.interval(draws, CONFIDENCE, n)
        held += bool(low <= truth()["auc"] <= high)
    return held / worlds


def rejections(worlds: int, users: int, resamples: int, gain: float, seed: int) -> dict[str, float]:
    """Share of worlds in which each metric's paired test finds a difference at 5 %."""
    found = dict.fromkeys(METRICS, 0)
    for number, one in worlds_of(seed, worlds, lambda random: world(random, users, gain)):
        for metric, p in p_values(one, users, resamples, number).items():
            found[metric] += p < LEVEL
    return {metric: count / worlds for metric, count in found.items()}


def p_values(one: World, users: int, flips: int, seed: int) -> dict[str, float]:
    first, second = (user_means(figures(one, method)) for method in (0, 1))
    amounts = [amounts_of(second[m]) - amounts_of(first[m]) for m in METRICS[1:]]
    p = statistics.flip_test(np.array([shares(one), *amounts]), flips, seed)
    return dict(zip(METRICS, p, strict=True))


def amounts_of(measure: Measure) -> Floats:
    assert isinstance(measure, UserMean)
    return measure.amounts


def shares(one: World) -> Floats:
    """The users' shares in the difference in pooled AUC."""
    return statistics.exchange_shares(*(Rows(one.users, one.labels, score[None]) for score in one.scores))


@cache
def gain_without_leaning() -> float:
    """How much more skill a method needs that knows nothing of users' habits, to have the same pooled AUC."""
    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        large = world(np.random.default_rng(0), 100_000, middle, lean=0)
        low, high = (middle, high) if auc(large.labels, large.scores[1]) < truth()["auc"] else (low, middle)
    return low


def rejections_of_unlike(worlds: int, users: int, resamples: int, seed: int) -> float:
    """False alarms of the pooled AUC's test between two methods of equal AUC that reach it in other ways."""
    gain, found = gain_without_leaning(), 0
    for number, one in worlds_of(seed, worlds, lambda random: world(random, users, gain, lean=0)):
        found += statistics.flip_test(shares(one)[None], resamples, number)[0] < LEVEL
    return found / worlds


# --- lists of the catalogue --------------------------------------------------------------------------------


def listed(random: np.random.Generator, users: int, gain: float = 0) -> list[UserMean]:
    """NDCG@10 of two methods' lists for the users of a world; the second one lifts targets by `gain` more."""
    targets = random.integers(ITEMS, size=users)
    easy = random.normal(LIFT, EASY, size=users)
    return [found_in(random, targets, easy + more + random.normal(0, SPREAD, size=users)) for more in (0, gain)]


def found_in(random: np.random.Generator, targets: NDArray[np.int64], lift: Floats) -> UserMean:
    """NDCG@10 of lists by scores of which each user's target has so much more (users,) than chance gives."""
    scores = random.normal(size=(len(targets), ITEMS)).astype(np.float32)
    scores[np.arange(len(targets)), targets] += lift.astype(np.float32)
    frame = {"part": "test", "user": np.arange(len(targets)), "at": 0, "history": [[]] * len(targets)}
    queries = pl.DataFrame({**frame, "targets": targets[:, None]}).with_columns(pl.col("targets").arr.to_list())
    queries, table = queries.cast(dict(empty(Queries).schema)), torch.from_numpy(scores)
    found = ranking_means(ranking.figures(order(lambda block: table[block.user], queries, ITEMS, top=0)))
    assert isinstance(found["ndcg_10"], UserMean)
    return found["ndcg_10"]


@cache
def truth_of_lists() -> float:
    """NDCG@10 of the first method in the population, near enough."""
    return statistics.value(listed(np.random.default_rng(0), 100_000)[0], 100_000)


def coverage_of_lists(worlds: int, users: int, resamples: int, seed: int) -> float:
    """Share of worlds whose interval of NDCG@10 holds the truth."""
    held = 0
    for number, random in enumerate(np.random.default_rng(seed).spawn(worlds)):
        draws = statistics.bootstrap(listed(random, users)[:1], users, resamples, number)
        low, high = statistics.interval(draws[0], CONFIDENCE, users)
        held += bool(low <= truth_of_lists() <= high)
    return held / worlds


def rejections_of_lists(worlds: int, users: int, resamples: int, gain: float, seed: int) -> float:
    """Share of worlds in which the paired test of NDCG@10 finds a difference at 5 %."""
    found = 0
    for number, random in enumerate(np.random.default_rng(seed).spawn(worlds)):
        first, second = listed(random, users, gain)
        found += statistics.flip_test((second.amounts - first.amounts)[None], resamples, number)[0] < LEVEL
    return found / worlds


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}\n{'':<34}" + "".join(f"{metric:>15}" for metric in SHOWN))
    for name, cells in rows.items():
        print(f"{name:<34}" + "".join(f"{cells[m]:>15.3f}" if m in cells else f"{'':>15}" for m in SHOWN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=500)
    asked, started = parser.parse_args(), time.perf_counter()
    full = {"worlds": asked.worlds, "resamples": asked.resamples}
    part = {**full, "worlds": asked.worlds // 4}  # where the effect is too large to need more
    show(
        "Share of 95 % intervals that hold the truth",
        {
            f"users drawn, {users} users": coverage(users=users, seed=1, **full)
            | {"ndcg_10": coverage_of_lists(users=users, seed=1, **full)}
            for users in SIZES
        }
        | {f"rows drawn, {LARGE} users (wrong)": {"auc": coverage_of_rows(users=LARGE, seed=1, **part)}},
    )
    show(
        "Share of paired tests with p < .05",
        {
            f"no difference, {users} users": rejections(users=users, gain=0, seed=2, **full)
            | {"ndcg_10": rejections_of_lists(users=users, gain=0, seed=2, **full)}
            for users in SIZES
        }
        | {
            f"equal AUC by other means, {LARGE} users": {
                "auc": rejections_of_unlike(users=LARGE, seed=3, **full)
            }
        }
        | {
            f"skill 0.3 higher, {LARGE} users": rejections(users=LARGE, gain=0.3, seed=4, **part)
            | {"ndcg_10": rejections_of_lists(users=LARGE, gain=0.3, seed=4, **part)}
        },
    )
    error = 1.96 * np.sqrt(CONFIDENCE * LEVEL / asked.worlds)
    print(f"\n{asked.worlds} worlds: a true 95 % (5 %) shows within {error:.3f} of that, 19 times in 20.")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
