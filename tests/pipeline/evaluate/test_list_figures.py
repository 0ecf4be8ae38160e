"""Figures of short lists, against tables written by hand: where the paper's code says another thing."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate import ranking
from pipeline.evaluate.list_figures import CUTS, list_figures

TWO, THREE = 1 / math.log2(3), 1 / math.log2(4)  # what ranks two and three are worth
ONE_OF_TWO = 1 / (1 + TWO)  # NDCG of two liked items, the first in front, the other out of sight
BY_HAND = {  # labels in predicted order -> (ndcg_3, map_3), (ndcg_3_as_coded, map_3_as_coded, click_3_as_coded)
    (1, 0, 0, 0): ((1.0, 1.0), (1.0, 1.0, 1.0)),
    (0, 1, 0, 0): ((TWO, 0.5), (TWO, 0.5, 1.0)),
    (1, 0, 0, 1): ((ONE_OF_TWO, 0.5), (ONE_OF_TWO, 1.0, 1.0)),  # the second is below the cut: perfect, as coded
    (0, 1, 1, 0): (((TWO + THREE) * ONE_OF_TWO, 7 / 12), ((TWO + THREE) * ONE_OF_TWO, 7 / 12, 2.0)),
    (0, 0, 0, 1): ((0.0, 0.0), (0.0, 0.0, 0.0)),
    (0, 0, 0, 0): ((math.nan, math.nan), (0.0, 0.0, 0.0)),  # no liked item: left out, or counted as missed
}
CLEAN, CODED = ("ndcg_3", "map_3"), ("ndcg_3_as_coded", "map_3_as_coded", "click_3_as_coded")


@pytest.mark.parametrize(("labels", "expected"), BY_HAND.items())
def test_one_list_by_hand(labels, expected) -> None:
    found = list_figures([labels])
    clean, coded = expected
    assert [found[name] for name in CLEAN] == pytest.approx(clean, nan_ok=True)
    assert [found[name] for name in CODED] == pytest.approx(coded)


def test_lists_without_a_liked_item_lower_the_coded_means_alone() -> None:
    found = list_figures([(1, 0), (0, 0), (0, 0), (0, 0)])
    assert {name: found[name] for name in (*CLEAN, *CODED)} == dict.fromkeys(CLEAN, 1.0) | dict.fromkeys(
        CODED, 0.25
    )


def test_no_lists_have_no_figure() -> None:
    assert all(math.isnan(value) for value in list_figures([]).values())


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=6))
def test_the_clean_figures_are_those_of_the_other_tracks_and_the_coded_map_is_no_lower(lists) -> None:
    found = list_figures(lists)
    rows = [
        (user, rank, 1.0, label == 1) for user, own in enumerate(lists) for rank, label in enumerate(own, 1)
    ]
    table = ranking.figures(pl.DataFrame(rows, schema=["user", "rank", "score", "target"], orient="row"))
    for kind in ("ndcg", "map"):
        expected = table[f"{kind}_5"].to_numpy()
        assert found[f"{kind}_5"] == pytest.approx(expected.mean() if len(expected) else math.nan, nan_ok=True)
    with_liked = sum(map(any, lists)) / len(lists)
    for cut in CUTS:
        assert found[f"map_{cut}_as_coded"] >= np.nan_to_num(found[f"map_{cut}"]) * with_liked - 1e-12
