"""Digits by hand, and what is written is what is read."""

from types import SimpleNamespace

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codes.ids import read_ids, with_digits


def test_items_that_share_their_codes_are_told_apart_in_item_order() -> None:
    codes = np.array([[2, 1], [0, 0], [2, 1], [0, 1], [2, 1], [0, 0]])
    assert with_digits(codes).tolist() == [[2, 1, 0], [0, 0, 0], [2, 1, 1], [0, 1, 0], [2, 1, 2], [0, 0, 1]]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=40))
def test_digits_make_ids_unique_and_count_from_zero(rows: list[tuple[int, int]]) -> None:
    codes = np.array(rows, dtype=np.int64).reshape(-1, 2)
    found = with_digits(codes)
    assert np.array_equal(found[:, :2], codes)
    assert len(np.unique(found, axis=0)) == len(codes)
    for pair in set(rows):
        held = found[(codes == pair).all(1), 2]
        assert held.tolist() == list(range(len(held)))


def test_ids_are_read_with_the_sizes_of_their_places() -> None:
    table = pl.DataFrame({"item": [3, 9], "codes": [[5, 0, 1], [7, 2, 0]]})
    facts = {"levels": 2, "codes_a_level": 16, "digits": 2}
    found = read_ids(SimpleNamespace(table=lambda name: table, metrics=facts))  # type: ignore[arg-type]
    assert found.items.tolist() == [3, 9]
    assert found.codes.tolist() == [[5, 0, 1], [7, 2, 0]]
    assert found.sizes == (16, 16, 2)
    assert found.codes.dtype == found.items.dtype == np.int64
