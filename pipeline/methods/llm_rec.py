"""LLM-Rec: item texts that a chat model enriched, read by a small encoder, recommended from by a plain network.

Lyu et al., Findings of NAACL 2024, https://arxiv.org/abs/2307.15780. There is no code of the authors.

    item_text + training pairs -> prompts -> llm_rec/descriptions (a chat model's texts, recorded)
        -> llm_rec/vectors (encoder's vectors of the item's own text and of each enriched one, side by side)
        -> llm_rec/predictions (users' vectors x layers over the texts; used against sampled items) -> rankings

The chat model never sees a user: it describes items, once, offline. Prompts are basic (paraphrase, tags,
inference), recommendation-driven (the same with the wish to recommend said), engagement-guided (what the item
and its three nearest on the graph of training pairs have in common: personalised PageRank), and both.

Variants: `all` (default), `basic`, `recommendation`, `engagement`, `recommendation_engagement`. Controls:
`original` (the item's own text alone), `repeated` (the own text as often as `all` has texts: the wider input
without anything new), `shuffled_texts` (each item has the enriched texts of another).

Departures: `description` is the item's own text (title and categories, MovieLens has no more), where the paper
had a language model write one for each movie first, which gives knowledge to the baseline too; prompts are
those that others quote, since the paper's appendix was not at hand (`infer_to_recommend` least surely); an item
without an answer has its own text in its place; layers' sizes and the loss's negatives are ours; cold items
stand behind all others, as with every model of the track. It has run on toys with a scripted endpoint only.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.collab.events import Trained, cold_queries, trained, user_items
from pipeline.collab.ranked import every_query_ranked_once, write_rankings
from pipeline.collab.sampled import Loss, SampledSettings
from pipeline.collab.vectors import TABLES, every_id_has_a_vector, from_fitted, from_vectors, write_vectors
from pipeline.knowledge import asking
from pipeline.knowledge.settings import SHARED, Chat
from pipeline.llm.examples import donors
from pipeline.schema import Curve, Knowledge, Neighbours, Rankings
from pipeline.stage import Artefact, Check, Draft, Settings, Verdict, stage

if TYPE_CHECKING:
    from pipeline.collab.pairs import Fit
    from pipeline.collab.vectors import Vectors

Floats = NDArray[np.float32]
SAID = "The description of an item is as follows: '{description}'"
PROMPTS = {
    "paraphrase": SAID + ", paraphrase it.",
    "tags": SAID + ", summarize it with tags.",
    "infer": SAID + ", what kind of emotions can it evoke?",
    "paraphrase_to_recommend": SAID + ", what else should I say if I want to recommend it to others?",
    "tags_to_recommend": SAID + ", what tags should I use if I want to recommend it to others?",
    "infer_to_recommend": SAID + ", recommend it with a focus on the emotions it can evoke.",
    "in_common": "Summarize the commonalities among the following descriptions: '{description}'; '{others}'.",
    "in_common_to_recommend": SAID
    + ", what else should I say if I want to recommend it to others? This content is "
    "considered to hold some similar attractive characteristics as the following descriptions: '{others}'.",
}
BASIC, DRIVEN = (
    ("paraphrase", "tags", "infer"),
    (
        "paraphrase_to_recommend",
        "tags_to_recommend",
        "infer_to_recommend",
    ),
)
KINDS: dict[str, tuple[str, ...]] = {
    "all": tuple(PROMPTS),
    "basic": BASIC,
    "recommendation": DRIVEN,
    "engagement": ("in_common",),
    "recommendation_engagement": ("in_common_to_recommend",),
    "original": (),
    "repeated": (),
    "shuffled_texts": tuple(PROMPTS),
}
FORMS: dict[str, Any] = {
    "section": "methods",
    "variants": tuple(KINDS),
    "default_variants": ("all", "original", "repeated", "shuffled_texts"),
    "controls": ("original", "repeated", "shuffled_texts"),
}


# --- what the chat model is asked --------------------------------------------------------------------------


class Descriptions(Settings):
    chat: Chat
    items: int | None = Field(None, ge=1, description="ask of so many items, the most used first; null for all")
    neighbours: int = Field(3, ge=1, description="items named in an engagement-guided prompt, at most")
    damping: float = Field(
        0.85, gt=0, lt=1, description="chance that the walk which finds them goes on, else it starts again"
    )


def neighbours(rows: Trained, settings: Descriptions) -> pl.DataFrame:
    """Columns item, neighbours: the nearest items of each on the graph of training pairs."""
    from pipeline.collab.pagerank import nearest

    found = nearest(user_items(rows), settings.neighbours, settings.damping)
    lists = pl.Series("neighbours", [[item for item in near if item >= 0] for near in found.tolist()])
    every = pl.Series("item", range(rows.n_items), dtype=pl.UInt32)
    return pl.DataFrame({"item": every, "neighbours": lists.cast(pl.List(pl.UInt32))})


def requests(
    texts: pl.DataFrame, near: pl.DataFrame, asked: Sequence[int], kinds: Sequence[str]
) -> pl.DataFrame:
    """Columns owner, kind, purpose, messages: what is asked of each item, its prompts together.

    texts: item, text; near: item, neighbours. A prompt that names neighbours is not asked of an item that has
    none.
    """
    told = dict(texts.select("item", "text").iter_rows())
    others = {item: "; ".join(told[one] for one in listed if one in told) for item, listed in near.iter_rows()}
    rows = [
        (item, kind, f"llm_rec {kind}", [{"role": "user", "content": content}])
        for item in asked
        for kind in kinds
        if (content := filled(kind, told[item], others.get(item, "")))
    ]
    message = pl.Struct({"role": pl.String, "content": pl.String})
    schema = {"owner": pl.UInt32, "kind": pl.String, "purpose": pl.String, "messages": pl.List(message)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def filled(kind: str, description: str, others: str) -> str | None:
    """The prompt, or None where it needs neighbours that are not there."""
    prompt = PROMPTS[kind]
    if "{others}" in prompt and not others:
        return None
    return prompt.format(description=description, others=others)


def asked_of(texts: pl.DataFrame, rows: Trained, most: int | None) -> list[int]:
    """Items that are asked about: all that have a text, or so many of the most used; in order of item."""
    items = texts["item"].to_numpy().astype(np.int64)
    order = np.lexsort((items, -rows.popularity[items]))[:most]
    return np.sort(items[order]).tolist()


def neighbours_are_of_train(draft: Draft, inputs: Mapping[str, Any], settings: Descriptions) -> Verdict:
    """Neighbours are those of the graph of training pairs: no held-out use of an item is told."""
    again = neighbours(trained(inputs["split"]), settings)
    moved = again.join(draft.read("neighbours"), on=["item", "neighbours"], how="anti").height
    return Verdict(not moved, f"{moved} of {again.height} items have other neighbours", {"moved": moved})


@stage(
    "llm_rec/descriptions",
    settings=Descriptions,
    version=1,
    inputs={"item_text": "item_text", "split": "next_item/split"},
    tables={"knowledge": Knowledge, "neighbours": Neighbours},
    checks=(*asking.CHECKS, Check(neighbours_are_of_train)),
    needs="chat",
    shared=SHARED,
    **FORMS,
)
def descriptions(item_text: Artefact, split: Artefact, settings: Descriptions, out: Draft) -> None:
    """What a chat model adds to the text of each item; nothing for variants without it."""
    texts, rows = item_text.table("item_text"), trained(split)
    near = neighbours(rows, settings)
    wanted = requests(texts, near, asked_of(texts, rows, settings.items), KINDS[out.variant])
    found = asking.ask_all(wanted, settings.chat, out)
    out.table("knowledge", found.with_columns(wanted["kind"]).select(Knowledge.column_names()))
    out.table("neighbours", near)
    out.metric(items_asked=wanted["owner"].n_unique(), items=texts.height)


# --- texts as vectors --------------------------------------------------------------------------------------


class TextVectors(Settings):
    max_tokens: int = Field(256, ge=2, description="tokens of a text read at most, the first ones")
    batch_tokens: int = Field(
        4096, ge=1, description="tokens of one pass, padding included; changes results by rounding only"
    )


def enriched(texts: pl.DataFrame, knowledge: pl.DataFrame, kinds: Sequence[str]) -> list[list[str]]:
    """For each kind a text of every item, its own where there is no answer."""
    told = {(kind, item): text for kind, item, text in knowledge.select("kind", "owner", "text").iter_rows()}
    return [[told.get((kind, item)) or own for item, own in texts.iter_rows()] for kind in kinds]


def shuffled(blocks: Floats, seed: int) -> Floats:
    """Blocks (n, blocks, width) in which each item has its own text still, and the enriched ones of another."""
    own, added = blocks[:, :1], blocks[donors(np.arange(len(blocks)), seed), 1:]
    return np.concatenate([own, added], axis=1)


def blocks_say_something_new(draft: Draft, inputs: Mapping[str, Any], settings: TextVectors) -> Verdict:
    """Enriched texts are not the items' own: else a variant measures nothing but its width."""
    if not KINDS[draft.variant]:
        return Verdict(True, "not judged: a variant without enriched texts")
    share = draft.metrics["texts_added"] / max(draft.metrics["texts_wanted"], 1)
    return Verdict(share > 0.5, f"{share:.1%} of the enriched texts are there", {"share": share})


@stage(
    "llm_rec/vectors",
    settings=TextVectors,
    version=1,
    inputs={"item_text": "item_text", "text_encoder": "text_encoder", "descriptions": "llm_rec/descriptions"},
    tables={},
    checks=(Check(blocks_say_something_new, blocking=False),),
    needs="gpu",
    **FORMS,
)
def vectors(
    item_text: Artefact, text_encoder: Artefact, descriptions: Artefact, settings: TextVectors, out: Draft
) -> None:
    """Vectors of every item's texts, side by side: its own, then each enriched one."""
    import torch

    from pipeline.llm.load import load_tokenizer
    from pipeline.text.cleaning import neutralise
    from pipeline.text.encoder import sentence_vectors

    folder, texts = text_encoder.file("model"), item_text.table("item_text").select("item", "text")
    tokenizer, kinds = load_tokenizer(folder), KINDS[out.variant]

    def read(lines: Sequence[str]) -> Floats:
        safe = neutralise(lines, tokenizer)
        return sentence_vectors(folder, safe, settings.max_tokens, settings.batch_tokens, "encode texts")

    own = read(texts["text"].to_list())
    added = [read(lines) for lines in enriched(texts, descriptions.table("knowledge"), kinds)]
    blocks = [own, *added, *([own] * len(PROMPTS) if out.variant == "repeated" else [])]
    found = np.stack(blocks, axis=1)
    items = torch.from_numpy(texts["item"].to_numpy().astype(np.int64))
    out.tensors("vectors", {"vectors": torch.from_numpy(found), "items": items})
    answered = descriptions.scan("knowledge").filter(pl.col("text").is_not_null()).collect().height
    out.metric(
        items=texts.height,
        texts_added=answered,
        texts_wanted=texts.height * len(kinds),
        width=found.shape[1] * found.shape[2],
    )


# --- recommending ------------------------------------------------------------------------------------------


class Recommending(SampledSettings):
    loss: Loss = Field(
        "bce", description="bpr: a used item beats each sampled one; bce: used is 1, sampled is 0"
    )
    hidden: int = Field(128, ge=1, description="width of the two layers over an item's texts")
    penalty: float = Field(0.0, ge=0, description="L2 penalty on the vectors of a batch, a row")


def learn(
    rows: Trained, queries: pl.DataFrame, texts: Floats, settings: Recommending, out: Draft
) -> "tuple[Vectors, Fit]":
    """Vectors of users and items, and how the fit went. texts: (n_items, width)."""
    import torch

    from pipeline.collab.negatives import Learner, fit_sampled
    from pipeline.collab.pairs import generator
    from pipeline.collab.text_tower import TextTower

    first = generator(out.seed, settings.epochs)  # beyond the last epoch's draws
    model = TextTower(
        rows.n_users, torch.from_numpy(texts), settings.dim, settings.hidden, settings.spread, first
    )
    learner = Learner(model, model.score, model.read)
    return fit_sampled(learner, rows, queries, settings, out.seed, out.checkpoints / "tower.safetensors")


@stage(
    "llm_rec/predictions",
    settings=Recommending,
    version=1,
    inputs={"split": "next_item/split", "vectors": "llm_rec/vectors"},
    tables={"rankings": Rankings, "curve": Curve, **TABLES},
    checks=(Check(every_query_ranked_once), Check(every_id_has_a_vector)),
    seeded=True,
    predicts="rankings",
    scorer=from_fitted,
    needs="heavy",
    **FORMS,
)
def predictions(split: Artefact, vectors: Artefact, settings: Recommending, out: Draft) -> None:
    """Users' vectors and layers over items' texts, learnt from used against sampled items; the orders they
    give."""
    from pipeline.collab.pairs import curve_table

    rows, queries, held = trained(split), split.table("queries"), vectors.tensors("vectors")
    blocks = held["vectors"].numpy()
    if out.variant == "shuffled_texts":
        blocks = shuffled(blocks, out.seed)
    texts = np.zeros((rows.n_items, blocks[0].size), dtype=np.float32)
    texts[held["items"].numpy()] = blocks.reshape(len(blocks), -1)
    learnt, fit = learn(rows, queries, texts, settings, out)
    write_rankings(out, "llm_rec", from_vectors(learnt, rows.known), split, settings)
    write_vectors(out, learnt, rows.known)
    out.table("curve", curve_table({"fit": fit}))
    out.metric(epochs=fit.best_epochs, **cold_queries(queries, rows))
