"""ReLLa: show a language model not the user's latest items but those most like the one that it is asked about.

Lin et al., WWW 2024, https://arxiv.org/abs/2308.11131

    item_text -> lm_embeddings -> the K items of each past most similar to the target
              -> prompts with rated histories -> adapter (LoRA on a mixed set) -> predictions

Semantic user behaviour retrieval (SUBR) shortens a long history to what bears on the target; retrieval-enhanced
instruction tuning (ReiT) asks every training row twice, with the latest K items and with the retrieved K, so
that 2N prompts are tuned on, and tests with the retrieved ones. Shared parts: `pipeline.llm.embed`,
`pipeline.text.retrieval`, `pipeline.llm.ranker`.

Variants: `retrieved` (mixed set, items in order of time: the paper's "sequential"), `by_similarity` (mixed set,
the most similar next to the question: "high"), `without_mixture` (retrieved only). Controls: `recent` (the
latest K everywhere), `random` (any K of the past in place of the retrieved), `minilm` (a small text encoder's
vectors in place of the language model's). All have the same number of training prompts: where a set is not
mixed, every row is asked twice alike.

Departures from the paper: any causal language model, not Vicuna-13B in 8 bit; the loss and the score are the
lead of the yes logit over the no logit (`loss: lm_answer` is the paper's); no chat wrapper and no profile line
unless asked for (`chat`, `profile`); titles are quoted and items numbered from 1, not Python's lists; the past
that is searched is as long as the split's `history` allows; histories shorter than 5 are kept; the best step is
chosen on validation rows, not on the test set; vectors are means over all of a text's tokens, not one generated
position's state. Without ratings in the source, items are shown as liked or disliked.
"""

from collections.abc import Mapping
from typing import Literal

import polars as pl
from pydantic import Field

from pipeline.llm.ask import Shown, model_folder
from pipeline.llm.load import load_tokenizer
from pipeline.llm.ranker import YesNoRanker
from pipeline.llm.ratings import history_ratings, notes
from pipeline.llm.settings import Prompting
from pipeline.stage import Artefact, PerVariant
from pipeline.text.cleaning import clean, neutralise
from pipeline.text.embeddings import as_array
from pipeline.text.prompts import Template, parse
from pipeline.text.retrieval import chances, highest, retrieval_check, similarities

QUESTION = (
    "The user has {used} the following {items} in the past and rated them:\n{rated:titles}\n"
    "Based on the {items} the user has {used}, deduce if the user will like the {item} {target:title}.\n"
    "Note that {note:title}\nYou should ONLY tell me yes or no."
)
PROFILE = "The user's profile: {profile:title}.\n"
STARS = "more stars the user rated the {item}, the user liked the {item} more."
WORDS = "the user said of each of them whether they liked it."
CHATS = {
    "none": ("{question} Answer:", (" Yes", " No")),
    "vicuna": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: {question} ASSISTANT:",
        (" Yes", " No"),
    ),
    "chatml": ("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", ("Yes", "No")),
}
SUBR = ("retrieved", "by_similarity", "without_mixture", "minilm")  # variants that show the most similar items
VARIANTS = (*SUBR, "recent", "random")


class RellaPrompts(Prompting):
    history: int = Field(
        10, ge=0, description="history items shown at most: the K of top-K; the paper's is 15 to 60"
    )
    chat: Literal["none", "vicuna", "chatml"] = Field(
        "none",
        description="wrapper of the question: vicuna is the paper's, chatml that of many newer chat models",
    )
    profile: bool = Field(
        False, description="tell the user's profile first, as the paper does, where it is known"
    )


def template(variant: str, settings: RellaPrompts) -> Template:
    """The question in the study's words and in its chat wrapper; the same for all variants."""
    wrapper, answers = CHATS[settings.chat]
    text = wrapper.replace("{question}", (PROFILE if settings.profile else "") + QUESTION)
    text = text.replace("\n", "\\n") if settings.literal_newline else text
    return parse(text, settings.words.model_dump(), answers, settings.no_history)


def shown(
    asked: pl.DataFrame, inputs: Mapping[str, Artefact], settings: RellaPrompts, variant: str, seed: int
) -> Shown:
    """The rated items of each example's past that the variant chooses, and how their ratings are told."""
    interactions = rated(inputs)
    opinions = notes(asked["history_labels"], history_ratings(asked, interactions))
    past = asked.select(items="history", labels="history_labels", notes=opinions)
    slots = {"note": pl.repeat(meaning(interactions, settings), asked.height, eager=True)}
    if settings.profile:
        slots["profile"] = profiles(asked, inputs, settings)
    return Shown(chosen(past, asked, inputs, settings, variant, seed), slots)


def rated(inputs: Mapping[str, Artefact]) -> pl.DataFrame:
    """The interactions that histories may hold, with their ratings."""
    interactions = inputs["dataset"].table("interactions")
    if inputs["split"].settings.get("history_from") != "train":
        return interactions
    train = inputs["split"].scan("examples").filter(pl.col("part") == "train").select("row").collect()
    return interactions.join(train, on="row", how="semi")


def meaning(interactions: pl.DataFrame, settings: RellaPrompts) -> str:
    """What the question says of how items are rated: by stars where the source has any."""
    text = STARS if interactions["rating"].is_not_null().any() else WORDS
    return text.replace("{item}", settings.words.item)


def chosen(
    past: pl.DataFrame,
    asked: pl.DataFrame,
    inputs: Mapping[str, Artefact],
    settings: RellaPrompts,
    variant: str,
    seed: int,
) -> pl.DataFrame:
    """The K items of each past that the variant shows, in its order."""
    if variant == "recent":
        return past.select(pl.all().list.tail(settings.history))
    if variant == "random":
        return highest(past, chances(past, asked["row"], seed), settings.history, "time")
    table = inputs["vectors"].table("item_embeddings")
    alike = similarities(past, asked["item"], table["item"], as_array(table))
    order = "similarity" if variant == "by_similarity" else "time"
    return highest(past, alike, settings.history, order)


def by_variant(own: str, small: str) -> PerVariant:
    """The stage that a variant's vectors come from: the text encoder's for `minilm`."""
    return PerVariant({variant: small if variant == "minilm" else own for variant in VARIANTS})


def profiles(asked: pl.DataFrame, inputs: Mapping[str, Artefact], settings: RellaPrompts) -> pl.Series:
    """Each example's user in words, made harmless; `unknown` where the source tells nothing."""
    users = inputs["dataset"].table("users").select("user", pl.col("profile").fill_null("unknown"))
    told = [clean(text, settings.title_length) for text in users["profile"]]
    safe = neutralise(told, load_tokenizer(model_folder(inputs["language_model"])))
    named = users.select("user", profile=pl.Series(safe, dtype=pl.String))
    return asked.join(named, on="user", how="left", maintain_order="left")["profile"]


RANKER = YesNoRanker(
    __name__,
    template,
    shown,
    variants=VARIANTS,
    default_variants=("retrieved", "recent", "random"),
    controls=("minilm", "recent", "random"),
    inputs={
        "vectors": by_variant("lm_embeddings", "text_embeddings"),
        "similar": by_variant("similar_items/lm", "similar_items/text"),
    },
    prompting=RellaPrompts,
    asked_again={
        "retrieved": "recent",
        "by_similarity": "recent",
        "minilm": "recent",
        "random": "recent",
        "recent": "recent",
        "without_mixture": "without_mixture",
    },
    checks=(retrieval_check(SUBR),),
    reads_ratings=True,
)
prompts = RANKER.prompts(
    1, "What the language model is asked: rated items of the user's past that are most like the target."
)
adapter = RANKER.adapter(
    3, "Low-rank weights tuned on every training row asked twice, with the latest items and the retrieved."
)
predictions = RANKER.predictions(3)
