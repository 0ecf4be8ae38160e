"""Keyword profiles by a rule: what a user's past holds more of than the catalogue does.

    items (categories, titles) -> keywords of each item -> its share in a past over its share in the catalogue

A keyword is one of an item's categories or a word of its title. Of a past of n items in which k carry a
keyword, and a catalogue of N items in which K do, its weight is k log(k/n : K/N): how much more often than by
chance, and how surely. One item is no habit, so k is at least two. Nothing but the past itself and the
catalogue is looked at.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log

import polars as pl

WORD = re.compile(r"[^\W\d_]{4,}")  # of letters; shorter ones are mostly articles and numerals
LEAST = 2  # items of a past that must carry a keyword

Keywords = Mapping[int, frozenset[str]]


def keywords(items: pl.DataFrame) -> dict[int, frozenset[str]]:
    """Keywords of each item: its categories as they are written, and the words of its title in lower case.

    items: item, title, categories (null where unknown). A word that is a category too counts once.
    """
    found = {}
    for item, title, categories in items.select("item", "title", "categories").iter_rows():
        named = [category for category in categories or [] if category.strip()]
        known = {category.lower() for category in named}
        words = {word for word in WORD.findall(title.lower()) if word not in known}
        found[item] = frozenset(named) | words
    return found


def shares(items: Iterable[int], known: Keywords) -> dict[str, float]:
    """Share of these items that carry each keyword."""
    held = list(items)
    counts = Counter(word for item in held for word in known[item])
    return {word: count / len(held) for word, count in counts.items()}


def profile(past: Sequence[int], known: Keywords, catalogue: Mapping[str, float], most: int) -> list[str]:
    """The `most` keywords that a past has most of beyond the catalogue's share, the weightiest first.

    Equal weights: what more items carry, then in order of the alphabet. An item used twice counts twice.
    """
    counts = Counter(word for item in past for word in known[item])
    weighed = [
        (-count * log(count / len(past) / catalogue[word]), -count, word)
        for word, count in counts.items()
        if count >= LEAST and word in catalogue
    ]
    return [word for weight, _, word in sorted(weighed) if weight < 0][:most]


def profiles(pasts: pl.Series, known: Keywords, catalogue: Mapping[str, float], most: int) -> pl.Series:
    """`profile` of each past (n,), a list of items each, as a list of keywords each."""
    found = [profile(past, known, catalogue, most) for past in pasts.to_list()]
    return pl.Series("profile", found, dtype=pl.List(pl.String))
