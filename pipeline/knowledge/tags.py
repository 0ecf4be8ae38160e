"""Tags out of what a chat model wrote: read, counted, merged where they mean the same, given back to items.

    answers -> tags of each -> counts -> the frequent ones, near-duplicates merged -> vocabulary
    an item's own tags + vocabulary -> those near enough (generative); candidates -> votes (selective)

TagGPT (Li et al., 2023, arXiv 2304.03022). Pure functions over texts and unit vectors.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SEPARATORS = re.compile(r"[,;|/\n\u3001\uff0c\uff1b•*#]|\s+and\s+")
NUMBERING = re.compile(r"^\s*\d+[.):]\s*|^\s*[-\u2013]\s*|^[^:]{0,40}:\s*")
EDGES = " \"'`“”\u2018\u2019.!?()[]{}<>"
SHORTEST, LONGEST, MOST_WORDS = 3, 40, 4  # characters, characters, words; longer ones are sentences
BLOCK = 1024  # tags compared at once


class Vocabulary(NamedTuple):
    """Tags, the most frequent first, how often each was written, and for each that was merged the tag that
    stands for it."""

    tags: tuple[str, ...]
    counts: tuple[int, ...]
    merged: Mapping[str, str]


def read_tags(answer: str) -> list[str]:
    """The tags of an answer, in lower case, each once; sentences and single letters are none."""
    pieces = (" ".join(NUMBERING.sub("", piece).split()) for piece in SEPARATORS.split(answer))
    told = (piece.strip(EDGES).lower() for piece in pieces)
    return list(dict.fromkeys(tag for tag in told if is_tag(tag)))


def is_tag(text: str) -> bool:
    return SHORTEST <= len(text) <= LONGEST and len(text.split()) <= MOST_WORDS


def frequent(answers: Iterable[Sequence[str]], more_than: int) -> list[tuple[str, int]]:
    """Tags that more than so many answers hold, with how many, the most frequent first, equal ones by name."""
    counts = Counter(tag for tags in answers for tag in tags)
    kept = [(tag, count) for tag, count in counts.items() if count > more_than]
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))


def vocabulary(found: Sequence[tuple[str, int]], vectors: Floats, alike: float) -> Vocabulary:
    """Tags in order, each unless its cosine with one before it that was kept is above `alike`.

    found: tags and counts, as `frequent` gives them; vectors (n, width): of these tags, of length 1.
    """
    kept: list[int] = []
    merged: dict[str, str] = {}
    for place, (tag, _) in enumerate(found):
        near = vectors[kept] @ vectors[place] if kept else np.zeros(0, dtype=np.float32)
        if len(near) and near.max() > alike:
            merged[tag] = found[kept[int(near.argmax())]][0]
        else:
            kept.append(place)
    return Vocabulary(tuple(found[i][0] for i in kept), tuple(found[i][1] for i in kept), merged)


def near_ones(own: Floats, every: Floats, alike: float) -> list[int]:
    """Places of the vocabulary whose cosine with any of an item's own tags is above `alike`, in its order.

    own: (m, width), every: (n, width), of length 1.
    """
    if not len(own):
        return []
    best = np.concatenate(
        [(block @ own.T).max(1) for block in np.split(every, range(BLOCK, len(every), BLOCK))]
    )
    return np.flatnonzero(best > alike).tolist()


def candidates(item: Floats, every: Floats, most: int) -> list[int]:
    """The places of the `most` tags nearest to an item's text, nearest first, equal ones in their order."""
    return np.argsort(-(every @ item).round(6), kind="stable")[:most].tolist()


def voted(answers: Iterable[Sequence[str]], allowed: Sequence[str], merged: Mapping[str, str]) -> list[str]:
    """The allowed tags that answers name, by how many name them, then in the order of `allowed`."""
    place = {tag: number for number, tag in enumerate(allowed)}
    named = ({merged.get(tag, tag) for tag in tags} for tags in answers)
    votes = Counter(tag for tags in named for tag in tags if tag in place)
    return sorted(votes, key=lambda tag: (-votes[tag], place[tag]))
