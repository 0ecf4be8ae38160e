"""TagGPT: a chat model tags items in a vocabulary of its own; a click-through model reads the tags as a field.

Li et al., 2023, https://arxiv.org/abs/2304.03022

    item_text -> taggpt/samples (several answers an item) -> taggpt/tags (vocabulary; each item's tags)
        -> taggpt/predictions (a backbone of the ctr track that reads tags as one more field) -> pairs

The vocabulary is every tag that more than two answers hold, near-duplicates merged by cosine. The generative
tagger gives an item the tags near what was written of it; the selective one asks again, with the tags nearest
to the item's text to choose from, and counts votes.

Variants: `generative` (default), `selective`. Controls: `without_tags` (the same backbone), `shuffled_tags`
(each item has the generative tags of another).

Departures: prompts are in English and of the study's words, where the paper's are Chinese and of videos,
without its five examples; the encoder is the study's small one; the paper ends at tags and judges them by hand,
so the backbone that reads them is ours. It has run on toys with a scripted endpoint only.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.collab.labelled import every_pair_scored_once
from pipeline.collab.mf import better_than_chance
from pipeline.ctr.fields import coded
from pipeline.ctr.fit import Material, fit_and_score, material
from pipeline.ctr.settings import CtrSettings
from pipeline.knowledge import asking
from pipeline.knowledge.settings import SHARED, Chat, ChatSettings
from pipeline.knowledge.tags import Vocabulary, candidates, frequent, near_ones, read_tags, vocabulary, voted
from pipeline.llm.examples import donors
from pipeline.schema import Curve, ItemTags, Knowledge, Pairs, Search, Tags
from pipeline.stage import Artefact, Check, Draft, Settings, Verdict, stage
from pipeline.study import Words

if TYPE_CHECKING:
    from pipeline.text.embeddings import Floats

BUILD = (
    "You make interest tags for {items}. Infer what would interest somebody about the {item} below, and write "
    "it as several short tags, separated by commas.\n{text}\nTags:"
)
CHOOSE = (
    "You choose interest tags for {items}. Which of these tags fit the {item} below? Write only tags of this "
    "list, separated by commas: {candidates}.\n{text}\nTags:"
)
MESSAGE = pl.Struct({"role": pl.String, "content": pl.String})
REQUESTS = {"owner": pl.UInt32, "purpose": pl.String, "sample": pl.Int64, "messages": pl.List(MESSAGE)}
TAGS, ITEM_TAGS = {"tag": pl.String, "answers": pl.UInt32}, {"item": pl.UInt32, "tags": pl.List(pl.String)}
FORMS: dict[str, Any] = {
    "section": "methods",
    "variants": ("generative", "selective", "without_tags", "shuffled_tags"),
    "default_variants": ("generative", "without_tags", "shuffled_tags"),
    "controls": ("without_tags", "shuffled_tags"),
}


class Asking(Settings):
    """What both times of asking share."""

    chat: Chat
    words: Words = Field(Words(), description="words of the study; `item` and `items` are used")
    samples: int = Field(5, ge=1, description="answers for each item")
    temperature: float = Field(1.5, ge=0, le=2, description="of these answers, whatever other ones have")

    @property
    def asked(self) -> ChatSettings:
        """The study's chat model at this temperature."""
        parameters = self.chat.parameters.model_copy(update={"temperature": self.temperature})
        return self.chat.model_copy(update={"parameters": parameters})


def requests(prompts: Sequence[tuple[int, str]], samples: int, purpose: str) -> pl.DataFrame:
    """Columns owner, purpose, sample, messages: each (item, prompt) so many times."""
    rows = [
        (item, purpose, sample, [{"role": "user", "content": prompt}])
        for item, prompt in prompts
        for sample in range(samples)
    ]
    return pl.DataFrame(rows, schema=REQUESTS, orient="row")


# --- what is written of items ------------------------------------------------------------------------------


class Samples(Asking):
    items: int | None = Field(None, ge=1, description="ask of so many items, the first ones; null for all")


@stage(
    "taggpt/samples",
    settings=Samples,
    version=1,
    inputs={"item_text": "item_text"},
    tables={"knowledge": Knowledge},
    checks=asking.CHECKS,
    needs="chat",
    shared={**SHARED, "words": "words"},
    **FORMS,
)
def samples(item_text: Artefact, settings: Samples, out: Draft) -> None:
    """Several answers an item, with tags as the chat model likes; none for the variant without tags."""
    words = settings.words.model_dump()
    texts = item_text.table("item_text").select("item", "text")[: settings.items]
    prompts = [(item, BUILD.format(**words, text=text)) for item, text in texts.iter_rows()]
    wanted = requests([] if out.variant == "without_tags" else prompts, settings.samples, "taggpt sample")
    found = asking.ask_all(wanted, settings.asked, out)
    out.table("knowledge", found.with_columns(kind=pl.lit("tag_sample")).select(Knowledge.column_names()))


# --- the vocabulary, and each item's tags ------------------------------------------------------------------


class Tagging(Asking):
    more_than: int = Field(2, ge=0, description="a tag counts that more answers than this hold")
    merge_above: float = Field(0.95, gt=0, le=1, description="cosine above which two tags are one")
    near_above: float = Field(0.9, gt=0, le=1, description="cosine above which a tag is what an answer wrote")
    choices: int = Field(10, ge=1, description="tags that the selective tagger chooses from")
    most: int = Field(10, ge=1, description="tags of an item at most, the first ones")


def written(knowledge: pl.DataFrame) -> dict[int, list[list[str]]]:
    """The tags of each of an item's answers."""
    found: dict[int, list[list[str]]] = {}
    for item, text in knowledge.select("owner", "text").iter_rows():
        found.setdefault(item, []).append(read_tags(text or ""))
    return found


class Encoder:
    """Short texts as unit vectors, each read once."""

    def __init__(self, text_encoder: Artefact) -> None:
        from pipeline.llm.load import load_tokenizer

        self.folder = text_encoder.file("model")
        self.tokenizer = load_tokenizer(self.folder)
        self.known: dict[str, Floats] = {}

    def __call__(self, texts: Sequence[str]) -> "Floats":
        """Vectors (n, width) of texts."""
        from pipeline.text.cleaning import neutralise
        from pipeline.text.encoder import sentence_vectors

        new = sorted(set(texts) - set(self.known))
        if new:
            vectors = sentence_vectors(self.folder, neutralise(new, self.tokenizer), 64, label="encode tags")
            self.known |= dict(zip(new, vectors, strict=True))
        return np.stack([self.known[text] for text in texts]) if texts else np.zeros((0, 1), dtype=np.float32)


def generative(
    answers: Mapping[int, list[list[str]]], held: Vocabulary, encode: Encoder, near_above: float
) -> dict[int, list[str]]:
    """Each item's tags: those of the vocabulary that are near one written of it, the most frequent first."""
    own = {item: sorted({tag for tags in lists for tag in tags}) for item, lists in answers.items()}
    every = encode(held.tags)
    encode([tag for tags in own.values() for tag in tags])  # all at once
    return {
        item: [held.tags[place] for place in near_ones(encode(tags), every, near_above)]
        for item, tags in own.items()
    }


def choices(texts: pl.DataFrame, held: Vocabulary, encode: Encoder, most: int) -> dict[int, list[str]]:
    """The tags nearest to each item's text (item, text)."""
    every = encode(held.tags)
    own = encode(texts["text"].to_list())
    return {
        item: [held.tags[place] for place in candidates(vector, every, most)]
        for item, vector in zip(texts["item"].to_list(), own, strict=True)
    }


def selective(
    texts: pl.DataFrame, offered: Mapping[int, list[str]], held: Vocabulary, settings: Tagging, out: Draft
) -> dict[int, list[str]]:
    """Each item's tags by votes, of those offered. texts: item, text."""
    words = settings.words.model_dump()
    prompts = [
        (item, CHOOSE.format(**words, text=text, candidates=", ".join(offered[item])))
        for item, text in texts.iter_rows()
    ]
    wanted = requests(prompts if held.tags else [], settings.samples, "taggpt choice")
    answers = written(asking.ask_all(wanted, settings.asked, out))
    return {item: voted(answers.get(item, []), offered[item], held.merged) for item in texts["item"]}


def every_tag_is_of_the_vocabulary(draft: Draft, inputs: Mapping[str, Any], settings: Tagging) -> Verdict:
    """Every tag that an item has is of the vocabulary, and no item has one twice."""
    given = draft.read("item_tags").explode("tags", empty_as_null=False)
    strange = given.join(draft.read("tags"), left_on="tags", right_on="tag", how="anti").height
    twice = given.height - given.unique().height
    return Verdict(
        not strange and not twice, f"{strange} strange tags, {twice} doubled", {"tags": given.height}
    )


def most_items_have_tags(draft: Draft, inputs: Mapping[str, Any], settings: Tagging) -> Verdict:
    """Most items that were asked about have a tag, and not all the same ones."""
    if draft.variant == "without_tags":
        return Verdict(True, "not judged: without tags")
    share, distinct = draft.metrics["tagged_share"], draft.metrics["tag_lists"]
    words = f"{share:.1%} of the items have tags, {distinct} different lists of them"
    return Verdict(share > 0.5 and distinct > 1, words, {"share": share, "lists": distinct})


@stage(
    "taggpt/tags",
    settings=Tagging,
    version=1,
    inputs={"item_text": "item_text", "samples": "taggpt/samples", "text_encoder": "text_encoder"},
    tables={"tags": Tags, "item_tags": ItemTags},
    checks=(Check(every_tag_is_of_the_vocabulary), Check(most_items_have_tags, blocking=False)),
    needs="chat",
    shared={**SHARED, "words": "words"},
    **FORMS,
)
def tags(item_text: Artefact, samples: Artefact, text_encoder: Artefact, settings: Tagging, out: Draft) -> None:
    """The vocabulary, and every item's tags in it."""
    answers, encode = written(samples.table("knowledge")), Encoder(text_encoder)
    found = frequent((one for lists in answers.values() for one in lists), settings.more_than)
    held = vocabulary(found, encode([tag for tag, _ in found]), settings.merge_above)
    texts = item_text.table("item_text").select("item", "text").filter(pl.col("item").is_in(list(answers)))
    if out.variant == "selective":
        given = selective(texts, choices(texts, held, encode, settings.choices), held, settings, out)
    else:
        given = generative(answers, held, encode, settings.near_above)
    write_tags(held, {item: own[: settings.most] for item, own in given.items()}, out)


def write_tags(held: Vocabulary, given: Mapping[int, list[str]], out: Draft) -> None:
    """Write the vocabulary, the items' tags and their figures."""
    out.table("tags", pl.DataFrame({"tag": held.tags, "answers": held.counts}, schema=TAGS))
    rows = pl.DataFrame({"item": given.keys(), "tags": given.values()}, schema=ITEM_TAGS)
    out.table("item_tags", rows.sort("item"))
    lengths = rows["tags"].list.len()
    out.metric(
        vocabulary=len(held.tags),
        merged=len(held.merged),
        items_asked=rows.height,
        tagged_share=round(float((lengths > 0).mean() or 0), 6),  # type: ignore[arg-type]
        tags_an_item=round(float(lengths.mean() or 0), 4),  # type: ignore[arg-type]
        tag_lists=rows["tags"].n_unique(),
    )


# --- reading them ------------------------------------------------------------------------------------------

Backbone = Literal["din", "deepfm", "dcnv2", "fibinet", "autoint"]


class Reading(CtrSettings):
    backbone: Backbone = Field("dcnv2", description="which click-through model reads the tags")


def with_tags(held: Material, item_tags: pl.DataFrame) -> Material:
    """The material with one more field of the items: their tags, item_tags: item, tags."""
    known = held.seen.items
    own: list[list[str]] = [[] for _ in known]
    for item, tags in item_tags.iter_rows():
        if item < len(own):
            own[item] = tags
    field = coded("tags", "item", own, known, len(known))
    return held._replace(fields=held.fields._replace(attributes=(*held.fields.attributes, field)))


def shuffled(item_tags: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Each item has the tags of another, other ones where not more than half have the same."""
    alike = item_tags["tags"].list.join("|").rank("dense").to_numpy()
    return item_tags.with_columns(item_tags["tags"].gather(donors(alike, seed)))


@stage(
    "taggpt/predictions",
    settings=Reading,
    version=1,
    inputs={"split": "ctr/split", "dataset": "dataset", "tags": "taggpt/tags"},
    tables={"curve": Curve, "search": Search, "pairs": Pairs},
    checks=(Check(every_pair_scored_once), Check(better_than_chance, blocking=False)),
    seeded=True,
    predicts="pairs",
    needs="heavy",
    **FORMS,
)
def predictions(split: Artefact, dataset: Artefact, tags: Artefact, settings: Reading, out: Draft) -> None:
    """Scores of held-out rows by a click-through model that reads the items' tags as a field."""
    held, given = material(split, dataset, settings), tags.table("item_tags")
    if out.variant == "shuffled_tags":
        own, given = given, shuffled(given, out.seed)
        out.metric(share_changed=round(float((own["tags"] != given["tags"]).mean() or 0), 6))  # type: ignore
    if out.variant != "without_tags":
        held = with_tags(held, given)
    fit_and_score(held, settings.backbone, settings, out, "taggpt")
