"""Fields, by hand: codes are fitted on training alone, and what is not known is cold or a value of its own."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collab.labelled import Known
from pipeline.collab.pasts import PAD
from pipeline.ctr.fields import (
    COLD,
    Attribute,
    Fields,
    attributes,
    cold_rows,
    ids,
    profile,
    read_before,
    rows_of_owners,
    tenths,
)

SEEN = Known(np.array([True, False, True]), np.array([True, True, False, True]))


def users(*profiles: str | None) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": range(len(profiles)), "user_id": [str(i) for i in range(len(profiles))], "profile": profiles}
    )


def test_users_and_items_without_training_rows_share_the_cold_code() -> None:
    user, item = ids(SEEN)
    assert (user.codes.tolist(), user.size) == ([[1], [COLD], [2]], 3)
    assert (item.codes.tolist(), item.size) == ([[1], [2], [COLD], [3]], 4)


def test_a_profile_is_read_as_name_and_value() -> None:
    assert profile("age: 24, gender: M") == {"age": "24", "gender": "M"}
    assert profile(None) == {}


def test_values_are_learnt_of_users_with_training_rows_only() -> None:
    (gender,) = attributes(users("gender: F", "gender: X", "gender: M"), SEEN)
    assert (gender.name, gender.of, gender.size) == ("gender", "user", 3)
    assert gender.codes.tolist() == [[1], [COLD], [2]]


def test_no_value_is_a_value_where_training_has_it_and_cold_where_not() -> None:
    (gender,) = attributes(users("gender: F", "gender: F", None), SEEN)
    assert gender.codes.tolist() == [[2], [2], [1]]
    assert attributes(users("gender: F", None, "gender: M"), SEEN)[0].codes.tolist() == [[1], [COLD], [2]]


def test_a_field_that_is_the_same_for_all_is_left_out() -> None:
    assert attributes(users("gender: F", "gender: F", "gender: F"), SEEN) == []


def test_categories_are_many_and_the_year_is_the_titles() -> None:
    table = pl.DataFrame(
        {
            "item": range(4),
            "item_id": list("abcd"),
            "title": ["A (1990)", "B (1991)", "C (1991)", "2001 in D"],
            "categories": [["War", "Action"], ["War"], ["New"], None],
        }
    )
    categories, year = attributes(table, SEEN)
    assert categories.codes.tolist() == [[3, 2], [3, PAD], [COLD, PAD], [1, PAD]]
    assert year.codes.tolist() == [[2], [3], [3], [1]]


def test_items_that_the_table_does_not_list_are_cold() -> None:
    found = attributes(users("gender: F", "gender: M"), Known(np.array([True] * 3), SEEN.items))
    assert found[0].codes.tolist() == [[1], [2], [COLD]]


def test_ages_are_cut_into_tenths_of_the_known_users() -> None:
    ages = [[str(age)] for age in range(100)]
    cut = tenths(ages, np.arange(100) < 50)
    assert cut[0] == ["0"]
    assert cut[49] == cut[99] == ["9"]
    assert len({value for (value,) in cut[:50]}) == 10
    assert tenths(ages[:20], np.ones(20, bool)) == ages[:20]
    assert tenths([["a"], *ages], np.ones(101, bool))[0] == [""]


def test_a_history_holds_the_last_known_items_and_which_were_liked() -> None:
    lists = pl.DataFrame(
        {"history": [[0, 2, 3, 1], [], [2]], "history_labels": [[1, 1, 0, 1], [], [0]]},
        schema={"history": pl.List(pl.UInt32), "history_labels": pl.List(pl.UInt8)},
    )
    past, liked = read_before(lists.lazy(), SEEN.items, 2)
    assert past.tolist() == [[3, 1], [PAD, PAD], [PAD, PAD]]
    assert liked.tolist() == [[False, True], [False, False], [False, False]]


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=6), max_size=5))
def test_a_history_is_the_tail_of_what_is_known(histories: list[list[tuple[int, bool]]]) -> None:
    lists = pl.DataFrame(
        {
            "history": [[item for item, _ in one] for one in histories],
            "history_labels": [[int(label) for _, label in one] for one in histories],
        },
        schema={"history": pl.List(pl.UInt32), "history_labels": pl.List(pl.UInt8)},
    )
    past, liked = read_before(lists.lazy(), SEEN.items, 3)
    for row, one in enumerate(histories):
        due = [(item, label) for item, label in one if SEEN.items[item]][-3:]
        read = past[row] != PAD
        assert list(zip(past[row][read].tolist(), liked[row][read].tolist(), strict=True)) == due


def test_cold_rows_are_counted_of_what_is_held_out() -> None:
    codes = Attribute("age group", "user", np.array([[1], [COLD]]), 3)
    rows = pl.DataFrame({"part": ["train", "valid", "test"], "user": [1, 1, 0], "item": [0, 0, 0]})
    assert cold_rows(rows, Fields((codes,), np.zeros((3, 1)), np.zeros((3, 1), bool))) == {
        "cold_age_group_rows": 1
    }


def test_an_owner_without_a_vector_has_the_number_beyond_the_last() -> None:
    assert rows_of_owners(np.array([5, 2]), np.array([2, 5, 0, 9, 2])).tolist() == [1, 0, 2, 2, 1]
