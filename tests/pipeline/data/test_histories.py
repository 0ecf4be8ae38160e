import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import histories
from pipeline.data.histories import Histories, as_lists, slices

TYPES = {"row": pl.UInt32, "user": pl.UInt32, "item": pl.UInt32, "label": pl.UInt8, "at": pl.Int64}


def frame(rows: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    """Rows of (user, item, label, at), numbered as they come."""
    return pl.DataFrame([(i, *row) for i, row in enumerate(rows)], schema=TYPES, orient="row")


def with_histories(rows: pl.DataFrame, past: pl.DataFrame, longest: int) -> pl.DataFrame:
    found = Histories(rows, past, longest)
    whole = pl.concat(found.beside(rows))
    assert whole["history"].list.len().to_list() == found.lengths.tolist()
    return whole


def test_a_history_is_what_was_strictly_before_oldest_first() -> None:
    rows = frame([(0, 10, 1, 5), (1, 20, 0, 6), (0, 11, 0, 7), (0, 12, 1, 7), (0, 13, 1, 9), (1, 21, 1, 6)])
    found = with_histories(rows, rows, 50)
    assert found["history"].to_list() == [[], [], [10], [10], [10, 11, 12], []]
    assert found["history_labels"].to_list() == [[], [], [1], [1], [1, 0, 1], []]


def test_only_the_last_items_are_kept() -> None:
    rows = frame([(0, item, 1, item) for item in range(5)])
    assert with_histories(rows, rows, 2)["history"].to_list() == [[], [0], [0, 1], [1, 2], [2, 3]]
    assert with_histories(rows, rows, 0)["history"].to_list() == [[], [], [], [], []]


def test_rows_other_than_the_interactions_get_the_past_of_their_moment() -> None:
    past = frame([(0, 10, 1, 5), (0, 11, 0, 7)])
    asked = frame([(0, 99, 0, 7)])
    assert with_histories(asked, past, 50)["history"].to_list() == [[10]]


def test_rows_of_moments_users_and_times_that_the_past_does_not_know_are_placed_too() -> None:
    past = frame([(0, 10, 1, 5), (0, 11, 0, 7), (2, 20, 1, 6)])
    asked = frame([(0, 99, 0, 4), (0, 99, 0, 6), (0, 99, 0, 8), (1, 99, 0, 8), (2, 99, 0, 99), (3, 99, 0, 0)])
    assert with_histories(asked, past, 50)["history"].to_list() == [[], [10], [10, 11], [], [20], []]


def test_without_a_past_every_history_is_empty() -> None:
    asked = frame([(0, 99, 0, 4), (1, 99, 0, 6)])
    assert with_histories(asked, frame([]), 50)["history"].to_list() == [[], []]


def test_no_rows_have_no_histories() -> None:
    found = with_histories(frame([]), frame([(0, 1, 1, 1)]), 50)
    assert found.height == 0
    assert found.columns[-2:] == ["history", "history_labels"]


def test_pieces_make_no_difference(monkeypatch) -> None:
    draw = np.random.default_rng(1)
    rows = frame([tuple(int(x) for x in draw.integers(0, (3, 9, 2, 20))) for _ in range(200)])
    whole = with_histories(rows, rows, 4)
    monkeypatch.setattr(histories, "slices", lambda rows: slices(rows, 7))
    assert with_histories(rows, rows, 4).equals(whole)


events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 1), st.integers(0, 6)), max_size=40
)


@given(events, st.integers(0, 4))
def test_every_history_equals_one_written_out_by_hand(
    drawn: list[tuple[int, int, int, int]], longest: int
) -> None:
    rows = frame(sorted(drawn, key=lambda row: row[3]))
    by_hand = []
    for row in rows.iter_rows(named=True):
        before = [
            r["item"] for r in rows.iter_rows(named=True) if r["user"] == row["user"] and r["at"] < row["at"]
        ]
        by_hand.append(before[-longest:] if longest else [])
    assert with_histories(rows, rows, longest)["history"].to_list() == by_hand


def test_slices_cover_all_rows_once() -> None:
    assert [list(range(10))[cut] for cut in slices(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(list(slices(0, 4))) == 1


def test_values_one_row_after_another_become_a_list_per_row() -> None:
    values, lengths = pl.Series("stars", [1.5, None, 3.0], dtype=pl.Float32), pl.Series([2, 0, 1])
    found = as_lists(values, lengths)
    assert found.to_list() == [[1.5, None], [], [3.0]]
    assert (found.name, found.dtype) == ("stars", pl.List(pl.Float32))
    assert as_lists(pl.Series(["a", "b"]), pl.Series([0, 2])).to_list() == [[], ["a", "b"]]
    assert as_lists(values[:0], lengths[:0]).to_list() == []
