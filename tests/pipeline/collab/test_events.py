"""Training events as arrays, and the cold policy of models that read histories."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collab.events import (
    Trained,
    cold_queries,
    from_histories,
    hidden,
    histories,
    ones,
    share,
    trained_rows,
    user_items,
)
from pipeline.collab.ranked import Block, blocks
from tests.toy_next import CIRCLE, EMPTY, ITEMS, LEARNT, NEW, circles, toy

HAND = toy([[0, 1, 2, 3], [1, 0, 3, 2], [1, 3, 0]], 5, new=[[4, 0]])


def block_of(part: str = "test") -> Block:
    ((_, block),) = blocks(HAND.part(part), 99)
    return block


def test_training_rows_are_those_of_the_train_part_user_by_user_oldest_first() -> None:
    rows = HAND.trained
    assert rows.user.tolist() == [0, 0, 1, 1, 2]
    assert rows.item.tolist() == [0, 1, 1, 0, 1]
    assert (rows.n_users, rows.n_items) == (4, 5)


def test_rows_of_one_moment_stand_in_order_of_row() -> None:
    events = HAND.events.with_columns(at=pl.lit(0)).sample(fraction=1, shuffle=True, seed=1)
    assert trained_rows(events, HAND.queries, 5).item.tolist() == [0, 1, 1, 0, 1]


def test_popularity_and_who_is_known() -> None:
    rows = HAND.trained
    assert rows.popularity.tolist() == [2, 3, 0, 0, 0]
    assert rows.known.users.tolist() == [True, True, True, False]
    assert rows.known.items.tolist() == [True, True, False, False, False]


def test_no_training_rows_is_an_error_in_words() -> None:
    with pytest.raises(ValueError, match="no training rows"):
        trained_rows(HAND.events.filter(pl.col("part") != "train"), HAND.queries, 5)


def test_who_used_what_counts_a_repeated_pair_once() -> None:
    rows = Trained(np.array([0, 0, 1]), np.array([2, 2, 0]), 2, 3)
    assert user_items(rows).toarray().tolist() == [[0, 0, 1], [1, 0, 0]]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30))
def test_ones_stand_where_they_should_and_nowhere_else(pairs: list[tuple[int, int]]) -> None:
    row, column = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    made = ones(row, column, (5, 7))
    assert {(int(r), int(c)) for r, c in zip(*made.nonzero(), strict=True)} == set(pairs)
    assert made.sum() == len(set(pairs))


def test_histories_leave_out_what_is_not_known() -> None:
    past = histories(block_of(), np.array([True, True, True, False, False]))
    assert past.toarray().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_a_history_without_known_items_gets_the_popular_ones() -> None:
    known = HAND.trained.known.items
    scores = from_histories(HAND.trained.popularity, known, lambda past: -past.toarray() - 1)
    found = scores(block_of())
    assert found[3].tolist() == [2, 3, -np.inf, -np.inf, -np.inf]
    assert found[2].tolist() == [-1, -2, -np.inf, -np.inf, -np.inf]


def test_an_item_that_is_not_known_is_hidden() -> None:
    found = hidden(np.ones((2, 3), np.float32), np.array([True, False, True]))
    assert torch.equal(found, torch.tensor([[1, -np.inf, 1]] * 2))


def test_a_share_of_popularity_orders_and_stays_below_one() -> None:
    found = share(np.array([0, 7, 3]))
    assert found.dtype == np.float32
    assert found.tolist() == [0, 0.875, 0.375]


def test_cold_queries_are_counted() -> None:
    tables = circles()
    found = cold_queries(tables.queries, tables.trained)
    assert found == {"test_users_not_learnt_from": EMPTY + 1 - NEW, "test_histories_of_nothing_known": 2}
    assert LEARNT == NEW
    assert CIRCLE < ITEMS
