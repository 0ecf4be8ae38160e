"""Figures of a set of codes, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codes.health import (
    Signs,
    bit_balance,
    group_sizes,
    mean_correlation,
    mean_distance,
    measure,
    shared,
)

CODES = np.array([[1, 1, -1, -1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=np.int8)


def test_groups_are_counted_largest_first() -> None:
    assert group_sizes(CODES).tolist() == [2, 1, 1]


def test_codes_of_more_than_a_byte_are_told_apart_by_their_last_bit() -> None:
    codes = np.ones((2, 32), dtype=np.int8)
    codes[1, 31] = -1
    assert group_sizes(codes).tolist() == [1, 1]


def test_balance_is_the_share_of_set_bits() -> None:
    assert bit_balance(CODES).tolist() == [1, 0.5, 0.25, 0.25]


def test_the_figures_of_four_codes() -> None:
    found = measure(CODES, np.ones(4, dtype=np.int64))
    assert found._replace(mean_distance=0, mean_correlation=0) == (4, 3, 0.5, 0.5, 2, 0.25, 0.25, 1, 0, 0)


def test_rows_count_as_often_as_they_are() -> None:
    found = measure(CODES, np.array([1, 0, 18, 1]))
    assert shared(CODES).tolist() == [True, True, False, False]
    assert (found.sharing, found.sharing_rows) == (0.5, 1 / 20)
    assert (found.unbalanced_bits, found.unbalanced_rows) == (
        0.25,
        3 / 4,
    )  # bits 1, 2 and 4: in all, 1 and 1 of 20


def test_codes_that_are_all_alike_have_one_group_and_no_distance() -> None:
    found = measure(np.ones((5, 8), dtype=np.int8), np.full(5, 2))
    assert found == (5, 1, 1.0, 1.0, 5, 1.0, 1.0, 8, 0.0, 0.0)


def test_no_codes_at_all_have_figures_too() -> None:
    none = measure(np.ones((0, 8), dtype=np.int8), np.ones(0, dtype=np.int64))
    assert none == (0, 0, 0.0, 0.0, 0, 0.0, 0.0, 0, 0.0, 0.0)


def test_bits_that_repeat_each_other_correlate_fully() -> None:
    bit = np.array([1, -1, 1, 1, -1])
    assert mean_correlation(np.stack([bit, -bit, bit], axis=1).astype(np.int8)) == pytest.approx(1)


def test_independent_bits_do_not_correlate() -> None:
    assert mean_correlation(np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=np.int8)) == pytest.approx(0)


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_the_mean_distance_is_that_over_all_pairs(n: int, seed: int) -> None:
    codes: Signs = np.random.default_rng(seed).choice([-1, 1], size=(n, 8)).astype(np.int8)
    pairs = [(codes[a] != codes[b]).sum() for a in range(n) for b in range(a)]
    assert mean_distance(bit_balance(codes), n) == pytest.approx(np.mean(pairs))


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_the_mean_correlation_is_numpys(n: int, seed: int) -> None:
    codes = np.random.default_rng(seed).choice([-1, 1], size=(n, 6)).astype(np.int8)
    varying = codes[:, np.ptp(codes, axis=0) > 0].astype(float)
    if varying.shape[1] > 1:
        oracle = np.abs(np.corrcoef(varying, rowvar=False))
        mask = ~np.eye(len(oracle), dtype=bool)
        assert mean_correlation(codes) == pytest.approx(oracle[mask].mean())
