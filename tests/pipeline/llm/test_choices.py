"""Lists that a language model chooses from: what is learnt from, by hand; orders; and every guard with its
fault."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.llm import choices as module
from pipeline.llm.choices import (
    Choices,
    Lists,
    choice_checks,
    drawn,
    every_list_in_order,
    figures,
    last_steps,
    listed,
    nothing_of_the_future,
    one_prompt_a_list,
    rankings_of,
    scores_differ,
    sizes,
    smuggled,
    stored,
    target_listed_once,
    together,
    with_other_targets,
)
from pipeline.schema import Candidates, Rankings
from tests.tiny_lm import make_tokenizer
from tests.toy_next import toy
from tests.toy_ranked import queries

WORLD = toy([[0, 1, 2, 3, 4], [5, 1, 6, 7], [8, 9, 10]], 30, new=[[11, 12]])


def candidates(rows: list[tuple[str, str, int, int, int, int]]) -> pl.DataFrame:
    """Rows of (list, part, user, place, item, label)."""
    return Candidates.validate(pl.DataFrame(rows, schema=Candidates.column_names(), orient="row"), cast=True)


def of(name: str, part: str, user: int, items: list[int], target: int) -> list[tuple]:
    return [(name, part, user, place, item, int(item == target)) for place, item in enumerate(items, 1)]


LISTS = candidates(
    [
        *of("random_10", "test", 0, [7, 4, 9], 4),
        *of("random_10", "valid", 0, [3, 8], 3),
        *of("random_20", "test", 1, [7, 2], 7),
    ]
)


def test_the_last_training_item_is_the_target_and_what_came_before_the_history() -> None:
    assert last_steps(WORLD.events).rows() == [("train", 0, 2, [0, 1]), ("train", 1, 1, [5])]


def test_lists_to_learn_from_hold_the_target_once_and_nothing_used_in_training() -> None:
    found = drawn(WORLD.events, "random_10", None, seed=1)
    assert found.rows["user"].to_list() == [0, 1]
    learnt = {0: {0, 1, 2}, 1: {5, 1}}
    for user, target in ((0, 2), (1, 1)):
        own = found.candidates.filter(part="train", user=user)
        assert own.filter(label=1)["item"].to_list() == [target]
        others = set(own.filter(label=0)["item"])
        assert not others & learnt[user]
        assert own["place"].to_list() == list(range(1, own.height + 1))


def test_what_is_used_later_may_stand_among_the_others() -> None:
    walk = toy([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7, 8]], 9)
    others = drawn(walk.events, "random_10", None, 1).candidates.filter(user=0, label=0)["item"]
    assert set(others) == {3, 4, 5, 6}  # learnt from by anybody, and not by user 0, who used 3 and 4 later


def test_as_many_users_are_learnt_from_as_are_asked_for_and_by_seed() -> None:
    walks = toy([[i, i + 1, i + 2, i + 3] for i in range(20)], 30)
    picks = {tuple(drawn(walks.events, "random_10", 5, seed).rows["user"]) for seed in range(4)}
    assert {len(pick) for pick in picks} == {5}
    assert len(picks) > 1


def test_stored_lists_come_with_their_queries_history_and_one_name_only() -> None:
    asked = queries([("test", 0, [0, 1, 2, 3], [4]), ("valid", 0, [0, 1, 2], [3]), ("test", 1, [5], [7])])
    found = stored(asked, LISTS, "random_10")
    assert sorted(found.rows.select("part", "user", "item", "history").rows()) == [
        ("test", 0, 4, [0, 1, 2, 3]),
        ("valid", 0, 3, [0, 1, 2]),
    ]
    assert set(found.candidates["list"]) == {"random_10"}
    with pytest.raises(ValueError, match="no stored list 'random_30'; there are random_10, random_20"):
        stored(asked, LISTS, "random_30")


def test_rows_are_numbered_train_first() -> None:
    asked = queries([("test", 0, [0, 1, 2, 3], [4]), ("valid", 0, [0, 1, 2], [3]), ("test", 1, [5], [7])])
    found = together(stored(asked, LISTS, "random_10"), drawn(WORLD.events, "random_10", None, 1))
    assert found.rows.select("row", "part", "user").rows() == [
        (0, "train", 0),
        (1, "train", 1),
        (2, "valid", 0),
        (3, "test", 0),
    ]
    assert listed(found.rows, found.candidates).to_list()[2:] == [[3, 8], [7, 4, 9]]


# --- scores


ROWS = pl.DataFrame({"part": ["valid", "test"], "user": [0, 0]}, schema_overrides={"user": pl.UInt32})
OUT: Any = SimpleNamespace(stage=SimpleNamespace(method="llara"), variant="hybrid", seed=3)
OWN = LISTS.filter(list="random_10")


def test_orders_are_those_of_the_scores_the_unscored_last() -> None:
    found = rankings_of(ROWS, OWN, [[-2.0, -1.0], [-5.0, -1.5, None]], OUT)
    Rankings.validate(found)
    assert found.select("track", "method", "variant", "seed").unique().rows() == [
        ("rerank/random_10", "llara", "hybrid", 3)
    ]
    assert found.sort("part", "rank").select("part", "user", "rank", "item", "score", "target").rows() == [
        ("test", 0, 1, 4, -1.5, True),
        ("test", 0, 2, 7, -5.0, False),
        ("test", 0, 3, 9, None, False),
        ("valid", 0, 1, 8, -1.0, False),
        ("valid", 0, 2, 3, -2.0, True),
    ]


def test_figures_by_hand_and_equal_scores_count_against_the_target() -> None:
    scores = [torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-4.0, -4.0]), torch.tensor([-9.0, -8.0, -7.0])]
    asked = Choices([[1]] * 3, [[[1]]] * 3, [0, 1, 0])
    found = figures(scores, asked)
    assert found["hr_1"] == pytest.approx(1 / 3)
    assert found["ndcg_10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(4)) / 3)
    assert found["loss"] == pytest.approx((1 + 4 + 9) / 3)


def test_no_lists_have_no_figure() -> None:
    assert np.isnan(figures([], Choices([], [], []))["ndcg_10"])


def test_tokens_are_counted_once_a_prompt() -> None:
    asked = Choices([[1, 2, 3], [4]], [[[5], [6, 7]], [[8, 9]]], [0, 0])
    assert asked.tokens() == 4 + 5
    assert asked.take([1]).tokens() == 3


# --- guards


class Held:
    """A draft or an input with tables."""

    seed, variant = 1, "hybrid"

    def __init__(self, **tables: pl.DataFrame) -> None:
        self.tables = tables

    def read(self, name: str) -> pl.DataFrame:
        return self.tables[name]

    table = read


ASKED = queries([("test", 0, [0, 1, 2, 3], [4]), ("valid", 0, [0, 1, 2], [3])])
WHOLE = together(stored(ASKED, LISTS, "random_10"), drawn(WORLD.events, "random_10", None, 1))
SETTINGS = SimpleNamespace(lists="random_10", max_tokens=9)
INPUTS = {"split": Held(events=WORLD.events, queries=ASKED), "candidates": Held(candidates=LISTS)}


def asked_of(lists: Lists = WHOLE, *_: Any) -> pl.DataFrame:
    told = listed(lists.rows, lists.candidates).cast(pl.List(pl.String)).list.join(", ")
    return lists.rows.select("row", "part", "user", "item", shown="history").with_columns(
        prompt=told, tokens=pl.lit(9), slots=pl.lit([], dtype=pl.List(pl.UInt32)), items_dropped=pl.lit(0)
    )


def judged(check: Any, prompts: pl.DataFrame | None = None, own: pl.DataFrame = WHOLE.candidates) -> bool:
    held: Any = Held(choice_prompts=asked_of() if prompts is None else prompts, candidates=own)
    return check(held, INPUTS, SETTINGS).passed


def planted(column: str, value: Any, part: str = "test") -> pl.DataFrame:
    frame = asked_of()
    return frame.with_columns(
        pl.when(pl.col("part") == part)
        .then(pl.lit(value, dtype=frame.schema[column]))
        .otherwise(column)
        .alias(column)
    )


def test_sound_lists_pass_every_guard() -> None:
    for check in (one_prompt_a_list, target_listed_once, nothing_of_the_future):
        assert judged(check)


def test_a_list_left_out_or_changed_fails() -> None:
    assert not judged(one_prompt_a_list, asked_of().filter(pl.col("part") != "valid"))
    assert not judged(one_prompt_a_list, own=WHOLE.candidates.filter(pl.col("part") != "valid"))
    assert not judged(one_prompt_a_list, pl.concat([asked_of(), asked_of().tail(1)]))


def test_a_target_that_is_not_listed_or_another_fails() -> None:
    assert not judged(target_listed_once, planted("item", 9))
    other = pl.when(pl.col("item") == 9).then(pl.lit(7)).otherwise("item").cast(pl.UInt32)
    assert not judged(target_listed_once, own=WHOLE.candidates.with_columns(item=other))


def test_an_item_used_in_training_among_the_others_fails() -> None:
    other = (pl.col("part") == "train") & (pl.col("user") == 0) & (pl.col("label") == 0) & (pl.col("place") < 3)
    known = pl.when(other).then(pl.lit(1, pl.UInt32)).otherwise("item")
    assert not judged(target_listed_once, own=WHOLE.candidates.with_columns(item=known))


@pytest.mark.parametrize("shown", [[2, 3, 4], [0, 1], [3, 2]])
def test_a_history_that_is_not_the_end_of_the_past_fails(shown: list[int]) -> None:
    assert not judged(nothing_of_the_future, planted("shown", shown))


def test_a_shorter_end_of_the_past_or_none_of_it_passes() -> None:
    assert judged(nothing_of_the_future, planted("shown", [2, 3]))
    assert judged(nothing_of_the_future, planted("shown", []))


def test_a_training_history_that_shows_its_target_fails() -> None:
    assert not judged(nothing_of_the_future, planted("shown", [0, 1, 2], part="train"))


CHECKS = {check.name: check.run for check in choice_checks(lambda *_: WHOLE, asked_of)}


def test_every_guard_of_a_prompts_stage_blocks() -> None:
    assert all(check.blocking for check in choice_checks(lambda *_: WHOLE, asked_of))
    assert set(CHECKS) == {
        "targets_change_no_prompt",
        "one_prompt_a_list",
        "target_listed_once",
        "nothing_of_the_future",
        "inside_the_budget",
        "nothing_smuggled_in",
    }


def test_other_targets_are_other_items_of_the_same_list() -> None:
    turned = with_other_targets(WHOLE)
    both = WHOLE.rows.join(turned.rows, on=["part", "user"])
    assert (both["item"] != both["item_right"]).all()
    assert turned.candidates.filter(label=1).height == WHOLE.rows.height
    assert turned.candidates.drop("label").equals(
        WHOLE.candidates.sort("list", "part", "user", "place").drop("label")
    )


def test_a_prompt_that_hangs_on_its_target_fails() -> None:
    def telling(lists: Lists, *_: Any) -> pl.DataFrame:
        return asked_of(lists).with_columns(prompt=pl.format("{} {}", "prompt", "item"))

    assert judged(CHECKS["targets_change_no_prompt"])
    caught = {check.name: check.run for check in choice_checks(lambda *_: WHOLE, telling)}
    assert not judged(caught["targets_change_no_prompt"], telling(WHOLE))


def test_a_prompt_over_the_budget_fails() -> None:
    assert judged(CHECKS["inside_the_budget"])
    assert not judged(CHECKS["inside_the_budget"], planted("tokens", 10))


def test_what_a_title_brings_along_is_found_and_reserved_tokens_are_not_counted(monkeypatch) -> None:
    tokenizer = make_tokenizer()

    def found(prompts: list[str], slots: list[list[int]]) -> list[str]:
        return smuggled(pl.DataFrame({"prompt": prompts, "slots": slots}), tokenizer)

    assert found(["a film", "another"], [[], []]) == []
    assert found(["a film", "another</s>"], [[], []]) == ["2 different counts of special tokens"]
    assert found(["a film", "another</s>"], [[], [7]]) == []  # as if </s> were the reserved token
    assert found(["a film", "another\n"], [[], []]) == ["2 different counts of lines"]
    monkeypatch.setattr(module, "load_tokenizer", lambda folder: tokenizer)
    monkeypatch.setattr(module, "model_folder", lambda model: None)
    monkeypatch.setitem(INPUTS, "language_model", Held())
    assert judged(CHECKS["nothing_smuggled_in"])
    assert not judged(CHECKS["nothing_smuggled_in"], planted("prompt", "one</s>"))


ORDERS = rankings_of(ROWS, OWN, [[-2.0, -1.0], [-5.0, -1.5, None]], OUT)


def ordered(rows: pl.DataFrame, check: Any = every_list_in_order) -> bool:
    return check(Held(rankings=rows), {"prompts": Held(candidates=WHOLE.candidates)}, SETTINGS).passed


def test_orders_of_all_lists_pass_and_a_lost_item_a_lost_list_or_nothing_fails() -> None:
    assert ordered(ORDERS)
    assert not ordered(ORDERS.head(4))
    assert not ordered(ORDERS.filter(part="test"))
    assert not ordered(ORDERS.clear())


def test_equal_scores_everywhere_are_told() -> None:
    assert ordered(ORDERS, scores_differ)
    assert not ordered(ORDERS.with_columns(score=pl.lit(-1.0)), scores_differ)


def test_sizes_of_prompts() -> None:
    found = sizes(asked_of().with_columns(items_dropped=pl.Series([0, 1, 0, 2])))
    assert found == {
        "train_rows": 2,
        "valid_rows": 1,
        "test_rows": 1,
        "longest_prompt": 9,
        "mean_tokens": 9,
        "prompts_cut": 2,
    }
