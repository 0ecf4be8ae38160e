"""Prompts from templates with typed slots, cut to a token budget by whole history items.

    'watched {history:titles}. Will they like {target:title} ({item_code:code})?' -> Template -> fill -> text

A slot says what may stand in it. `titles` is a list of quoted titles, `title` one of them, `code` a short
string of digits, `soft` reserved tokens in whose place a model reads a vector, `items` a list of titles, each
with reserved tokens of its item behind it. `{word}` without a kind is a word of the study. All else is the
template's own text. Slots are filled a column at a time, so that a prompt costs little more than its
tokenising.

What a reserved token shows is a row of the method's vectors: slot `x` finds it in the column `x.vector` (one
number a prompt for `soft`, a list beside the titles for `items`). Where each stands in the finished text is
known from putting it there, never found again by looking.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import polars as pl

from pipeline.llm.load import lengths
from pipeline.text.cleaning import SOFT_TOKEN, clean, neutralise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["titles", "title", "code", "soft", "items"]
MARK = re.compile(r"\{(?P<name>\w+)(?::(?P<kind>\w+))?(?::(?P<count>\d+))?\}")
CODE = "^[0-9.]+$"
SEPARATOR = ", "
TITLES = pl.List(pl.String)
PLACES = pl.List(pl.UInt32)
SHOWS_VECTORS = ("soft", "items")


@dataclass(frozen=True)
class Slot:
    """A place in a template. `count` is the number of reserved tokens that show one vector."""

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
        """The slots that show vectors, in the order of the text."""
        return tuple(slot for slot in self.slots if slot.kind in SHOWS_VECTORS)


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


def render(template: Template, slots: pl.DataFrame) -> pl.DataFrame:
    """Every row's `prompt`, the characters `slots` where reserved tokens begin, and the `vectors` that they
    show.

    `titles` and `items` slots take a column of lists, the others one of strings; `soft` and `items` slots take
    their vectors' rows from the column `name.vector`. Raises ValueError for a value of another kind, KeyError
    for a slot without a column.
    """
    parts = {
        f"part {i}": pl.lit(part) if isinstance(part, str) else stand_in(part, slots, template.empty)
        for i, part in enumerate(template.parts)
    }
    made, ends = slots.with_columns(**parts), pl.lit(0, dtype=pl.UInt32)
    at, refs = [pl.lit([], dtype=PLACES)], [pl.lit([], dtype=PLACES)]
    for name, part in zip(parts, template.parts, strict=True):
        if isinstance(part, Slot) and part.kind in SHOWS_VECTORS:
            inside, shown = soft_places(part, slots)
            at.append(inside + ends)
            refs.append(shown)
        ends = ends + pl.col(name).str.len_chars()
    found = made.with_columns(
        prompt=pl.concat_str(*parts), slots=pl.concat_list(at), vectors=pl.concat_list(refs)
    )
    return found.select("prompt", "slots", "vectors")


def soft_places(slot: Slot, slots: pl.DataFrame) -> tuple[pl.Expr, pl.Expr]:
    """Where a slot's reserved tokens begin, counted from its own beginning, and what they show: two lists a
    row."""
    column, tokens = pl.col(f"{slot.name}.vector"), len(SOFT_TOKEN)
    if column.meta.output_name() not in slots.columns:
        raise KeyError(column.meta.output_name())
    if slot.kind == "soft":
        firsts, shown = pl.concat_list(pl.lit(0, dtype=pl.UInt32)), pl.concat_list(column.cast(pl.UInt32))
    else:
        piece = pl.element().str.len_chars() + len(behind(slot)) + len(SEPARATOR)
        firsts = pl.col(slot.name).list.eval(piece.cum_sum() - len(SEPARATOR) - slot.count * tokens)
        shown = column.cast(PLACES)
    spread = [one.list.eval(pl.element().repeat_by(slot.count).list.explode()) for one in (firsts, shown)]
    step = pl.int_range(pl.len(), dtype=pl.UInt32) % slot.count
    where = spread[0].list.eval(pl.element() + step * tokens)
    which = spread[1].list.eval(pl.element() * slot.count + step)
    return where.cast(PLACES), which.cast(PLACES)


def behind(slot: Slot) -> str:
    """The reserved tokens behind one title of an `items` slot."""
    return " " + SOFT_TOKEN * slot.count


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
    if slot.kind == "items":
        text = text.list.eval(pl.element() + behind(slot))
    return text.list.join(SEPARATOR).replace("", empty) if slot.kind in ("titles", "items") else text


def fits(slot: Slot, values: pl.Series) -> pl.Series:
    """Which values are of the slot's kind."""
    if values.dtype != (TITLES if slot.kind in ("titles", "items") else pl.String):
        return pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    return values.str.contains(CODE).fill_null(False) if slot.kind == "code" else values.is_not_null()


def by_taste(past: pl.DataFrame, titles: Mapping[int, str]) -> pl.DataFrame:
    """The three ways a template may show a past, as lists of titles, each oldest first.

    past: lists `items` and `labels`, a row per prompt, and `vectors` where items are shown by vectors too,
    whose rows then stand in `history.vector`, `liked.vector` and `disliked.vector`; titles: item -> safe,
    quoted title. Where there are `notes` too, `rated` is the whole past as `1. "Heat" (4 stars)`.
    """
    rows = past.with_row_index("n")
    events = rows.explode(past.columns, empty_as_null=False)
    told, liked = {"": pl.col("items").replace_strict(titles, return_dtype=pl.String)}, pl.col("labels") > 0
    if "vectors" in past.columns:
        told[".vector"] = pl.col("vectors")
    ways = {
        f"{way}{ending}": shown if chosen is None else shown.filter(chosen)
        for ending, shown in told.items()
        for way, chosen in (("history", None), ("liked", liked), ("disliked", ~liked))
    }
    if "notes" in past.columns:
        ways["rated"] = pl.format("{}. {} ({})", pl.int_range(1, pl.len() + 1), told[""], "notes")
    found = events.group_by("n", maintain_order=True).agg(**ways)
    whole = rows.select("n").join(found, on="n", how="left", maintain_order="left").drop("n")
    kinds = [pl.col(name).cast(PLACES if name.endswith(".vector") else TITLES) for name in whole.columns]
    return whole.select(kinds).select(pl.all().fill_null(pl.lit([])))


def fill(
    template: Template,
    slots: pl.DataFrame,
    past: pl.DataFrame,
    titles: Mapping[int, str],
    budget: int,
    tokenizer: "Tokenizer",
) -> pl.DataFrame:
    """Render all rows, leaving out the oldest items of a past until its prompt fits the budget.

    slots: a column for each slot that is no history; past: see `by_taste`; titles:
    item -> safe, quoted title. Whole prompts are measured; titles are measured once each, to guess how many
    must go. Returns `prompt`, its `tokens`, `shown`, the items that it shows, and its `slots` and `vectors`
    (see `render`). Raises ValueError where a prompt without any history is over the budget.
    """
    shown = past["items"].list.len().to_numpy().astype(np.int64)
    made, tokens = [], np.zeros(len(shown), dtype=np.int64)
    todo, cost = np.arange(len(shown)), None
    while len(todo):
        kept = past[todo].select(pl.all().list.tail(pl.lit(pl.Series(shown[todo]))))
        found = render(template, pl.concat([slots[todo], by_taste(kept, titles)], how="horizontal"))
        tokens[todo] = lengths(tokenizer, found["prompt"].to_list())
        inside = tokens[todo] <= budget
        made.append(found.with_columns(n=pl.Series(todo)).filter(inside))
        todo = todo[~inside]
        cost = costs(past, titles, tokenizer) if len(todo) and cost is None else cost or {}
        for i in todo.tolist():
            if shown[i] == 0:
                raise ValueError(
                    f"a prompt without history has {tokens[i]} tokens, over the budget of {budget}"
                )
            shown[i] = keep(past["items"][i].to_list(), int(shown[i]), int(tokens[i]) - budget, cost)
    return (
        pl.concat(made or [nothing_rendered()])
        .sort("n")
        .with_columns(
            tokens=pl.Series(tokens, dtype=pl.UInt32),
            shown=past.select(pl.col("items").list.tail(pl.lit(pl.Series(shown)))).to_series(),
        )
        .drop("n")
    )


def nothing_rendered() -> pl.DataFrame:
    return pl.DataFrame(schema={"prompt": pl.String, "slots": PLACES, "vectors": PLACES, "n": pl.Int64})


def costs(past: pl.DataFrame, titles: Mapping[int, str], tokenizer: "Tokenizer") -> dict[int, int]:
    """What each past item costs inside a prompt, at most: its title, with a number and the longest note."""
    found = title_costs(past["items"], titles, tokenizer)
    if "notes" not in past.columns:
        return found
    texts = past["notes"].explode(empty_as_null=False).unique().sort().to_list()
    longest = max(
        lengths(tokenizer, [f"{past['items'].list.len().max()}. ({text})" for text in texts]), default=0
    )
    return {item: cost + longest for item, cost in found.items()}


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
