"""Figures of ids of several levels, by hand."""

import numpy as np
import pytest

from pipeline.codes.levels import holders, perplexity, sharing, usage

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
