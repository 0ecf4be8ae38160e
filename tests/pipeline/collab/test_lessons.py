"""Lists to learn from, by hand: what is past and what is target, who teaches, and nothing of valid or test."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collab.lessons import Sizes, drawn_users, lesson, lessons, shuffled
from tests.toy_next import ITEMS, circles

FILMS = pl.DataFrame({"item": range(ITEMS)}).with_columns(
    categories=pl.when(pl.col("item") % 2 == 0).then(pl.lit(["even"])).otherwise(pl.lit(["odd"]))
)
SIZES = Sizes(titles=3, candidates=6, share=0.5, valid=4)


@pytest.mark.parametrize(
    ("items", "past", "targets"),
    [
        ([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4], [5, 6, 7]),
        ([1, 2, 3, 4, 5], [1, 2, 3], [4, 5]),  # at most half
        ([1, 2], [1], [2]),
        ([1], [1], []),
        ([], [], []),
        ([1, 2, 3, 4, 1, 5, 5], [1, 2, 3, 4], [5]),  # new ones, and each once
    ],
)
def test_the_last_items_are_targets_and_what_came_before_is_past(items, past, targets) -> None:
    assert lesson(items, 3) == (past, targets)


def test_a_share_teaches_and_others_choose() -> None:
    roles = drawn_users(range(10), 0.2, 5, seed=1)
    assert [len(roles[role]) for role in ("learn", "choose")] == [2, 5]
    assert not set(roles["learn"]) & set(roles["choose"])
    assert roles == drawn_users(range(10), 0.2, 5, seed=1)
    assert roles != drawn_users(range(10), 0.2, 5, seed=2)
    assert drawn_users([7], 0.2, 5, seed=1) == {"learn": [7], "choose": []}


def test_lists_of_the_toy() -> None:
    tables = circles()
    made = lessons(tables.events, FILMS, SIZES, seed=1)
    assert made.group_by("role", maintain_order=True).len().rows() == [("learn", 11), ("choose", 4)]
    train = tables.events.filter(part="train").group_by("user", maintain_order=True).agg("item")
    both = made.join(train, on="user", maintain_order="left")
    assert both.select(pl.col("past").list.concat("targets") == pl.col("item")).to_series().all()
    for past, targets, told in made.select("past", "targets", "candidates").iter_rows():
        assert len(targets) == 3
        assert len(told) == len(set(told)) == 6
        assert set(targets) < set(told)
        assert not set(past) & set(told)
        assert {item % 2 for item in told} == {targets[0] % 2}  # of the same category


def test_targets_stand_anywhere_among_the_candidates() -> None:
    made = lessons(circles().events, FILMS, SIZES, seed=1)
    places = [told.index(wanted[0]) for wanted, told in made.select("targets", "candidates").iter_rows()]
    assert len(set(places)) > 2


def test_what_is_held_out_moves_nothing() -> None:
    events = circles().events
    other = events.with_columns(item=pl.when(part="train").then("item").otherwise(21 - pl.col("item")))
    assert not other.equals(events)
    assert lessons(other, FILMS, SIZES, 1).equals(lessons(events, FILMS, SIZES, 1))


def test_a_user_with_one_item_teaches_nothing() -> None:
    rows = [(0, "train", 0, 1), (1, "train", 1, 2), (2, "train", 1, 3)]
    events = pl.DataFrame(rows, schema=["row", "part", "user", "item"], orient="row")
    made = lessons(events, FILMS, SIZES._replace(share=0.9), 1)
    assert made.select("user", "past", "targets").rows() == [(1, [2], [3])]


@given(st.lists(st.integers(), max_size=9), st.integers(0, 9))
def test_a_shuffle_holds_the_same_things_and_hangs_on_its_seed(items: list[int], seed: int) -> None:
    assert sorted(shuffled(items, seed, 1)) == sorted(items)
    assert shuffled(items, seed, 1) == shuffled(items, seed, 1)
