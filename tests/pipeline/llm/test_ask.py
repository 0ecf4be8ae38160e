"""Prompts as a table: one row per example, what each shows, and what was left out."""

import polars as pl
import pytest

from pipeline.llm.ask import Shown, ask
from pipeline.llm.settings import Prompting
from pipeline.schema import Prompts
from pipeline.text.prompts import parse
from tests.tiny_lm import make_tokenizer

TOKENIZER = make_tokenizer()
TEMPLATE = parse("Liked: {liked:titles}. {target:title} ({mark:code})?", {}, empty="-")
EXAMPLES = pl.DataFrame(
    {"row": [4, 7], "part": ["train", "test"], "user": [0, 1], "item": [9, 5], "label": [1, 0]},
    schema={name: Prompts.create_empty().schema[name] for name in ("row", "part", "user", "item", "label")},
)
PAST = pl.DataFrame(
    {"items": [[5, 6], []], "labels": [[1, 0], []]},
    schema={"items": pl.List(pl.UInt32), "labels": pl.List(pl.UInt8)},
)
TITLES = {5: "Five", 6: "Six", 9: 'The "Nine"'}
SHOWN = Shown(PAST, {"mark": pl.Series(["1.2", "3"])})


def asked(shown: Shown = SHOWN, **settings) -> pl.DataFrame:
    return ask(EXAMPLES, shown, TITLES, TEMPLATE, Prompting(**settings), TOKENIZER)


def test_a_table_by_hand() -> None:
    table = asked()
    assert Prompts.validate(table).equals(table)
    assert table.select("row", "user", "item", "label").rows() == [(4, 0, 9, 1), (7, 1, 5, 0)]
    assert table["prompt"].to_list() == [
        'Liked: "Five". "The \'Nine\'" (1.2)?',
        'Liked: -. "Five" (3)?',
    ]
    assert table["shown"].to_list() == [[5, 6], []]
    assert table["items_shown"].to_list() == [2, 0]
    assert table["items_dropped"].to_list() == [0, 0]


def test_what_is_over_the_budget_is_counted_as_dropped() -> None:
    whole = asked()
    table = asked(max_tokens=whole["tokens"][0] - 1)
    assert table["shown"].to_list() == [[6], []]
    assert table["items_shown"].to_list() == [1, 0]
    assert table["items_dropped"].to_list() == [1, 0]


def test_an_item_without_a_title_is_an_error() -> None:
    strange = PAST.with_columns(items=pl.Series([[5, 77], []], dtype=pl.List(pl.UInt32)))
    with pytest.raises(pl.exceptions.InvalidOperationError, match="incomplete mapping"):
        asked(Shown(strange, SHOWN.slots))


def test_what_is_shown_can_be_had_for_some_examples() -> None:
    some = SHOWN.take([1])
    assert some.past.equals(PAST[[1]])
    assert some.slots["mark"].to_list() == ["3"]
