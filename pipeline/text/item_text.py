"""Items in words: one template sentence per item, which encoders and language models turn into vectors.

    items (title, categories, description) + the study's word -> "Here is a movie. Its title is Heat (1995)."

The first two sentences are ReLLa's (Lin et al., WWW 2024, https://arxiv.org/abs/2308.11131); its third names
the genre, ours all categories under one word that suits any domain. Nothing of users or time is in it, so there
is no moment to cut at.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import Field

from pipeline.schema import ItemText
from pipeline.stage import Artefact, Check, Draft, Settings, Verdict, stage
from pipeline.study import Words
from pipeline.text.cleaning import clean

ENOUGH_DIFFER = 0.5  # of the items; below, most texts are another item's too


class ItemTextSettings(Settings):
    words: Words = Field(Words(), description="words of the study; `item` is used")
    title_length: int = Field(200, ge=8, description="characters of a title read at most")
    categories: int = Field(5, ge=0, description="categories named at most, the first ones")
    description_length: int = Field(
        0, ge=0, description="characters of a longer description read at most; 0 for none"
    )


def sentences(items: pl.DataFrame, settings: ItemTextSettings) -> pl.DataFrame:
    """One text per item, in the same order: columns item, text.

    items: item, title, categories, text; what an item lacks is left out of its text.
    """
    columns = items.select("item", "title", "categories", "text")
    texts = [(item, describe(title, named, text, settings)) for item, title, named, text in columns.iter_rows()]
    return pl.DataFrame(texts, schema={"item": pl.UInt32, "text": pl.String}, orient="row")


def describe(title: str, categories: list[str] | None, text: str | None, settings: ItemTextSettings) -> str:
    """`Here is a movie. Its title is Heat (1995). It is listed under Action, Crime.`"""
    word = settings.words.item
    said = [f"Here is {article(word)} {word}.", f"Its title is {clean(title, settings.title_length)}."]
    named = [clean(one, settings.title_length) for one in (categories or [])[: settings.categories]]
    if named:
        said.append(f"It is listed under {', '.join(named)}.")
    if text and settings.description_length:
        said.append(clean(text, settings.description_length))
    return " ".join(said)


def article(word: str) -> str:
    return "an" if word[:1].lower() in tuple("aeiou") else "a"


def every_item_has_a_text(draft: Draft, inputs: Mapping[str, Any], settings: ItemTextSettings) -> Verdict:
    """Every item of the dataset has one text, one line, in the same order."""
    found, items = draft.read("item_text"), inputs["dataset"].table("items")
    same = found["item"].equals(items["item"], check_names=False)
    lines = found["text"].str.contains("\n").sum()
    return Verdict(same and not lines, f"{found.height} of {items.height} items", {"items": items.height})


def texts_differ(draft: Draft, inputs: Mapping[str, Any], settings: ItemTextSettings) -> Verdict:
    """At least half of the items can be told apart by their texts."""
    share = draft.metrics["distinct_share"]
    return Verdict(share >= ENOUGH_DIFFER, f"{share:.0%} of the texts are distinct", {"distinct": share})


@stage(
    "item_text",
    settings=ItemTextSettings,
    section="data",
    version=1,
    inputs={"dataset": "dataset"},
    tables={"item_text": ItemText},
    checks=(Check(every_item_has_a_text), Check(texts_differ, blocking=False)),
    shared={"words": "words"},
)
def item_text(dataset: Artefact, settings: ItemTextSettings, out: Draft) -> None:
    """What is known of each item, in a sentence or two."""
    table = sentences(dataset.table("items"), settings)
    out.table("item_text", table)
    length = table["text"].str.len_chars()
    out.metric(
        items=table.height,
        distinct_share=round(table["text"].n_unique() / max(table.height, 1), 6),
        longest_text=int(length.max() or 0),  # type: ignore[arg-type]
    )
