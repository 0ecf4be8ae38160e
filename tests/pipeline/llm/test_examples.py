"""Which examples are asked about, and whose past each shows."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.llm.examples import donors, donors_by_part, draw, few_shot, past_of

EVENTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), max_size=6)


def with_pasts(*pasts: list[tuple[int, int]]) -> pl.DataFrame:
    """Examples whose histories are these pairs of item and label."""
    lists = {
        "history": [[i for i, _ in one] for one in pasts],
        "history_labels": [[y for _, y in one] for one in pasts],
    }
    return pl.DataFrame(lists, schema={"history": pl.List(pl.UInt32), "history_labels": pl.List(pl.UInt8)})


def test_pasts_are_the_latest_and_can_be_likes_only() -> None:
    examples = with_pasts([(1, 1), (2, 0), (3, 1), (4, 1)], [], [(5, 0)])
    for longest, liked_only, items, labels in (
        (2, True, [[3, 4], [], []], [[1, 1], [], []]),
        (3, False, [[2, 3, 4], [], [5]], [[0, 1, 1], [], [0]]),
        (0, False, [[], [], []], [[], [], []]),
    ):
        past = past_of(examples, longest, liked_only)
        assert past.to_dict(as_series=False) == {"items": items, "labels": labels}


@given(st.lists(EVENTS, max_size=6), st.integers(0, 4), st.booleans())
def test_a_past_is_what_a_loop_would_gather(pasts: list, longest: int, liked_only: bool) -> None:
    kept = [[(i, y) for i, y in one if y or not liked_only] for one in pasts]
    kept = [one[len(one) - min(longest, len(one)) :] for one in kept]
    found = past_of(with_pasts(*pasts), longest, liked_only)
    assert [list(zip(*one, strict=True)) for one in found.iter_rows()] == kept


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 3))
def test_donors_are_other_users_wherever_nobody_owns_more_than_half(users: list[int], seed: int) -> None:
    taken = donors(users, seed)
    assert sorted(taken) == list(range(len(users)))
    if users and max(map(users.count, users)) * 2 <= len(users):
        assert all(users[place] != user for place, user in zip(taken, users, strict=True))


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(0, 3))
def test_owners_may_be_words_and_as_few_as_can_be_keep_their_own(owners: list[str], seed: int) -> None:
    taken = donors(owners, seed)
    assert sorted(taken) == list(range(len(owners)))
    kept = sum(owners[place] == owner for place, owner in zip(taken, owners, strict=True))
    assert kept == max([0, *(2 * owners.count(owner) - len(owners) for owner in owners)])


def test_donors_come_from_the_same_part() -> None:
    rng = np.random.default_rng(0)
    parts = rng.choice(["train", "valid", "test"], 90).tolist()
    examples = pl.DataFrame({"part": parts, "user": rng.integers(0, 9, 90)})
    taken = donors_by_part(examples, 3)
    assert [parts[i] for i in taken] == parts
    assert sorted(taken) == list(range(90))


def test_validation_rows_are_drawn_by_seed_in_their_order() -> None:
    rows = pl.DataFrame({"row": range(50)})
    assert draw(rows, 10, 1).equals(draw(rows, 10, 1))
    assert draw(rows, 10, 1)["row"].is_sorted()
    assert not draw(rows, 10, 1).equals(draw(rows, 10, 2))
    assert draw(rows, None, 1).height == draw(rows, 99, 1).height == 50


def test_few_shot_takes_k_train_rows_by_seed_and_all_others() -> None:
    parts = ["train"] * 30 + ["valid"] * 4 + ["test"] * 5
    examples = pl.DataFrame({"row": range(39), "part": parts})
    first, again, other = (few_shot(examples, 16, seed) for seed in (1, 1, 2))
    assert first["part"].value_counts().sort("count")["count"].to_list() == [4, 5, 16]
    assert first["row"].is_sorted()
    assert first.equals(again)
    assert not first.equals(other)
    assert few_shot(examples, None, 1).equals(few_shot(examples, 10**6, 1))
    assert few_shot(examples, None, 1).equals(examples)
