"""Hard negatives, by hand: what goes with the targets, of their category first, and nothing that was used."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collab import co_use
from pipeline.collab.co_use import hard_negatives, hardest, kinship, used_by, used_together

# user 0 used 0 and 1; user 1 used 0, 2 and 3; user 2 used 0, 2 and 4; user 3 used 5 alone
ROWS = [(0, 0), (0, 1), (1, 0), (1, 2), (1, 3), (2, 0), (2, 2), (2, 4), (3, 5), (1, 2)]
EVENTS = pl.DataFrame(ROWS, schema={"user": pl.UInt32, "item": pl.UInt32}, orient="row")
USED = used_by(EVENTS, 7)
CATEGORIES = {0: ["drama"], 1: ["drama"], 2: ["crime"], 3: ["crime", "drama"], 4: ["crime"], 5: ["drama"]}


def test_a_pair_counts_once_and_an_item_nobody_used_has_its_column() -> None:
    assert USED.shape == (4, 7)
    assert USED.toarray()[1].tolist() == [1, 0, 1, 1, 0, 0, 0]


def test_an_item_goes_with_targets_as_often_as_users_had_both() -> None:
    counts = list(used_together(USED, [[0], [0, 3]]))
    assert counts[0].tolist() == [3, 1, 2, 1, 1, 0, 0]
    assert counts[1].tolist() == [4, 1, 3, 2, 1, 0, 0]


def test_lists_are_counted_alike_in_pieces(monkeypatch) -> None:
    targets = [[0], [3, 4], [5], [1, 2]]
    whole = np.array(list(used_together(USED, targets)))
    monkeypatch.setattr(co_use, "LISTS_AT_ONCE", 3)
    assert np.array_equal(np.array(list(used_together(USED, targets))), whole)


def test_the_hardest_are_akin_then_often_then_low() -> None:
    counts = np.array([5.0, 2.0, 2.0, 9.0, 0.0, 3.0])
    akin = np.array([True, True, True, False, True, False])
    allowed = np.array([False, True, True, True, True, True])
    assert hardest(counts, akin, allowed) == [1, 2, 3, 5]


def test_items_of_each_category() -> None:
    assert kinship(CATEGORIES, 7)["crime"].tolist() == [False, False, True, True, True, False, False]


def test_a_list_is_filled_up_with_what_its_user_has_not_used() -> None:
    # user 0 has 0 and 1: of what goes with 0, item 3 is akin (drama), then 2 (twice), then 4
    (found,) = hard_negatives([[0]], [0], USED, CATEGORIES, size=2, seed=1)
    assert len(found) == 1
    assert found[0] in {3, 2, 4}
    (every,) = hard_negatives([[0]], [0], USED, CATEGORIES, size=9, seed=1)
    assert sorted(every) == [2, 3, 4]


def test_nothing_is_drawn_for_a_full_list_or_for_targets_that_go_with_nothing() -> None:
    assert hard_negatives([[0, 1]], [0], USED, CATEGORIES, size=2, seed=1) == [[]]
    assert hard_negatives([[5]], [3], USED, CATEGORIES, size=9, seed=1) == [[]]
    assert hard_negatives([[6]], [3], USED, CATEGORIES, size=9, seed=1) == [[]]


def test_a_users_draw_hangs_on_seed_and_user_alone() -> None:
    both = hard_negatives([[0], [0]], [0, 3], USED, CATEGORIES, size=3, seed=1)
    assert both[1] == hard_negatives([[0]], [3], USED, CATEGORIES, size=3, seed=1)[0]
    draws = {tuple(hard_negatives([[0]], [3], USED, CATEGORIES, 3, seed)[0]) for seed in range(9)}
    assert len(draws) > 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=30), st.integers(1, 8))
def test_negatives_differ_and_were_used_by_nobody_of_the_list(rows: list[tuple[int, int]], size: int) -> None:
    events = pl.DataFrame(rows, schema={"user": pl.UInt32, "item": pl.UInt32}, orient="row")
    user, target = rows[0]
    (found,) = hard_negatives([[target]], [user], used_by(events, 7), {}, size, seed=3)
    assert len(found) == len(set(found)) <= max(size - 1, 0)
    assert not {(user, item) for item in found} & set(rows)
