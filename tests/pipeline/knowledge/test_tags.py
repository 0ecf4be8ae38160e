"""Tags: read from what models write, counted, merged, given to items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.knowledge.tags import candidates, frequent, near_ones, read_tags, vocabulary, voted


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ("Action, Crime; heist", ["action", "crime", "heist"]),
        ("1. Action\n2) Crime\n- heist movie", ["action", "crime", "heist movie"]),
        ("Tags: #Action #Crime, ACTION", ["action", "crime"]),
        ('"Bank robbery" and (cat-and-mouse)', ["bank robbery", "cat-and-mouse"]),
        ("动作片\u3001犯罪片\uff0c抢劫", ["动作片", "犯罪片"]),
        ("This is a film about two men who meet in a diner, war", ["war"]),
        ("", []),
        ("a, b, ?!", []),
    ],
)
def test_tags_are_read_from_what_models_write(answer: str, tags: list[str]) -> None:
    assert read_tags(answer) == tags


@given(st.text(max_size=200))
def test_a_tag_is_short_lower_and_stands_once(answer: str) -> None:
    found = read_tags(answer)
    assert len(found) == len(set(found))
    assert all(3 <= len(tag) <= 40 and "\n" not in tag and tag == tag.strip() for tag in found)


def test_frequent_tags_stand_by_count_then_by_name() -> None:
    answers = [["war", "love"], ["war", "art"], ["love", "art"], ["war"], ["once"]]
    assert frequent(answers, 1) == [("war", 3), ("art", 2), ("love", 2)]
    assert frequent(answers, 2) == [("war", 3)]


def angles(*degrees: float) -> np.ndarray:
    turned = np.deg2rad(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def test_a_tag_that_means_the_same_is_merged_into_the_more_frequent() -> None:
    found = [("war", 9), ("wars", 5), ("love", 4), ("warfare", 3)]
    held = vocabulary(found, angles(0, 5, 90, 12), alike=0.97)
    assert held.tags == ("war", "love")
    assert held.counts == (9, 4)
    assert held.merged == {"wars": "war", "warfare": "war"}


def test_merging_looks_at_kept_tags_only() -> None:
    """15 degrees from the first, 10 from the second, which is itself merged: it stays."""
    found = [("war", 9), ("wars", 5), ("warfare", 3)]
    held = vocabulary(found, angles(0, 8, 16), alike=float(np.cos(np.deg2rad(10))))
    assert held.tags == ("war", "warfare")


def test_an_item_gets_every_tag_near_one_of_its_own_in_the_vocabularys_order() -> None:
    every = angles(0, 90, 180, 100)
    assert near_ones(angles(95, 182), every, 0.9) == [1, 2, 3]
    assert near_ones(angles()[:0], every, 0.9) == []


def test_candidates_are_the_nearest_tags() -> None:
    assert candidates(angles(80)[0], angles(0, 90, 180, 100), 2) == [1, 3]


def test_votes_count_allowed_tags_once_an_answer_and_merged_ones_for_their_tag() -> None:
    answers = [["wars", "war", "love"], ["love", "art"], ["war"], ["war"]]
    assert voted(answers, ["love", "war"], {"wars": "war"}) == ["war", "love"]
    assert voted([], ["love"], {}) == []
