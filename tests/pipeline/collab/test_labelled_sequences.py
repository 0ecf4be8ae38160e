"""Rows as questions after windows of likes, by hand; and that no answer is in the question."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collab.labelled_sequences import as_histories, questions, states_of
from pipeline.collab.pairs import generator
from pipeline.collab.pasts import PAD
from pipeline.collab.sasrec import SASRecSettings
from pipeline.collab.transformer import Transformer

SCHEMA = {"user": pl.UInt32, "item": pl.UInt32, "label": pl.UInt8, "at": pl.Int64}


def rows(*events: tuple[int, int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(events), schema=SCHEMA, orient="row").with_row_index("row")


HAND = rows(
    *[(0, 5, 1, 10), (0, 6, 0, 20), (0, 7, 1, 20), (0, 8, 1, 30), (0, 9, 0, 40)],
    *[(1, 5, 0, 10), (1, 6, 0, 20)],  # likes nothing
    *[(2, 9, 1, 10), (2, 5, 1, 10), (2, 6, 1, 11)],  # the first two at one moment
)


def told(asked) -> list[tuple[list[int], int, int]]:
    """(what was read, target, label) of each question."""
    found = []
    for start, _, first, count in zip(*(t.tolist() for t in asked.windows), strict=True):
        for row in range(first, first + count):
            seen = asked.liked.items[start : start + int(asked.after[row]) + 1].tolist()
            found.append((seen, int(asked.target[row]), int(asked.label[row])))
    return found


def test_each_row_is_asked_after_what_was_liked_strictly_before() -> None:
    assert told(questions(HAND, length=5)) == [
        ([5], 6, 0),
        ([5], 7, 1),
        ([5, 7], 8, 1),
        ([5, 7, 8], 9, 0),
        ([9, 5], 6, 1),
    ]


def test_long_histories_are_cut_into_windows_that_follow_each_other() -> None:
    asked = questions(HAND, length=2)
    assert told(asked) == [([5], 6, 0), ([5], 7, 1), ([5, 7], 8, 1), ([8], 9, 0), ([9, 5], 6, 1)]
    assert asked.windows.length.tolist() == [2, 1, 2]


def test_users_who_liked_anything_have_their_likes_as_a_history() -> None:
    liked = questions(HAND, length=2).liked
    assert liked.items.tolist() == [5, 7, 8, 9, 5, 6]
    assert liked.offsets.tolist() == [0, 3, 6]


def test_nothing_to_ask_is_said() -> None:
    with pytest.raises(ValueError, match="no user has a liked training row before another"):
        questions(rows((0, 1, 1, 5), (0, 2, 1, 5), (1, 1, 0, 4), (1, 2, 0, 5)), length=3)


EVENT = st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 1), st.integers(0, 8))


@given(st.lists(EVENT, min_size=1, max_size=25), st.integers(1, 4))
def test_questions_are_what_a_loop_finds(events: list, length: int) -> None:
    frame, wanted = rows(*events), []
    for user, item, label, at in events:
        past = [e[1] for e in sorted(events, key=lambda e: e[3]) if e[0] == user and e[3] < at and e[2]]
        if past:
            wanted.append((past[(len(past) - 1) // length * length :], item, label))
    if not wanted:
        with pytest.raises(ValueError, match="no history"):
            questions(frame, length)
        return
    assert sorted(told(questions(frame, length))) == sorted(wanted)


def network() -> Transformer:
    return Transformer(12, SASRecSettings(dim=8, length=5, spread=0.5), generator(1))


def test_states_are_those_of_reading_each_past_alone() -> None:
    asked, model = questions(HAND, length=5), network()
    for some in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        states, which = states_of(model, asked, some, None)
        for state, row in zip(states, which.tolist(), strict=True):
            seen = torch.tensor([told(asked)[row][0]])
            assert torch.allclose(state, model(seen)[0, -1], atol=1e-6)


def test_every_row_of_the_windows_is_asked_once() -> None:
    asked = questions(HAND, length=2)
    _, which = states_of(network(), asked, torch.tensor([2, 0, 1]), None)
    assert sorted(which.tolist()) == [0, 1, 2, 3, 4]


def test_pasts_stand_one_after_another() -> None:
    found = as_histories(np.array([[3, 4, PAD], [PAD] * 3, [1, PAD, PAD]], np.int32))
    assert found.items.tolist() == [3, 4, 1]
    assert found.offsets.tolist() == [0, 2, 2, 3]
