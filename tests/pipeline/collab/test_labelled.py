"""Labelled pairs: parts, cold users and items, and the pairs table that every baseline hands back."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.collab import labelled
from pipeline.collab.labelled import (
    Labelled,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    held_out,
    inner,
    known,
    mean_where_cold,
    part_of,
    rows_of,
    sigmoid,
    train_and_valid,
)
from pipeline.collab.popularity import PopularitySettings, popularity
from pipeline.schema import Pairs
from pipeline.stage import Verdict
from tests.toy_pairs import HAND, SPLIT, draft_of, examples, store_with


def lists(rows: Labelled) -> list[list[int]]:
    return [column.tolist() for column in rows]


def test_a_part_keeps_the_order_of_the_examples() -> None:
    assert lists(part_of(examples(HAND), "valid")) == [[0, 1, 2, 3], [0, 1, 2, 1], [1, 0, 1, 0]]


def test_parts_are_what_a_model_may_learn_from_and_choose_by() -> None:
    train, valid = train_and_valid(examples(HAND))
    assert (len(train.label), len(valid.label)) == (6, 4)


def test_no_training_rows_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="no training rows; give `train` a larger share"):
        train_and_valid(examples(row for row in HAND if row[0] != "train"))


@pytest.mark.parametrize("kept", [(), (1,), (0,)])
def test_validation_of_fewer_than_two_classes_is_an_error(kept: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not hold both liked and disliked"):
        train_and_valid(examples(row for row in HAND if row[0] != "valid" or row[3] in kept))


def test_known_are_those_with_training_rows() -> None:
    seen = known(examples(HAND))
    assert seen.users.tolist() == [True, True, True, False]
    assert seen.items.tolist() == [True, True, True, False, False]


def test_items_seen_in_histories_only_have_a_place_too() -> None:
    assert len(known(examples(HAND, history=(9,))).items) == 10


def test_what_baselines_read_of_a_split_is_not_its_histories(tmp_path: Path) -> None:
    split = store_with(examples(HAND, history=(9,)), tmp_path).get("ctr/split", SPLIT)
    rows = rows_of(split)
    assert rows.columns == ["part", "row", "user", "item", "label"]
    assert rows.equals(split.table("examples").select(rows.columns))
    whole, scanned = known(split.table("examples")), known(split.scan("examples"))
    assert [one.tolist() for one in scanned] == [one.tolist() for one in whole]
    assert len(scanned.items) == 10


def test_an_empty_split_knows_nobody() -> None:
    seen = known(examples([]).cast({"user": pl.UInt32}))
    assert (len(seen.users), len(seen.items)) == (0, 0)


def test_pairs_hold_every_held_out_row_and_obey_the_schema() -> None:
    frame = examples(HAND)
    pairs = Pairs.validate(as_pairs(frame, "mine", np.arange(8.0), np.full(8, 0.5), seed=4), cast=True)
    assert pairs["row"].to_list() == list(range(6, 14))
    assert pairs["score"].to_list() == list(range(8))
    assert pairs.select("track", "method", "variant", "seed").unique().row(0) == ("ctr", "mine", "default", 4)


def test_scores_without_probability_leave_it_null() -> None:
    assert as_pairs(examples(HAND), "mine", np.zeros(8), None)["probability"].null_count() == 8


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(broken: float) -> None:
    with pytest.raises(ValueError, match="mine: 1 scores are not finite"):
        as_pairs(examples(HAND), "mine", np.r_[np.zeros(7), broken], None)


def test_inner_products_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    users, items = draw.normal(size=(5, 3)).astype(np.float32), draw.normal(size=(4, 3)).astype(np.float32)
    user, item = draw.integers(5, size=20), draw.integers(4, size=20)
    whole = inner(users, items, user, item)
    assert whole == pytest.approx((users[user] * items[item]).sum(1), rel=1e-5)
    monkeypatch.setattr(labelled, "BLOCK", 3)
    assert inner(users, items, user, item).tolist() == whole.tolist()


def test_the_mean_of_the_seen_stands_in_for_the_cold() -> None:
    rows = np.array([[1.0, 2.0], [9.0, 9.0], [3.0, 6.0]], dtype=np.float32)
    filled = mean_where_cold(rows, np.array([True, False, True]))
    assert filled.tolist() == [[1, 2], [2, 4], [3, 6]]
    assert filled.dtype == np.float32


def test_the_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0, 0.5, 1]


def test_cold_users_and_items_are_counted() -> None:
    assert cold_counts(examples(HAND), known(examples(HAND))) == {
        "cold_users": 1,
        "cold_items": 1,
        "test_rows_of_cold_users": 2,
        "test_rows_of_cold_items": 2,
    }


def verdict_on(pairs: pl.DataFrame, folder: Path) -> Verdict:
    split = store_with(examples(HAND), folder).get("ctr/split", SPLIT)
    draft = draft_of(popularity, folder, {"pairs": pairs})
    return every_pair_scored_once(draft, {"split": split}, PopularitySettings())


def test_whole_pairs_pass_the_check(tmp_path: Path) -> None:
    pairs = as_pairs(examples(HAND), "mine", np.zeros(8), None)
    assert verdict_on(pairs, tmp_path) == Verdict(True, "", {"held_out_rows": 8})


@pytest.mark.parametrize("fault", ["missing", "twice", "other", "none"])
def test_a_missing_doubled_or_foreign_row_fails_the_check(fault: str, tmp_path: Path) -> None:
    good = as_pairs(examples(HAND), "good", np.zeros(8), None)
    bad = good.with_columns(method=pl.lit("bad"))
    planted = {
        "missing": pl.concat([good, bad.head(7)]),
        "twice": pl.concat([good, bad.head(7), bad.head(1)]),
        "other": pl.concat([good, bad.with_columns(pl.col("row") - 1)]),
        "none": good.clear(),
    }
    verdict = verdict_on(planted[fault], tmp_path)
    assert not verdict.passed
    assert verdict.description == ("every method" if fault == "none" else "bad")


def test_held_out_rows_are_those_outside_training() -> None:
    assert held_out(examples(HAND))["part"].unique().sort().to_list() == ["test", "valid"]
