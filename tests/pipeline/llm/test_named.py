"""Which candidate a freely written answer names."""

import math

import polars as pl
import pytest

from pipeline.llm.choices import Choices
from pipeline.llm.named import named_in, shares_named

TITLES = ["Alien", "Aliens", "It", "Heat", "Star Trek: First Contact", "Star Trek"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (' "Heat"', 3),
        ("the movie is HEAT.", 3),
        ("\n Aliens\nHeat", 1),
        ("Alien", 0),
        ("Star Trek: First Contact", 4),
        ("Star Trek", 5),
        ("Alien, Aliens", None),
        ("waiting for heaters", None),
        ("It or Heat", None),
        ("", None),
    ],
)
def test_a_title_counts_where_it_alone_stands_whole_in_the_first_line(text: str, place: int | None) -> None:
    assert named_in(text, TITLES) == place


def test_valid_ratio_and_hits_of_the_valid_by_hand() -> None:
    asked = Choices([[1]] * 4, [[[1]]] * 4, [2, 0, 1, 3])
    found = shares_named([2, None, 0, None], asked, pl.Series(["test", "test", "test", "valid"]))
    assert found == {
        "test_valid_ratio": pytest.approx(2 / 3, abs=1e-6),
        "test_hr_1_of_valid": 0.5,
        "valid_valid_ratio": 0,
    }
    assert not any(math.isnan(share) for share in found.values())
