"""Lists of titles that a language model wrote, read against the candidates that it was to choose from.

    text -> quoted titles -> candidates (the same title, else the likest above a threshold) -> order of the list

What is named counts once, in the order written; what is no candidate is dropped and counted. Candidates that
are not named follow in the order in which they are given, so every list is ordered whole, whatever was written.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import NamedTuple

QUOTED = re.compile(r'"([^"\n]*)"')
BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])?\s*")
LIKE = 0.85  # least likeness of a title that is not written as it stands: a letter or two may be wrong


class Listed(NamedTuple):
    """One list as read. order: places of all candidates, the named ones first; named: how many those are;
    again: how often one was named once more; outside: how many names are of no candidate."""

    order: tuple[int, ...]
    named: int
    again: int
    outside: int

    @property
    def written(self) -> int:
        """How many titles the model wrote."""
        return self.named + self.again + self.outside


def written_titles(text: str) -> list[str]:
    """Quoted titles in order; a text without any quote is read as a list, a title a line.

    A quote that is never closed was cut off, and is no title.
    """
    if '"' in text:
        return [title for title in QUOTED.findall(text) if title.strip()]
    lines = (BULLET.sub("", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def normal(title: str) -> str:
    """What is compared of a title: letters and digits in lower case, single spaces; the rest where nothing is
    left."""
    folded = unicodedata.normalize("NFKC", title).casefold()
    plain = " ".join("".join(c if c.isalnum() else " " for c in folded).split())
    return plain or folded.strip()


def read_list(text: str, candidates: Sequence[str], like: float = LIKE) -> Listed:
    """Read a text against the titles of candidates, which are given in the order that fills the list up.

    Candidates of one title are named one after another. like: 1 accepts the same titles only.
    """
    places: dict[str, list[int]] = {}
    for place, title in enumerate(candidates):
        places.setdefault(normal(title), []).append(place)
    left = {title: list(held) for title, held in places.items()}
    order: list[int] = []
    again = outside = 0
    for name in map(normal, written_titles(text)):
        found = name if name in places else likest(name, places, like)
        if found is None:
            outside += 1
        elif left[found]:
            order.append(left[found].pop(0))
        else:
            again += 1
    rest = sorted(set(range(len(candidates))) - set(order))
    return Listed((*order, *rest), len(order), again, outside)


def likest(name: str, titles: Mapping[str, object], like: float) -> str | None:
    """The title likest to a name, None for none so like; of equally like ones the first of the alphabet."""
    if like >= 1:
        return None
    near = get_close_matches(name, sorted(titles), n=len(titles), cutoff=like)
    return min(near, key=lambda title: (-SequenceMatcher(None, title, name).ratio(), title), default=None)
