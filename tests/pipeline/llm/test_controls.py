"""Shuffled controls: how much of them changed, and that one which changes little is told."""

from types import SimpleNamespace

import polars as pl
import pytest

from pipeline.llm import controls

PLAIN = pl.DataFrame(
    {
        "row": range(6),
        "form": [1] * 6,
        "part": ["train"] * 2 + ["test"] * 4,
        "prompt": ["a", "b", "c", "d", "e", "f"],
        "vectors": [[i] for i in range(6)],
    }
)


def with_prompts(*prompts: str) -> pl.DataFrame:
    return PLAIN.with_columns(prompt=pl.Series(prompts))


def test_shares_are_of_all_rows_and_of_each_part_that_has_some() -> None:
    found = controls.shares_changed(with_prompts("b", "a", "c", "d", "e", "x").reverse(), PLAIN)
    assert found == {"share_changed": 0.5, "train_share_changed": 1.0, "test_share_changed": 0.25}


def test_a_row_that_the_plain_prompts_lack_has_changed() -> None:
    assert controls.shares_changed(PLAIN, PLAIN.head(5))["test_share_changed"] == 0.25


def test_the_same_words_with_other_vectors_have_changed() -> None:
    other = PLAIN.with_columns(vectors=pl.Series([[0], [1], [2], [3], [9], []]))
    assert controls.shares_changed(other, PLAIN)["test_share_changed"] == 0.5


def test_no_prompts_have_no_shares() -> None:
    assert controls.shares_changed(PLAIN.clear(), PLAIN) == {}


def test_slots_are_told_one_by_one() -> None:
    own = {"user_code": ["1", "1", "2", "3"], "item_code": ["7", "8", "7", "8"]}
    shuffled = {"user_code": ["1", "2", "1", "1"], "item_code": ["8", "7", "8", "7"]}
    found = controls.slot_shares_changed(shuffled, own)
    assert found == {"user_code_share_changed": 0.75, "item_code_share_changed": 1.0}
    assert controls.slot_shares_changed({"x.vector": [1]}, {"x.vector": [2]}) == {"x_share_changed": 1.0}
    assert controls.slot_shares_changed({"user_code": []}, {"user_code": []}) == {}


@pytest.mark.parametrize(
    ("metrics", "passed", "words"),
    [
        ({"train_rows": 5}, True, "no shuffled control"),
        ({"share_changed": 0.9, "test_share_changed": 0.5}, True, "changed by the shuffle: all 90%, test 50%"),
        (
            {"share_changed": 0.9, "test_share_changed": 0.49},
            False,
            "changed by the shuffle: all 90%, test 49%",
        ),
        ({"share_changed": 0.9, "user_code_share_changed": 0.0}, False, "all 90%, user_code 0%"),
    ],
)
def test_a_part_that_mostly_stays_as_it_was_is_told(metrics: dict, passed: bool, words: str) -> None:
    verdict = controls.prompts_really_change(SimpleNamespace(metrics=metrics), {}, None)  # type: ignore[arg-type]
    assert verdict.passed == passed
    assert words in verdict.description


def test_the_check_warns_and_does_not_stop() -> None:
    assert [check.blocking for check in controls.CONTROL_CHECKS] == [False]
