"""Prompts from templates with typed slots, cut to a token budget by whole history items.

    'watched {history:titles}. Will they like {target:title} ({item_code:code})?' -> Template -> fill -> text

A slot says what may stand in it. `titles` is a list of quoted titles, `title` one of them, `code` a short
string of digits, `soft` a row of reserved tokens whose vectors a method brings along (source and count, in
order of the text). `{word}` without a kind is a word of the study. All else is the template's own text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from pipeline.llm.load import lengths
from pipeline.text.cleaning import clean, neutralise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["titles", "title", "code", "soft"]
MARK = re.compile(r"\{(?P<name>\w+)(?::(?P<kind>\w+))?(?::(?P<count>\d+))?\}")
CODE = re.compile(r"[0-9.]+")
SOFT_TOKEN = "<|soft|>"
SEPARATOR = ", "


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


class Event(NamedTuple):
    """One item of a history as a prompt may show it: its safe, quoted title, and whether it was liked."""

    title: str
    liked: bool


Values = Mapping[str, Sequence[str] | str]


class Prompt(NamedTuple):
    """One rendered prompt: the text, its length, and how many history items it shows."""

    text: str
    tokens: int
    shown: int


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


def render(template: Template, values: Values) -> str:
    """The text for one row. `titles` slots take a list, the others a string; soft slots take nothing.

    Raises ValueError for a value of another kind, KeyError for a slot without a value.
    """
    return "".join(
        part if isinstance(part, str) else stand_in(part, values, template.empty) for part in template.parts
    )


def stand_in(slot: Slot, values: Values, empty: str) -> str:
    if slot.kind == "soft":
        return SOFT_TOKEN * slot.count
    value = values[slot.name]
    if slot.kind == "titles" and not isinstance(value, str):
        return SEPARATOR.join(value) or empty
    if (
        slot.kind == "titles"
        or not isinstance(value, str)
        or (slot.kind == "code" and not CODE.fullmatch(value))
    ):
        raise ValueError(f"slot {slot.name} takes {slot.kind}, not {value!r}")
    return value


def by_taste(events: Sequence[Event]) -> dict[str, list[str]]:
    """The three ways a template may show a history, each oldest first."""
    return {
        "history": [event.title for event in events],
        "liked": [event.title for event in events if event.liked],
        "disliked": [event.title for event in events if not event.liked],
    }


def fill(
    template: Template,
    rows: Sequence[Values],
    histories: Sequence[Sequence[Event]],
    budget: int,
    tokenizer: "Tokenizer",
) -> list[Prompt]:
    """Render all rows, leaving out the oldest events of a history until its prompt fits the budget.

    rows: values of the slots that are not history; histories: oldest first. Whole prompts are measured; titles
    are measured once each, to guess how many must go. Raises ValueError where a prompt without any history is
    over the budget.
    """
    cost = title_costs(histories, tokenizer)
    shown = [len(events) for events in histories]
    texts, tokens = [""] * len(rows), [0] * len(rows)
    todo = list(range(len(rows)))
    while todo:
        for i in todo:
            events = histories[i][len(histories[i]) - shown[i] :]
            texts[i] = render(template, {**rows[i], **by_taste(events)})
        for i, length in zip(todo, lengths(tokenizer, [texts[i] for i in todo]), strict=True):
            tokens[i] = length
        todo = [i for i in todo if tokens[i] > budget]
        for i in todo:
            if shown[i] == 0:
                raise ValueError(
                    f"a prompt without history has {tokens[i]} tokens, over the budget of {budget}"
                )
            shown[i] = keep(histories[i], shown[i], tokens[i] - budget, cost)
    return [Prompt(*one) for one in zip(texts, tokens, shown, strict=True)]


def title_costs(histories: Sequence[Sequence[Event]], tokenizer: "Tokenizer") -> dict[str, int]:
    """Tokens of each title with its separator, measured once; never less than it costs inside a prompt."""
    titles = sorted({event.title for events in histories for event in events})
    return dict(zip(titles, lengths(tokenizer, [title + SEPARATOR for title in titles]), strict=True))


def keep(events: Sequence[Event], shown: int, excess: int, cost: Mapping[str, int]) -> int:
    """How many of the last `shown` events to keep so that about `excess` tokens go; at least one goes."""
    left = shown
    for event in events[len(events) - shown :]:
        if excess <= 0:
            break
        excess -= cost[event.title]
        left -= 1
    return left
