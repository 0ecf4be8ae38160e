"""Figures of ids of several levels, by hand."""

import numpy as np
import polars as pl
import pytest

from pipeline.codes.levels import (
    category_flags,
    category_information,
    entropy,
    holders,
    neighbours_in_order,
    perplexity,
    sharing,
    told,
    usage,
    variance_left,
)

CODES = np.array([[0, 0], [0, 0], [0, 1], [3, 2], [3, 2], [3, 2]])


def test_who_shares_an_id() -> None:
    assert sharing(CODES) == (3 / 6, 5 / 6, 3)
    assert sharing(CODES[:0]) == (0, 0, 0)


def test_usage_counts_codes_that_any_item_has() -> None:
    first, second = holders(CODES, 4)
    assert (first.tolist(), second.tolist()) == ([3, 0, 0, 3], [2, 1, 3, 0])
    assert (usage(first), usage(second)) == (0.5, 0.75)


def test_perplexity_is_the_number_of_codes_where_they_are_equal_and_less_where_not() -> None:
    assert perplexity(np.array([5, 5, 5, 0])) == pytest.approx(3)
    assert perplexity(np.array([7, 0])) == pytest.approx(1)
    assert perplexity(np.array([1, 3])) == pytest.approx(4 / 3**0.75)


VECTORS = np.array([[0, 0], [0, 2], [4, 0], [4, 2]], dtype=np.float32)  # variance 16 across, 4 up


def test_each_level_takes_away_the_mean_of_its_items() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert variance_left(VECTORS, codes, 2) == pytest.approx([4 / 20, 0])
    assert variance_left(VECTORS, codes[:, ::-1], 2) == pytest.approx([16 / 20, 0])
    assert variance_left(VECTORS[:1], codes[:1], 2) == [0, 0]


def test_random_codes_leave_all_but_what_so_many_means_fit() -> None:
    rng = np.random.default_rng(0)
    vectors, codes = rng.normal(size=(2000, 8)).astype(np.float32), rng.integers(50, size=(2000, 1))
    assert variance_left(vectors, codes, 50)[0] == pytest.approx(1 - 49 / 1999, abs=0.01)


CATEGORIES = pl.Series([["a"], ["a", "b"], None, ["c"], ["a"], ["a"], ["a", "b"], []], dtype=pl.List(pl.String))


def test_categories_of_few_items_do_not_count() -> None:
    assert category_flags(CATEGORIES)[:, 0].tolist() == [True, True, False, False, True, True, True, False]
    assert category_flags(CATEGORIES).shape == (8, 1)
    assert category_flags(pl.Series([None, None], dtype=pl.List(pl.String))).shape == (2, 0)
    assert category_flags(pl.Series([["all"]] * 9)).shape == (9, 0)  # says nothing of anybody


def test_a_code_that_is_the_category_tells_all_and_a_random_one_nothing() -> None:
    flags = np.random.default_rng(1).random((3000, 1)) < 0.3
    category = flags[:, 0].astype(np.int64)
    assert told(category, 2, flags) == pytest.approx(entropy(flags.mean(0)).sum())
    assert category_information(category, 2, flags) == pytest.approx(1, abs=0.01)
    random = np.random.default_rng(2).integers(64, size=3000)
    assert told(random, 64, flags) > 0.005  # many codes seem to tell something
    assert category_information(random, 64, flags) == pytest.approx(0, abs=0.01)
    assert category_information(random, 64, flags[:, :0]) == 0


def test_half_of_an_evenly_split_category_told_by_hand() -> None:
    flags = np.array([[1], [1], [1], [0], [0], [0], [0], [1]], dtype=bool)
    by_hand = np.log(2) - (-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert told(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 2, flags) == pytest.approx(by_hand)


def test_steps_to_the_next_id_and_to_the_one_before_are_told_apart() -> None:
    ids = np.array([[1, 0], [0, 1], [0, 0], [1, 1]])  # in order: rows 2, 1, 0, 3
    first, second = np.array([2, 1, 0, 3, 2]), np.array([1, 0, 3, 0, 3])
    assert neighbours_in_order(ids, first, second) == (3, 1)


def test_numbers_given_along_histories_are_found_and_random_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    first = np.arange(999)
    along = np.stack([np.arange(1000) // 10, np.arange(1000) % 10], axis=1)
    assert neighbours_in_order(along, first, first + 1) == (999, 0)
    shuffled = rng.permutation(along)
    assert max(neighbours_in_order(shuffled, first, first + 1)) < 10
