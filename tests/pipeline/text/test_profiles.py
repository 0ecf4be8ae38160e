"""Keyword profiles, by hand."""

from math import log

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.profiles import keywords, profile, profiles, shares

ITEMS = pl.DataFrame(
    {
        "item": [0, 1, 2, 3, 4, 5, 6, 7],
        "title": [
            "Star Wars (1977)",
            "Star Trek (1979)",
            "Lone Star",
            "Alien",
            "Heat",
            "Comedy of Errors",
            "It",
            "Brazil",
        ],
        "categories": [
            ["Sci-Fi", "Action"],
            ["Sci-Fi"],
            ["Drama"],
            ["Sci-Fi", " "],
            ["Action"],
            ["Comedy"],
            None,
            ["Comedy"],
        ],
    }
)
KNOWN = keywords(ITEMS)
CATALOGUE = shares(range(8), KNOWN)


def test_an_items_keywords_are_its_categories_and_the_longer_words_of_its_title() -> None:
    assert KNOWN[0] == {"Sci-Fi", "Action", "star", "wars"}
    assert KNOWN[3] == {"Sci-Fi", "alien"}  # an empty category is none
    assert KNOWN[5] == {"Comedy", "errors"}  # a word that is a category already counts once
    assert KNOWN[6] == frozenset()  # no categories, and its title is short


def test_shares_are_over_all_items_given() -> None:
    assert CATALOGUE["Sci-Fi"] == 3 / 8
    assert CATALOGUE["alien"] == 1 / 8
    assert shares([6], KNOWN) == {}


def test_what_a_past_has_more_of_than_the_catalogue_comes_first() -> None:
    # of 4 items: Sci-Fi 3 (3 log 2 = 2.08), star 2 (2 log 4/3 = .58), Action 2 (2 log 2 = 1.39)
    past = [0, 1, 3, 4]
    weights = {"Sci-Fi": 3 * log(2), "Action": 2 * log(2), "star": 2 * log(4 / 3)}
    assert sorted(weights, key=lambda word: -weights[word]) == ["Sci-Fi", "Action", "star"]
    assert profile(past, KNOWN, CATALOGUE, 9) == ["Sci-Fi", "Action", "star"]
    assert profile(past, KNOWN, CATALOGUE, 2) == ["Sci-Fi", "Action"]


def test_one_item_is_no_habit_and_the_catalogues_own_share_is_none() -> None:
    assert profile([0, 5], KNOWN, CATALOGUE, 9) == []
    assert profile(range(8), KNOWN, CATALOGUE, 9) == []
    assert profile([], KNOWN, CATALOGUE, 9) == []


def test_equal_weights_stand_by_count_then_alphabet() -> None:
    known = {0: frozenset("ab"), 1: frozenset("abc"), 2: frozenset("c")}
    assert profile([0, 1], known, {"a": 0.5, "b": 0.5, "c": 0.5}, 9) == ["a", "b"]
    assert profile([1, 1], known, {"b": 0.5, "a": 0.5, "c": 0.25}, 9) == ["c", "a", "b"]


def test_an_item_used_twice_counts_twice() -> None:
    assert profile([0, 0, 6, 6], KNOWN, CATALOGUE, 2) == ["wars", "Action"]  # 2 log 4, then 2 log 2


def test_a_word_that_the_catalogue_has_not_is_left_out() -> None:
    assert profile([0, 0], KNOWN, {"star": 0.1}, 9) == ["star"]


def test_one_list_for_each_past_in_their_order() -> None:
    pasts = pl.Series([[0, 1, 3, 4], [], [5, 7, 6]], dtype=pl.List(pl.UInt32))
    found = profiles(pasts, KNOWN, CATALOGUE, 1)
    assert found.to_list() == [["Sci-Fi"], [], ["Comedy"]]
    assert profiles(pasts.clear(), KNOWN, CATALOGUE, 1).dtype == pl.List(pl.String)


@given(past=st.lists(st.integers(0, 7), max_size=12), turn=st.randoms())
def test_the_order_of_a_past_changes_nothing_and_each_word_is_of_it(past: list[int], turn) -> None:
    found = profile(past, KNOWN, CATALOGUE, 5)
    assert len(found) == len(set(found)) <= 5
    assert all(sum(word in KNOWN[item] for item in past) >= 2 for word in found)
    turn.shuffle(past)
    assert profile(past, KNOWN, CATALOGUE, 5) == found
