"""Prompts from templates with typed slots, cut to a token budget by whole history items.

    'watched {history:titles}. Will they like {target:title} ({item_code:code})?' -> Template -> fill -> text

A slot says what may stand in it. `titles` is a list of quoted titles, `title` one of them, `code` a short
string of digits, `soft` a row of reserved tokens whose vectors a method brings along (name and count, in
order of the text). `{word}` without a kind is a word of the study. All else is the template's own text.
Slots are filled a column at a time, so that a prompt costs little more than its tokenising.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import polars as pl

from pipeline.llm.load import lengths
from pipeline.text.cleaning import clean, neutralise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["titles", "title", "code", "soft"]
MARK = re.compile(r"\{(?P<name>\w+)(?::(?P<kind>\w+))?(?::(?P<count>\d+))?\}")
CODE = "^[0-9.]+$"
SOFT_TOKEN = "<|soft|>"
SEPARATOR = ", "
TITLES = pl.List(pl.String)


@dataclass(frozen=True)
class Slot:
    """A place in a template. `count` is the number of reserved tokens of a soft slot."""

    name: str
    kind: Kind
    count: int = 1


@dataclass(frozen=True)
class Template:
    """Literal text and slots, in order, and the two answers as they follow the text."""

    parts: tuple[str | Slot, ...]
    answers: tuple[str, str] = (" Yes", " No")
    empty: str = "unknown"

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(part for part in self.parts if isinstance(part, Slot))

    @property
    def soft(self) -> tuple[Slot, ...]:
        """Soft slots in the order of the text: the map from reserved tokens to vectors."""
        return tuple(slot for slot in self.slots if slot.kind == "soft")


def parse(
    text: str, words: Mapping[str, str], answers: tuple[str, str] = (" Yes", " No"), empty: str = "unknown"
) -> Template:
    """Read a template. Raises ValueError for a word or kind that is not known."""
    parts: list[str | Slot] = []
    at = 0
    for mark in MARK.finditer(text):
        parts.append(text[at : mark.start()])
        parts.append(understand(mark, words))
        at = mark.end()
    return Template(tuple(join_literals([*parts, text[at:]])), answers, empty)


def understand(mark: re.Match[str], words: Mapping[str, str]) -> str | Slot:
    name, kind = mark["name"], mark["kind"]
    if kind is None and name in words:
        return words[name]
    if kind not in get_args(Kind):
        raise ValueError(
            f"template: {mark[0]} is neither a word ({', '.join(words)}) nor a slot of a known kind"
        )
    return Slot(name, cast(Kind, kind), int(mark["count"] or 1))


def join_literals(parts: Sequence[str | Slot]) -> list[str | Slot]:
    joined: list[str | Slot] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return joined


def safe_titles(titles: Mapping[int, str], tokenizer: "Tokenizer", longest: int) -> dict[int, str]:
    """Titles by item as they may stand in a prompt: cleaned, without special tokens, quoted."""
    cleaned = neutralise([clean(title, longest) for title in titles.values()], tokenizer)
    return {item: f'"{title}"' for item, title in zip(titles, cleaned, strict=True)}


def render(template: Template, slots: pl.DataFrame) -> pl.Series:
    """The text of every row. `titles` slots take a column of lists, the others one of strings, soft slots none.

    Raises ValueError for a value of another kind, KeyError for a slot without a column.
    """
    parts = [
        pl.lit(part) if isinstance(part, str) else stand_in(part, slots, template.empty)
        for part in template.parts
    ]
    return slots.with_columns(pl.concat_str(parts).alias("prompt")).get_column("prompt")


def stand_in(slot: Slot, slots: pl.DataFrame, empty: str) -> pl.Expr:
    """What stands in the slot, row by row."""
    if slot.kind == "soft":
        return pl.lit(SOFT_TOKEN * slot.count)
    if slot.name not in slots.columns:
        raise KeyError(slot.name)
    values = slots[slot.name]
    refused = values.filter(~fits(slot, values))
    if len(refused):
        raise ValueError(f"slot {slot.name} takes {slot.kind}, not {refused[0]!r}")
    text = pl.col(slot.name)
    return text.list.join(SEPARATOR).replace("", empty) if slot.kind == "titles" else text


def fits(slot: Slot, values: pl.Series) -> pl.Series:
    """Which values are of the slot's kind."""
    if values.dtype != (TITLES if slot.kind == "titles" else pl.String):
        return pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    return values.str.contains(CODE).fill_null(False) if slot.kind == "code" else values.is_not_null()


def by_taste(past: pl.DataFrame, titles: Mapping[int, str]) -> pl.DataFrame:
    """The three ways a template may show a past, as lists of titles, each oldest first.

    past: lists `items` and `labels`, a row per prompt; titles: item -> safe, quoted title.
    """
    events = past.with_row_index("n").explode("items", "labels", empty_as_null=False)
    title = pl.col("items").replace_strict(titles, return_dtype=pl.String)
    liked = pl.col("labels") > 0
    told = (
        events.select("n", title=title, liked=liked)
        .group_by("n", maintain_order=True)
        .agg(
            history="title",
            liked=pl.col("title").filter("liked"),
            disliked=pl.col("title").filter(~pl.col("liked")),
        )
    )
    rows = pl.DataFrame({"n": range(past.height)}, schema={"n": told["n"].dtype})
    found = rows.join(told, on="n", how="left", maintain_order="left").drop("n")
    return found.select(pl.all().cast(TITLES).fill_null(pl.lit([], dtype=TITLES)))


def fill(
    template: Template,
    slots: pl.DataFrame,
    past: pl.DataFrame,
    titles: Mapping[int, str],
    budget: int,
    tokenizer: "Tokenizer",
) -> pl.DataFrame:
    """Render all rows, leaving out the oldest items of a past until its prompt fits the budget.

    slots: a column for each slot that is no history; past: lists `items` and `labels`, oldest first; titles:
    item -> safe, quoted title. Whole prompts are measured; titles are measured once each, to guess how many
    must go. Returns `prompt`, its `tokens`, and `shown`, the items that it shows. Raises ValueError where a
    prompt without any history is over the budget.
    """
    shown = past["items"].list.len().to_numpy().astype(np.int64)
    texts, tokens = np.empty(len(shown), dtype=object), np.zeros(len(shown), dtype=np.int64)
    todo, cost = np.arange(len(shown)), None
    while len(todo):
        kept = past[todo].select(pl.all().list.tail(pl.lit(pl.Series(shown[todo]))))
        found = render(template, pl.concat([slots[todo], by_taste(kept, titles)], how="horizontal")).to_list()
        texts[todo], tokens[todo] = found, lengths(tokenizer, found)
        todo = todo[tokens[todo] > budget]
        cost = title_costs(past["items"], titles, tokenizer) if len(todo) and cost is None else cost or {}
        for i in todo.tolist():
            if shown[i] == 0:
                raise ValueError(
                    f"a prompt without history has {tokens[i]} tokens, over the budget of {budget}"
                )
            shown[i] = keep(past["items"][i].to_list(), int(shown[i]), int(tokens[i]) - budget, cost)
    return pl.DataFrame(
        {
            "prompt": pl.Series(texts.tolist(), dtype=pl.String),
            "tokens": pl.Series(tokens, dtype=pl.UInt32),
            "shown": past.select(pl.col("items").list.tail(pl.lit(pl.Series(shown)))).to_series(),
        }
    )


def title_costs(items: pl.Series, titles: Mapping[int, str], tokenizer: "Tokenizer") -> dict[int, int]:
    """Tokens of each listed item's title with its separator; never less than it costs inside a prompt."""
    used = items.explode(empty_as_null=False).unique().sort().to_list()
    return dict(zip(used, lengths(tokenizer, [titles[item] + SEPARATOR for item in used]), strict=True))


def keep(items: Sequence[int], shown: int, excess: int, cost: Mapping[int, int]) -> int:
    """How many of the last `shown` items to keep so that about `excess` tokens go; at least one goes."""
    left = shown
    for item in items[len(items) - shown :]:
        if excess <= 0:
            break
        excess -= cost[item]
        left -= 1
    return left
