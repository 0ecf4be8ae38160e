"""Reweighting against literal resampling, tests against exact ones, coverage and errors by simulation."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from benchmarks import intervals as simulation
from pipeline.evaluate import statistics
from pipeline.evaluate.pointwise import auc
from pipeline.evaluate.statistics import (
    Average,
    Rows,
    UserMean,
    bootstrap,
    draws,
    effect_size,
    exchange_shares,
    expanded,
    flip_test,
    holm,
    interval,
    pooled_auc,
    value,
)

USERS = 5
ROWS = st.lists(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 2.0])), max_size=40
)
COUNTS = st.lists(st.lists(st.integers(0, 3), min_size=USERS, max_size=USERS), min_size=1, max_size=4)


def columns(rows):
    return tuple(np.array([row[i] for row in rows], dtype=kind) for i, kind in enumerate((int, int, float)))


@given(ROWS, COUNTS)
def test_a_weighted_auc_is_the_auc_of_literally_resampled_rows(rows, counts):
    users, labels, scores = columns(rows)
    found = pooled_auc(users, labels, scores)(np.array(counts))
    for weights, area in zip(np.array(counts), found, strict=True):
        times = weights[users]
        literal = auc(np.repeat(labels, times), np.repeat(scores, times))
        assert area == pytest.approx(literal, abs=1e-12, nan_ok=True)


@given(ROWS)
def test_everybody_once_is_the_plain_auc(rows):
    users, labels, scores = columns(rows)
    assert value(pooled_auc(users, labels, scores), USERS) == pytest.approx(
        auc(labels, scores), abs=1e-12, nan_ok=True
    )


def test_a_mean_over_users_is_the_mean_over_drawn_users():
    figures, weights = np.array([0.2, 0.9, 0.5]), np.array([1.0, 3.0, 0.0])
    mean = UserMean(figures * weights, weights)
    assert mean(np.array([[1, 1, 1], [2, 0, 7], [0, 0, 4]])).tolist() == pytest.approx(
        [(0.2 + 2.7) / 4, 0.2, math.nan], nan_ok=True
    )


def test_the_mean_over_seeds_is_taken_inside_each_draw():
    one, other = (UserMean(np.array(a), np.ones(2)) for a in ([0.0, 1.0], [1.0, 1.0]))
    assert Average([one, other])(np.array([[2, 0], [0, 2]])).tolist() == [0.5, 1.0]


def test_each_draw_holds_as_many_users_as_there_are():
    (counts,) = draws(users=50, resamples=200, seed=3, size=1000)
    assert counts.shape == (200, 50)
    assert (counts.sum(1) == 50).all()
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.3)
    assert counts.var() == pytest.approx(1.0, abs=0.1)  # as of a Poisson with mean 1, nearly


@given(st.integers(1, 9), st.integers(1, 9))
def test_draws_do_not_depend_on_the_size_of_blocks(one, other):
    first, second = (np.concatenate([*draws(7, 9, seed=1, size=size)]) for size in (one, other))
    assert (first == second).all()


def test_other_seeds_draw_other_users():
    first, second = (next(draws(30, 5, seed, 5)) for seed in (1, 2))
    assert (first != second).any()


def test_every_measure_meets_the_same_draws(monkeypatch):
    world = simulation.world(np.random.default_rng(0), users=20)
    area, mean = pooled_auc(world.users, world.labels, world.scores[0]), UserMean(np.arange(20.0), np.ones(20))
    together = bootstrap([area, mean, area], 20, resamples=50, seed=4, rows=len(world.labels))
    assert (together[0] == together[2]).all()
    assert (bootstrap([mean], 20, resamples=50, seed=4)[0] == together[1]).all()
    monkeypatch.setattr(statistics, "CELLS", 1)
    assert (bootstrap([area, mean, area], 20, resamples=50, seed=4, rows=len(world.labels)) == together).all()


MANY = 10**9  # users enough that nothing is expanded


def test_an_interval_holds_the_middle_of_the_draws():
    low, high = interval(np.arange(1001.0), confidence=0.9, users=MANY)
    assert (low, high) == pytest.approx((50, 950))


def test_draws_with_nothing_to_measure_are_left_out_of_the_interval():
    low, high = interval(np.array([[1.0, math.nan, 1.0], [2.0, 4.0, math.nan]]), confidence=0.5, users=MANY)
    assert low.tolist() == pytest.approx([1, 2.5])
    assert high.tolist() == pytest.approx([1, 3.5])


@pytest.mark.parametrize(("users", "tail"), [(1, 0.025), (2, 0.0), (30, 0.0188), (200, 0.0240), (MANY, 0.025)])
def test_the_tails_are_the_thinner_the_fewer_users(users, tail):
    assert expanded(0.025, users) == pytest.approx(tail, abs=5e-5)


def test_for_normal_figures_the_interval_is_students():
    figures = scipy_stats.norm.ppf((np.arange(12) + 0.5) / 12)
    resampled = bootstrap([UserMean(figures, np.ones(12))], 12, resamples=40_000, seed=1)[0]
    student = scipy_stats.t.interval(0.95, 11, figures.mean(), figures.std(ddof=1) / math.sqrt(12))
    assert interval(resampled, 0.95, 12) == pytest.approx(student, abs=0.05)


def by_enumeration(differences):
    """Exact p of the sign-flip test: all ways to give the differences signs."""
    reach = abs(sum(differences)) - 1e-12
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    return sum(abs(one) >= reach for one in sums) / len(sums)


@pytest.mark.parametrize(
    "differences",
    [
        [0.3, 0.1, 0.2, 0.4, 0.1, 0.2, 0.1],
        [0.3, -0.1, 0.2, -0.4, 0.1],
        [1.0, 1.0, 1.0, -1.0, 0.0, 0.0],
        [0.1, 0.2, -0.3],
    ],
)
def test_flips_come_near_the_exact_test(differences):
    (p,) = flip_test(np.array([differences]), flips=20_000, seed=1)
    assert p == pytest.approx(by_enumeration(differences), abs=0.015)


def test_flips_agree_with_scipy():
    differences = np.random.default_rng(8).normal(0.3, 1, size=40)
    theirs = scipy_stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    ).pvalue
    assert flip_test(differences[None], flips=20_000, seed=1)[0] == pytest.approx(theirs, abs=0.015)


def test_no_difference_has_p_one():
    assert flip_test(np.zeros((1, 30)), flips=100, seed=1).tolist() == [1]


def test_p_is_never_zero():
    assert flip_test(np.ones((1, 200)), flips=999, seed=1).tolist() == [0.001]


def test_a_comparison_does_not_change_with_its_company_side_or_blocks(monkeypatch):
    table = np.random.default_rng(2).normal(0.2, 1, size=(3, 50))
    together = flip_test(table, flips=500, seed=1)
    assert flip_test(table[1:2], flips=500, seed=1)[0] == together[1]
    assert (flip_test(-table, flips=500, seed=1) == together).all()
    monkeypatch.setattr(statistics, "CELLS", 50)
    assert (flip_test(table, flips=500, seed=1) == together).all()


def exchanged(users, labels, scores, sides):
    """The difference in AUC by its definition once the users with side 1 have exchanged their ranks."""
    ranks = np.array([scipy_stats.rankdata(score) for score in scores])
    side, rows = np.array(sides)[users], np.arange(len(users))
    return auc(labels, ranks[side, rows]) - auc(labels, ranks[1 - side, rows])


TWO_SCORES = st.lists(
    st.tuples(st.integers(0, 4), *[st.sampled_from([0.0, 0.1, 0.5, 2.0])] * 2), min_size=1, max_size=30
)


@given(TWO_SCORES, st.lists(st.integers(0, 1), min_size=5, max_size=5))
def test_flipping_a_share_is_exchanging_a_users_ranks(rows, sides):
    users, *scores = (np.array(column) for column in zip(*[*rows, (4, 0.1, 0.5)], strict=True))
    labels = np.arange(len(users)) % 2
    first, second = (Rows(users, labels, score[None]) for score in scores)
    signs = 1 - 2 * np.array(sides)
    literal = exchanged(users, labels, scores, sides)
    assert signs @ exchange_shares(first, second) == pytest.approx(literal, abs=1e-12)


@given(TWO_SCORES)
def test_shares_do_not_see_scales(rows):
    users, *scores = (np.array(column) for column in zip(*[*rows, (4, 0.1, 0.5)], strict=True))
    first, second = (Rows(users, np.arange(len(users)) % 2, score[None]) for score in scores)
    stretched = second._replace(scores=np.exp(second.scores) * 100)
    assert (exchange_shares(first, second) == exchange_shares(first, stretched)).all()
    assert (exchange_shares(second, first) == -exchange_shares(first, second)).all()
    assert not exchange_shares(first, first).any()


def test_shares_of_seeds_are_their_mean_over_pairs_of_seeds():
    one = simulation.world(np.random.default_rng(1), users=30)
    seeds = np.random.default_rng(2).normal(size=(3, len(one.users)))
    a, b, c, both, baseline = (
        Rows(one.users, one.labels, s) for s in (seeds[:1], seeds[1:2], seeds[2:], seeds[:2], one.scores[:1])
    )
    unequal = np.mean([exchange_shares(a, baseline), exchange_shares(b, baseline)], axis=0)
    assert exchange_shares(both, baseline) == pytest.approx(unequal)
    assert exchange_shares(baseline, both) == pytest.approx(-unequal)
    in_step = np.mean([exchange_shares(a, c), exchange_shares(b, baseline)], axis=0)
    matched = Rows(one.users, one.labels, np.concatenate([c.scores, baseline.scores]))
    assert exchange_shares(both, matched) == pytest.approx(in_step)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == pytest.approx([1.0, 1.0])
    assert holm(np.array([0.2])).tolist() == pytest.approx([0.2])
    assert holm(np.array([])).tolist() == []


@pytest.mark.parametrize("p", [[0.01, 0.02, 0.02, 0.3], [0.31, 0.001, 0.3, 0.001, 1.0], [0.9, 0.8]])
def test_holm_equals_statsmodels(p):
    assert holm(np.array(p)).tolist() == pytest.approx(multipletests(p, method="holm")[1].tolist())


def test_effect_size_is_mean_over_standard_deviation():
    figures = np.array([0.1, 0.3, 0.5, 99.0])
    assert effect_size(figures, np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(0.3 / 0.2)


def test_a_user_of_weight_two_counts_as_twice_the_share():
    figures, weights = np.array([0.0, 0.6]), np.array([1.0, 2.0])
    assert effect_size(figures, weights) == pytest.approx(0.4 / math.sqrt((0.16 / 3 + 0.08 / 3) * 2))


@pytest.mark.parametrize("figures", [[0.2, 0.2, 0.2], [0.2], [0.0, 0.0]])
def test_differences_that_do_not_vary_have_no_effect_size(figures):
    assert effect_size(np.array(figures), np.ones(len(figures))) is None


# Simulated worlds, small enough for every run; `benchmarks/intervals.py` holds the full tables. The limits
# are about four standard errors of the simulation wide.


def test_intervals_over_users_cover_the_truth():
    found = simulation.coverage(worlds=300, users=80, resamples=200, seed=5)
    for metric, share in found.items():
        assert 0.89 < share < 0.985, metric


def test_intervals_over_rows_miss_it_where_users_differ():
    assert simulation.coverage_of_rows(worlds=120, users=80, resamples=100, seed=5) < 0.8


def test_false_alarms_are_as_rare_as_promised():
    found = simulation.rejections(worlds=300, users=80, resamples=200, gain=0, seed=6)
    for metric, share in found.items():
        assert 0.01 < share < 0.1, metric


def test_a_real_difference_is_found():
    found = simulation.rejections(worlds=40, users=80, resamples=200, gain=1.5, seed=7)
    for metric, share in found.items():
        assert share > 0.8, metric


def test_intervals_of_list_quality_cover_the_truth():
    assert 0.89 < simulation.coverage_of_lists(worlds=300, users=80, resamples=200, seed=5) < 0.985


def test_false_alarms_about_lists_are_as_rare_as_promised():
    assert 0.01 < simulation.rejections_of_lists(worlds=300, users=80, resamples=200, gain=0, seed=6) < 0.1


def test_lists_that_are_better_are_told_apart():
    assert simulation.rejections_of_lists(worlds=40, users=80, resamples=200, gain=1.5, seed=7) > 0.8
