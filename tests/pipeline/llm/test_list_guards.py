"""Guards of lists: each is shown its fault and sees it."""

from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from pipeline.llm import list_guards
from pipeline.llm.list_guards import (
    Tables,
    first_asked,
    history_is_of_the_past,
    lessons_are_of_train,
    turned,
    verdict_on_lists,
)
from tests.toy_next import toy

# user 0 walks 0 1 2 3 4, so learns 0 1 2; user 1 walks 4 3 2 1, so learns 4 3
WALKS = toy([[0, 1, 2, 3, 4], [4, 3, 2, 1]], 6)
LISTS = pl.List(pl.UInt32)
ROWS = [
    (0, "learn", "train", 0, [0, 1], [2]),
    (1, "choose", "train", 1, [4], [3]),
    (2, "ask", "valid", 0, [0, 1, 2], []),
    (3, "ask", "test", 0, [1, 2, 3], []),
    (4, "ask", "valid", 1, [4, 3], []),
]


def prompts(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {
        "row": pl.UInt32,
        "role": pl.String,
        "part": pl.String,
        "user": pl.UInt32,
        "shown": LISTS,
        "targets": LISTS,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def verdict(guard: Any, rows: list[tuple[Any, ...]], kind: str = "leave_last") -> Any:
    split = SimpleNamespace(table=lambda name: getattr(WALKS, name), metrics={"kind": kind})
    draft = cast(Any, SimpleNamespace(read=lambda name: prompts(rows), variant="rule_profile"))
    return guard(draft, {"split": split}, None)


def changed(row: int, **fields: Any) -> list[tuple[Any, ...]]:
    names = ("row", "role", "part", "user", "shown", "targets")
    return [
        tuple({**dict(zip(names, one, strict=True)), **(fields if one[0] == row else {})}.values())
        for one in ROWS
    ]


@pytest.mark.parametrize("guard", [history_is_of_the_past, lessons_are_of_train])
def test_sound_prompts_pass(guard: Any) -> None:
    assert verdict(guard, ROWS).passed


def test_the_event_asked_for_first_tells_the_time_of_each_prompt() -> None:
    found = first_asked(prompts(ROWS), WALKS.events, WALKS.queries)
    number = {(user, item): row for row, user, item in WALKS.events.select("row", "user", "item").iter_rows()}
    assert found.rows() == [
        (0, number[0, 2]),
        (1, number[1, 3]),
        (2, number[0, 3]),
        (3, number[0, 4]),
        (4, number[1, 2]),
    ]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (0, [0, 2]),  # its own target
        (2, [0, 3]),  # what valid asks for
        (3, [1, 4]),  # what test asks for
        (4, [4, 1]),  # used later
        (4, [5]),  # never used
    ],
)
def test_an_item_of_the_future_in_a_history_is_seen(row: int, shown: list[int]) -> None:
    assert not verdict(history_is_of_the_past, changed(row, shown=shown)).passed


def test_a_prompt_that_asks_for_nothing_known_is_not_passed_over() -> None:
    assert not verdict(history_is_of_the_past, changed(0, targets=[5])).passed


def test_a_split_without_time_is_not_judged() -> None:
    assert verdict(history_is_of_the_past, changed(0, shown=[5]), kind="random").passed


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (0, {"targets": [3]}),  # of the valid part
        (0, {"shown": [0, 4]}),  # of the test part
        (1, {"user": 0, "shown": [0], "targets": [1]}),  # who teaches and chooses
    ],
)
def test_a_lesson_of_what_is_held_out_is_seen(row: int, fields: dict[str, Any]) -> None:
    assert not verdict(lessons_are_of_train, changed(row, **fields)).passed


def lists(rows: list[tuple[str, int, list[int]]]) -> pl.DataFrame:
    schema = {"part": pl.String, "user": pl.UInt32, "candidates": LISTS}
    return pl.DataFrame(rows, schema=schema, orient="row")


STORED = (
    lists([("test", 0, [5, 4, 3]), ("valid", 0, [2, 1])]).explode("candidates").rename({"candidates": "item"})
)


@pytest.mark.parametrize(
    ("told", "faults", "in_any_order"),
    [
        ([("test", 0, [5, 4, 3]), ("valid", 0, [2, 1])], 0, 0),
        ([("test", 0, [3, 4, 5]), ("valid", 0, [2, 1])], 1, 0),
        ([("test", 0, [5, 4, 3])], 1, 1),
        ([("test", 0, [5, 4, 3]), ("valid", 0, [2, 1]), ("valid", 1, [2, 1])], 1, 1),
        ([("test", 0, [5, 4, 2]), ("valid", 0, [2, 1])], 2, 1),
        ([("test", 0, [5, 4, 3, 3]), ("valid", 0, [2, 1])], 2, 1),
        ([("test", 0, [5, 4, 3]), ("valid", 0, [2, 1]), ("valid", 0, [2, 1])], 1, 1),
    ],
)
def test_each_list_is_asked_once_with_its_own_items(told, faults: int, in_any_order: int) -> None:
    assert verdict_on_lists(lists(told), STORED, STORED).facts["at fault"] == faults
    found = verdict_on_lists(lists(told), STORED, None)
    assert (found.passed, found.facts["at fault"]) == (not in_any_order, in_any_order)


def test_turned_tables_keep_what_is_known_and_change_every_answer() -> None:
    own = pl.DataFrame({"target": [True, False]})
    found = turned(Tables(WALKS.events, WALKS.queries, own, pl.DataFrame()))
    train = pl.col("part") == "train"
    assert found.events.filter(train).equals(WALKS.events.filter(train))
    assert (found.events.filter(~train)["item"] != WALKS.events.filter(~train)["item"]).sum() >= 3
    assert (found.queries["targets"] != WALKS.queries["targets"]).any()
    assert found.queries.drop("targets").equals(WALKS.queries.drop("targets"))
    assert found.lists["target"].to_list() == [False, True]


def test_all_guards_block() -> None:
    checks = list_guards.list_checks(lambda *given: pl.DataFrame(), ())
    assert len(checks) == 6
    assert all(check.blocking for check in checks)
