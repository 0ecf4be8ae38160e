"""Means: by hand, with the weight that validation chooses, on the real split to three decimals."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.collab.labelled import Known, known, part_of
from pipeline.collab.means import (
    SCORERS,
    Means,
    MeansSettings,
    item_user_mean,
    logit,
    means,
    search,
    shrunk_means,
)
from pipeline.evaluate.pointwise import auc, auc_by_user
from tests.toy_pairs import HAND, examples, make, passed

LABELS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 1)), min_size=1, max_size=40)


def by_hand(weight: float) -> Means:
    frame = examples(HAND)
    return shrunk_means(part_of(frame, "train"), known(frame), weight)


def test_means_are_pulled_to_the_global_mean_by_weight_rows() -> None:
    found = by_hand(weight=1)
    assert found.all == 0.5
    assert found.items == pytest.approx([(2 + 0.5) / 4, 0.5 / 3, 1.5 / 2, 0.5, 0.5])
    assert found.users == pytest.approx([(2 + 0.5) / 4, (1 + 0.5) / 3, 0.5 / 2, 0.5])


def test_more_weight_pulls_harder() -> None:
    assert abs(by_hand(50).items - 0.5).max() < abs(by_hand(1).items - 0.5).max()


def test_item_and_user_add_in_logits() -> None:
    found = Means(np.array([0.8]), np.array([0.6]), 0.7)
    chance = item_user_mean(found, np.array([0]), np.array([0]))
    odds = (0.8 / 0.2) * (0.6 / 0.4) / (0.7 / 0.3)
    assert chance == pytest.approx([odds / (1 + odds)])


def test_a_cold_pair_has_the_global_mean() -> None:
    found = by_hand(3)
    for score in SCORERS.values():
        assert score(found, np.array([3]), np.array([4])) == pytest.approx([0.5])


@given(rows=LABELS, weight=st.floats(0.01, 100))
def test_every_probability_is_inside_0_and_1_and_finite(rows: list, weight: float) -> None:
    frame = examples([("train", *row) for row in rows])
    found = shrunk_means(part_of(frame, "train"), Known(np.ones(6, bool), np.ones(8, bool)), weight)
    user, item = (each.ravel() for each in np.meshgrid(np.arange(6), np.arange(8)))
    for score in SCORERS.values():
        chance = score(found, user, item)
        assert ((chance > 0) & (chance < 1)).all()
        assert np.isfinite(logit(chance)).all()


def test_the_weight_with_the_best_validation_auc_is_chosen() -> None:
    # Item 0: 1 like of 1 row; item 1: 5 of 6; validation likes item 1 better, so a heavy hand is right.
    rows = [("train", 0, 0, 1), *[("train", u, 1, int(u > 0)) for u in range(6)], *[("train", 7, 2, 0)] * 4]
    frame = examples([*rows, ("valid", 0, 0, 0), ("valid", 0, 1, 1)])
    tried = search(part_of(frame, "train"), part_of(frame, "valid"), known(frame), (0.1, 10.0))
    item = tried.filter(method="item_mean").sort("weight")
    assert item["valid_auc"].to_list() == [0, 1]
    assert item["chosen"].to_list() == [False, True]
    assert item["candidate"].to_list() == ["weight=0.1", "weight=10.0"]


def test_the_smallest_of_equal_weights_is_chosen() -> None:
    frame = examples(HAND)
    tried = search(part_of(frame, "train"), part_of(frame, "valid"), known(frame), (1.0, 2.0, 3.0))
    assert tried.filter("chosen", method="global_mean")["weight"].to_list() == [1]
    assert tried.filter("chosen").height == 3


def test_weights_are_sorted_and_above_zero() -> None:
    assert MeansSettings(weights=(5, 1)).weights == (1, 5)
    with pytest.raises(ValidationError, match="above 0"):
        MeansSettings(weights=(0, 1))
    with pytest.raises(ValidationError):
        MeansSettings(weights=())


def test_the_stage_scores_three_methods_with_probabilities(tmp_path: Path) -> None:
    found = make(means, examples(HAND), tmp_path)
    pairs = found.table("pairs")
    assert pairs["method"].unique().sort().to_list() == ["global_mean", "item_mean", "item_user_mean"]
    assert pairs["score"].equals(pairs["probability"].alias("score"))
    assert pairs.filter(method="global_mean")["score"].unique().to_list() == [0.5]
    assert passed(found) == {"every_pair_scored_once": True}
    assert found.metrics["cold_users"] == 1
    assert found.table("search").height == 3 * 11


def test_the_stage_records_the_chosen_weight_and_its_auc(tmp_path: Path) -> None:
    found = make(means, examples(HAND), tmp_path)
    chosen = found.table("search").filter("chosen", method="item_mean")
    assert chosen["candidate"].to_list() == [f"weight={found.metrics['item_mean_weight']}"]
    assert chosen["valid_auc"].to_list() == [found.metrics["item_mean_valid_auc"]]


def test_test_labels_change_no_prediction(tmp_path: Path) -> None:
    flipped = [(part, u, i, 1 - label if part == "test" else label) for part, u, i, label in HAND]
    first = make(means, examples(HAND), tmp_path / "a").table("pairs")
    second = make(means, examples(flipped), tmp_path / "b").table("pairs")
    assert first["label"].to_list() != second["label"].to_list()
    assert first.drop("label").equals(second.drop("label"))


@pytest.mark.shared_data
def test_the_real_split_gives_the_known_figures(shared_data: Path) -> None:
    from benchmarks.collm_ml1m import load

    frame = load(shared_data / "collm-ml1m")
    train, valid, test = (part_of(frame, part) for part in ("train", "valid", "test"))
    tried = search(train, valid, known(frame), MeansSettings().weights).filter("chosen")
    assert dict(tried.select("method", "weight").iter_rows()) == {
        "global_mean": 0.5,
        "item_mean": 3,
        "item_user_mean": 3,
    }
    assert dict(tried.select("method", pl.col("valid_auc").round(4)).iter_rows())["item_user_mean"] == 0.7342
    found = shrunk_means(train, known(frame), 3)
    scores = {name: score(found, test.user, test.item) for name, score in SCORERS.items()}
    by_user = auc_by_user(test.user, test.label, scores["item_mean"])["auc"]
    assert round(auc(test.label, scores["item_mean"]), 4) == 0.7089
    assert round(auc(test.label, scores["item_user_mean"]), 4) == 0.7326
    assert (round(by_user.mean(), 4), by_user.count()) == (0.6786, 224)
