"""KAR: what a language model reasons of a user and knows of an item, as two fields of a click-through model.

Xi et al., RecSys 2024, https://arxiv.org/abs/2306.10933

    train rows -> texts (a user's first half, told) ---+-> reasoning --+
    items ------> texts -------------------------------+-> facts ------+-> vectors -> experts, backbone -> pairs

A user's text tells the first half of their train rows, at most `history`, and asks what they prefer, factor by
factor; an item's asks what is known of it on the same factors (`pipeline.knowledge.questions`). Answers are
encoded, the answer first and what was told behind it, and experts, some of them shared, turn a user's and an
item's vector into fields of any backbone (`pipeline.ctr`), learnt with it. `reasoning` and `facts` ask the
study's chat model (`ask: true`) or take answers from a file; else what was told is encoded alone.

A text is read only for rows strictly later than all it tells; for others the user's field is the learnt
`missing` one, as for users without a text. So no row's label is ever in what is read for it, and all train rows
stay.

Variants, by backbone: `din`, `deepfm`, `dcnv2`, `fibinet`, `autoint`, with both vectors. Controls of each, as
`dcnv2_without_knowledge`: `raw_text` (what was told, without any answer: more data, no language model),
`user_only`, `item_only`, `shuffled` (each user and item has another's vector), `random` (noise of one size),
`without_knowledge`, `longer_history` (without knowledge, a longer history of ids). A control is one of its
backbone alone: `variants: [din*, dcnv2*]` in a study asks for two backbones, each beside its own controls.

Departures from the paper: rows are of the study's split, by time unless it asks for users apart, and
validation chooses, not test; all train rows are learnt from, not only those after the text; the
encoder is the study's small one, its vectors brought to principal components of one scale; a field has 16
numbers, not 32, and an expert 64 between its layers, not 128; a history is pooled as liked and disliked, not
with a vector of the rating; the rate of learning is constant, which in the paper's code it is but for its name.
Departures of the backbones stand in their files.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, field_validator, model_validator

from pipeline.collab.labelled import every_pair_scored_once
from pipeline.collab.mf import better_than_chance
from pipeline.ctr.fit import Material, fit_and_score, logits, material, scored
from pipeline.ctr.settings import CtrSettings
from pipeline.knowledge import asking
from pipeline.knowledge.imported import ReadyTexts, as_knowledge, counted, outside, read
from pipeline.knowledge.questions import (
    fact_prompts,
    histories,
    reasoning_prompts,
    requests,
    safe_titles,
    told,
)
from pipeline.knowledge.reading import adaptor_of, dense_of
from pipeline.knowledge.settings import SHARED, Chat, ChatSettings
from pipeline.knowledge.vectors import KINDS, KnowledgeVectors, Vectors, vectors_of, write_vectors
from pipeline.schema import Curve, Knowledge, Pairs, Search, ToldPasts
from pipeline.stage import Artefact, Check, Draft, PerVariant, Settings, Verdict, stage
from pipeline.study import Words

if TYPE_CHECKING:
    from torch import Generator

    from pipeline.ctr.adaptor import Adaptor
    from pipeline.ctr.network import Network

BACKBONES = ("din", "deepfm", "dcnv2", "fibinet", "autoint")
WITHOUT = ("without_knowledge", "longer_history")
FORMS = ("raw_text", "user_only", "item_only", "shuffled", "random", *WITHOUT)
CONTROL_OF = {f"{backbone}_{form}": (backbone,) for backbone in BACKBONES for form in FORMS}
CONTROLS = tuple(CONTROL_OF)
VARIANTS = (*BACKBONES, *CONTROLS)
SAME = 1e-4  # of a logit: stored vectors and the experts may differ by rounding only


# --- what is told ----------------------------------------------------------------------------------------


class Told(Settings):
    words: Words = Field(
        Words(), description="words of the study; movie, film and book have factors of their own"
    )
    history: int = Field(
        30, ge=1, description="train interactions that a user's text tells at most, the first ones"
    )
    half_of: Literal["train", "all"] = Field(
        "train",
        description="a user's rows of which the first half is told; all: their number counts the held-out rows "
        "too, where the split holds out some users' second half (`kind: users`)",
    )
    title_length: int = Field(80, ge=8, description="characters of a title told at most")


def only_the_past_is_told(draft: Draft, inputs: Mapping[str, Any], settings: Told) -> Verdict:
    """Every told item was used by its user in a train row, not after the moment that its text ends at.

    Looked up in the split by another way than the texts were made.
    """
    events = draft.read("told").explode("items", empty_as_null=False).rename({"items": "item"})
    examples = inputs["split"].scan("examples").filter(part="train").select("user", "item", used="at").collect()
    uses = events.join(examples, on=["user", "item"], how="left").filter(pl.col("used") <= pl.col("until"))
    wrong = events.unique(["user", "item"]).height - uses.unique(["user", "item"]).height
    return Verdict(not wrong, f"{wrong} told items are not of the past", {"told": events.height})


def held_out_labels_tell_nothing(draft: Draft, inputs: Mapping[str, Any], settings: Told) -> Verdict:
    """With every rating and label outside train turned round, the texts stay as they are."""
    examples = inputs["split"].scan("examples").select("row", "part", "label").collect()
    interactions = inputs["dataset"].table("interactions")
    hidden = ~pl.col("row").is_in(examples.filter(part="train")["row"].implode())
    turned = interactions.with_columns(
        rating=pl.when(hidden).then(pl.col("rating").max() - pl.col("rating") + 1).otherwise("rating")
    )
    outside_train = pl.when(part="train").then("label").otherwise(1 - pl.col("label").cast(pl.Int8))
    again, _ = user_texts(turned, examples.with_columns(label=outside_train), inputs["dataset"], settings)
    mine = draft.read("knowledge").filter(kind="user_history").select("owner", "text")
    moved = mine.join(again, on=["owner", "text"], how="anti").height
    return Verdict(not moved, f"{moved} texts hang on a label outside train", {"texts": mine.height})


def user_texts(
    interactions: pl.DataFrame, examples: pl.DataFrame, dataset: Artefact, settings: Told
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is told of each user, in words (owner, text) and as `told` has it."""
    pasts = told(interactions, examples, settings.history, settings.half_of == "all")
    titles = safe_titles(dataset.table("items"), settings.title_length)
    profiles = dict(dataset.table("users").select("user", "profile").iter_rows())
    return histories(pasts, titles, profiles, settings.words), pasts


@stage(
    "kar/texts",
    settings=Told,
    section="models",
    version=1,
    inputs={"split": "ctr/split", "dataset": "dataset", "item_text": "item_text"},
    tables={"knowledge": Knowledge, "told": ToldPasts},
    checks=(Check(only_the_past_is_told), Check(held_out_labels_tell_nothing)),
    shared={"words": "words"},
)
def texts(split: Artefact, dataset: Artefact, item_text: Artefact, settings: Told, out: Draft) -> None:
    """What is told of each user and item, in the prompts' own words and without any answer."""
    examples = split.scan("examples").select("row", "part", "label").collect()
    users, pasts = user_texts(dataset.table("interactions"), examples, dataset, settings)
    items = item_text.table("item_text").select(pl.col("item").alias("owner"), "text")
    rows = pl.concat(
        [users.with_columns(kind=pl.lit("user_history")), items.with_columns(kind=pl.lit("item_text"))]
    )
    nothing = {"status": pl.lit("not_asked"), "answer": pl.lit(None, dtype=pl.String)}
    out.table("knowledge", rows.with_columns(**nothing).select(Knowledge.column_names()))
    out.table("told", pasts.select(ToldPasts.column_names()))
    told_items = pasts["items"].list.len()
    out.metric(
        users_with_a_text=users.height,
        mean_told=round(float(told_items.mean() or 0), 3),  # type: ignore[arg-type]
        most_told=int(told_items.max() or 0),  # type: ignore[arg-type]
    )


# --- what is known -----------------------------------------------------------------------------------------


class Answers(ReadyTexts):
    words: Words = Field(Words(), description="words of the study; films and books have factors of their own")
    title_length: int = Field(80, ge=8, description="characters of a title that is asked about at most")
    ask: bool = Field(False, description="ask the study's chat model, about each user or item once")
    chat: Chat = Field(ChatSettings.model_validate({}), description="the chat model, as `models.chat` has it")

    @model_validator(mode="after")
    def one_source(self) -> Self:
        if self.ask and self.location:
            raise ValueError("`ask` and `location`: name a file of answers or ask for them, not both")
        return self


class Facts(Answers):
    id: str = Field("item_id", description="the file's column with the source's own ids of items")


class Reasoning(Answers):
    id: str = Field("user_id", description="the file's column with the source's own ids of users")


def most_have_an_answer(draft: Draft, inputs: Mapping[str, Any], settings: Answers) -> Verdict:
    """Enough owners have an answer: half of them of a file, of a chat model the share that the study wants."""
    if settings.ask:
        return asking.answers_cover(draft, inputs, settings)
    if settings.location is None:
        return Verdict(True, "nobody is asked and no file is named: what was told stands in for answers")
    found = {name: draft.metrics[name] for name in ("answered", "refused", "not_asked")}
    return Verdict(found["answered"] * 2 >= sum(found.values()), str(found), found)


def answers_differ(draft: Draft, inputs: Mapping[str, Any], settings: Answers) -> Verdict:
    """A chat model does not say the same of everything."""
    return asking.answers_differ(draft, inputs, settings) if settings.ask else Verdict(True, "nobody is asked")


def answers(settings: Answers, owners: pl.DataFrame, asked: pl.DataFrame, kind: str, out: Draft) -> None:
    """Write the `knowledge` of the chat model, of a file or of nobody.

    owners: owner, id. asked: owner, prompt, of those that a chat model is asked about.
    """
    if settings.ask:
        texts = asking.ask_all(requests(asked, f"kar/{kind}"), settings.chat, out)
        table = texts.with_columns(kind=pl.lit(kind)).select(Knowledge.column_names())
    else:
        nobody = pl.DataFrame(schema={"id": pl.String, "text": pl.String})
        ready = read(settings, out.root) if settings.location else nobody
        table = as_knowledge(ready, owners, kind, settings.longest)
        out.metric(of_nobody_here=ready.join(owners, on="id", how="anti").height)
    out.table("knowledge", table)
    out.metric(**counted(table))


ANSWERS = {
    "section": "models",
    "version": 2,
    "tables": {"knowledge": Knowledge},
    "checks": (
        Check(most_have_an_answer, blocking=False),
        Check(answers_differ, blocking=False),
        Check(asking.texts_open_no_turn),
    ),
    "outside": outside,
    "needs": "chat",
    "shared": {**SHARED, "words": "words"},
    "measured": True,
}


@stage("kar/facts", settings=Facts, inputs={"dataset": "dataset"}, **ANSWERS)
def facts(dataset: Artefact, settings: Facts, out: Draft) -> None:
    """What a language model knows of each item: asked for, or from a file."""
    items = dataset.table("items")
    asked = fact_prompts(items, settings.title_length, settings.words)
    answers(settings, items.select(owner="item", id="item_id"), asked, "item_facts", out)


@stage("kar/reasoning", settings=Reasoning, inputs={"dataset": "dataset", "texts": "kar/texts"}, **ANSWERS)
def reasoning(dataset: Artefact, texts: Artefact, settings: Reasoning, out: Draft) -> None:
    """What a language model reasons of each user's preferences: asked for, or from a file.

    A file must be made of what `kar/texts` tells, or of less: what was known later may not stand in it.
    """
    told_of = texts.table("knowledge").filter(kind="user_history").select("owner", "text")
    asked = reasoning_prompts(told_of, settings.words)
    owners = dataset.table("users").select(owner="user", id="user_id")
    answers(settings, owners, asked, "user_reasoning", out)


def every_owner_has_a_vector(draft: Draft, inputs: Mapping[str, Any], settings: KnowledgeVectors) -> Verdict:
    """Every user and item with a text has one finite vector."""
    from safetensors.numpy import load_file

    held = Vectors(**load_file(draft.file("vectors.safetensors")))
    finite = bool(np.isfinite(held.user).all() and np.isfinite(held.item).all())
    fits = len(held.user) == len(held.user_owner) and len(held.item) == len(held.item_owner)
    counts = {"users": len(held.user), "items": len(held.item)}
    return Verdict(finite and fits, f"{counts}, width {held.user.shape[1]}", counts)


def few_texts_are_cut(draft: Draft, inputs: Mapping[str, Any], settings: KnowledgeVectors) -> Verdict:
    """Less than half of the texts are longer than what is read of them."""
    cut = {
        kind: draft.metrics[f"{kind}_texts_cut"] / draft.metrics[f"{kind}_texts"] for kind in ("user", "item")
    }
    words = ", ".join(f"{share:.0%} of the texts of {kind}s" for kind, share in cut.items())
    return Verdict(max(cut.values()) < 0.5, f"cut: {words}", cut)


class RawVectors(Settings):
    like: KnowledgeVectors = Field(
        KnowledgeVectors.model_validate({}), description="settings of `kar/vectors`, so that both are alike"
    )

    @field_validator("like", mode="before")
    @classmethod
    def defaults_where_nothing_is_written(cls, written: Any) -> Any:
        return written or {}


VECTORS = {
    "section": "models",
    "version": 1,
    "checks": (Check(every_owner_has_a_vector), Check(few_texts_are_cut, blocking=False)),
    "needs": "gpu",
}


def joined(texts: pl.DataFrame, kind: str, answers: pl.DataFrame, keep_both: bool) -> pl.DataFrame:
    """owner, text: the answer where there is one, first; behind it, or in its place, what was told."""
    told_of = texts.filter(kind=kind).select("owner", "text")
    given = answers.drop_nulls("text").select("owner", answer="text")
    both = told_of.join(given, on="owner", how="left", maintain_order="left")
    first = pl.format("{} {}", "answer", "text") if keep_both else pl.col("answer")
    return both.select("owner", text=pl.coalesce(first, "text"))


@stage(
    "kar/raw_vectors",
    settings=RawVectors,
    inputs={"texts": "kar/texts", "text_encoder": "text_encoder"},
    shared={"like": "models.kar.vectors"},
    **VECTORS,
)
def raw_vectors(texts: Artefact, text_encoder: Artefact, settings: RawVectors, out: Draft) -> None:
    """One vector for each user and item: what an encoder makes of what was told, without any answer."""
    rows = texts.table("knowledge")
    told_of = {
        kind: rows.filter(kind=name).select("owner", "text")
        for kind, name in (("user", "user_history"), ("item", "item_text"))
    }
    write_vectors(told_of, text_encoder.file("model"), settings.like, out)


@stage(
    "kar/vectors",
    settings=KnowledgeVectors,
    inputs={
        "texts": "kar/texts",
        "reasoning": "kar/reasoning",
        "facts": "kar/facts",
        "text_encoder": "text_encoder",
    },
    **VECTORS,
)
def vectors(
    texts: Artefact,
    reasoning: Artefact,
    facts: Artefact,
    text_encoder: Artefact,
    settings: KnowledgeVectors,
    out: Draft,
) -> None:
    """One vector for each user and item: what an encoder makes of the answers, and of what was told."""
    rows = texts.table("knowledge")
    both = {
        "user": joined(rows, "user_history", reasoning.table("knowledge"), keep_both=True),
        "item": joined(rows, "item_text", facts.table("knowledge"), keep_both=False),
    }
    write_vectors(both, text_encoder.file("model"), settings, out)
    out.metric(users_answered=reasoning.metrics["answered"], items_answered=facts.metrics["answered"])


# --- what is learnt ----------------------------------------------------------------------------------------


class KarSettings(CtrSettings):
    shared: int = Field(2, ge=0, description="experts that users' and items' vectors share")
    dedicated: int = Field(2, ge=1, description="experts of users' vectors alone, and as many of items'")
    hidden: int = Field(64, ge=1, description="numbers between an expert's two layers")
    longer: int = Field(60, ge=1, description="items of a history that `longer_history` reads")


def parts_of(variant: str) -> tuple[str, str]:
    """Backbone and form: `dcnv2_user_only` is dcnv2 and user_only; a backbone alone has the form `both`."""
    backbone, _, form = variant.partition("_")
    return backbone, form or "both"


def experts(settings: KarSettings, form: str) -> Any:
    """What makes the adaptor of a form: of users, of items or of both."""

    def make(held: Material, draws: "Generator") -> "Adaptor":
        assert held.dense is not None
        return adaptor_of(held.dense, settings.dim, settings, form, draws)

    return make


def no_text_tells_its_row(draft: Draft, inputs: Mapping[str, Any], settings: KarSettings) -> Verdict:
    """Every row that reads a user's text is strictly later than the last interaction that the text tells."""
    from safetensors.numpy import load_file

    file = draft.file("adapted.safetensors")
    if not file.exists():
        return Verdict(True, "without knowledge")
    held = load_file(file)
    rows = inputs["split"].scan("examples").select("user", "at").collect()
    reading = rows.with_columns(read=pl.Series(held["user_of_row"] < len(held["user"]) - 1)).filter("read")
    until = inputs["texts"].table("told").select("user", "until")
    early = reading.join(until, on="user", how="left").filter(
        pl.col("until").is_null() | (pl.col("at") <= pl.col("until"))
    )
    return Verdict(not early.height, f"{early.height} rows read a text of their own moment or later", {})


def stored_vectors_score_the_same(draft: Draft, inputs: Mapping[str, Any], settings: KarSettings) -> Verdict:
    """The stored, adapted vectors give the scores that texts' vectors and experts give."""
    gap = draft.metrics.get("stored_gap")
    return Verdict(gap is None or gap < SAME, "without knowledge" if gap is None else f"largest gap {gap:.2g}")


def knowledge_moves_scores(draft: Draft, inputs: Mapping[str, Any], settings: KarSettings) -> Verdict:
    """At least half of the scores would be others without the vectors."""
    share = draft.metrics.get("scores_moved_share")
    return Verdict(share is None or share >= 0.5, "without knowledge" if share is None else f"{share:.0%} move")


def inspected(model: "Network", held: Material, out: Draft) -> None:
    """Write the adapted vectors, ready to serve; and measure what they are worth to the held-out scores."""
    import torch

    assert model.adaptor is not None
    assert held.dense is not None
    stored, some = model.adaptor.stored(), held.asked(~held.of("train"))
    score = logits(model, some, stored)
    nothing = torch.tensor([len(stored.user) - 1, len(stored.item) - 1]).expand_as(some.dense)
    moved = np.abs(score - scored(model, some._replace(dense=nothing))) > SAME
    of_row = zip(KINDS, held.dense, strict=True)
    reads = {f"{kind}_of_row": torch.from_numpy(one.of_example) for kind, one in of_row}
    out.tensors("adapted", {**stored._asdict(), **reads})
    read = held.dense[0].of_example < len(held.dense[0].rows)
    shares = {f"{part}_reads_user_share": float(read[held.of(part)].mean()) for part in ("train", "test")}
    out.metric(
        stored_gap=float(np.abs(score - logits(model, some)).max(initial=0.0)),
        scores_moved_share=round(float(moved.mean()), 6) if len(moved) else None,
        **{name: round(share, 6) for name, share in shares.items()},
    )


@stage(
    "kar/predictions",
    settings=KarSettings,
    section="methods",
    version=2,
    inputs={
        "split": "ctr/split",
        "dataset": "dataset",
        "texts": "kar/texts",
        "knowledge": PerVariant(
            {variant: "kar/vectors" for variant in VARIANTS}
            | {f"{backbone}_raw_text": "kar/raw_vectors" for backbone in BACKBONES}
            | {f"{backbone}_{form}": "kar/texts" for backbone in BACKBONES for form in WITHOUT}
        ),
    },
    tables={"curve": Curve, "search": Search, "pairs": Pairs},
    checks=(
        Check(every_pair_scored_once),
        Check(no_text_tells_its_row),
        Check(stored_vectors_score_the_same),
        Check(knowledge_moves_scores, blocking=False),
        Check(better_than_chance, blocking=False),
    ),
    seeded=True,
    variants=VARIANTS,
    default_variants=("dcnv2", "dcnv2_without_knowledge"),
    controls=CONTROLS,
    control_of=CONTROL_OF,
    predicts="pairs",
    needs="heavy",
)
def predictions(
    split: Artefact, dataset: Artefact, texts: Artefact, knowledge: Artefact, settings: KarSettings, out: Draft
) -> None:
    """A click-through model with what is known of users and items as two of its fields, and its scores."""
    backbone, form = parts_of(out.variant)
    if form in WITHOUT:
        longest = settings.longer if form == "longer_history" else settings.history
        plain = settings.model_copy(update={"history": longest})
        fit_and_score(material(split, dataset, plain), backbone, plain, out, "kar")
        return
    rows = split.scan("examples").select("user", "item", "at").collect()
    pasts = texts.table("told").select("user", "until")
    dense = dense_of(vectors_of(knowledge), rows, pasts, form, out.seed)
    held = material(split, dataset, settings, dense)
    best = fit_and_score(held, backbone, settings, out, "kar", experts(settings, form))
    inspected(best, held, out)
