"""What a user had liked before, by hand."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collab import pasts
from pipeline.collab.pasts import PAD, distinct, lengths, liked_before

KNOWN = np.array([True, True, True, False, True])
HAND = [
    ([0, 1, 2], [1, 0, 1]),  # item 1 was not liked
    ([], []),
    ([3, 4, 3], [1, 1, 1]),  # item 3 is cold
    ([4, 2, 1, 0], [1, 1, 1, 1]),  # the first does not fit
    ([1], [0]),
]
WANTED = [[0, 2, PAD], [PAD] * 3, [4, PAD, PAD], [2, 1, 0], [PAD] * 3]


def frame(rows: list) -> pl.DataFrame:
    schema = {"history": pl.List(pl.UInt32), "history_labels": pl.List(pl.UInt8)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_the_last_liked_and_known_items_stand_oldest_first() -> None:
    found = liked_before(frame(HAND), KNOWN, longest=3)
    assert found.tolist() == WANTED
    assert lengths(found).tolist() == [2, 0, 1, 3, 0]


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_pieces_make_no_difference(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pasts.slices
    monkeypatch.setattr(pasts, "slices", lambda rows: plain(rows, at_once))
    assert liked_before(frame(HAND).lazy(), KNOWN, longest=3).tolist() == WANTED


def test_no_rows_have_no_pasts() -> None:
    assert liked_before(frame([]), KNOWN, longest=3).shape == (0, 3)


def test_equal_pasts_are_one() -> None:
    found, which = distinct(np.array([[1, 2], [0, PAD], [1, 2], [PAD, PAD]], np.int32))
    assert found.tolist() == [[PAD, PAD], [0, PAD], [1, 2]]
    assert which.tolist() == [2, 1, 2, 0]


EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=9)


@given(st.lists(EVENTS, min_size=1, max_size=8), st.integers(1, 5))
def test_it_is_what_a_loop_finds(histories: list, longest: int) -> None:
    found = liked_before(frame([([i for i, _ in h], [y for _, y in h]) for h in histories]), KNOWN, longest)
    for past, history in zip(found.tolist(), histories, strict=True):
        liked = [item for item, label in history if label and KNOWN[item]][-longest:]
        assert past == liked + [PAD] * (longest - len(liked))
