"""CoLLM: let a language model read a recommender's own vectors, mapped into the space of its words.

Zhang et al., TKDE 2025, https://arxiv.org/abs/2310.19488

    ctr/split + titles + an encoder's vectors -> prompts with soft tokens -> adapter -> predictions

A user and the target are one soft token each (`soft_tokens`): the encoder's vector through a projector, Linear
(d, 10 d), ReLU, Linear (10 d, width), which users and items share. Step one tunes low-rank weights on words
alone (TALLRec's `titles`); step two leaves them as they are and tunes the projector on the whole prompt.
Shared parts: `pipeline.llm.soft_tokens`, `pipeline.llm.ranker`, `pipeline.collab.encoders`.

Variants, by encoder: `mf`, `lightgcn`, `sasrec`, `din`. By tuning, with `mf`: `tuned_vectors` (step two tunes
the vectors as well, the paper's T1), `fresh_vectors` (the same from random ones, T2), `one_step` (low-rank
weights and projector together from the start, T3). Controls: `without_vectors` (step two on words alone: the
same start, rows and steps, with the low-rank weights to tune, since there is nothing else) and
`shuffled_vectors` (every user and item shows the vector of one unlike it; the same in all parts).

Departures from the paper: any causal language model, not Vicuna-7B; the loss and the score are the lead of the
yes logit over the no logit (`loss: yes_logit` is the paper's); encoders are the study's own, chosen by
validation; cold users and items have the mean vector, not an untrained one; T1 and T2 tune the vectors, which
for MF is the whole model; the rate falls linearly after the warm-up, where the paper's is a cosine after 200
warm-up steps (`schedule: cosine` and `warm_up: 200` are theirs); prompts end in a real line end
(`literal_newline`) and an empty history reads `unknown` (`no_history`).
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.collab.encoders import Encoded, vectors_of
from pipeline.llm.ask import Shown
from pipeline.llm.examples import donors, past_of
from pipeline.llm.ranker import YesNoRanker
from pipeline.llm.settings import Plan, Prompting, SoftTuning
from pipeline.stage import Artefact, PerVariant, Pinned
from pipeline.text.prompts import Template, parse
from pipeline.text.templates import TEXT_ONLY

FULL = (
    "#Question: A user has given high ratings to the following {items}: {liked:titles}. Additionally, we have "
    "information about the user's preferences encoded in the feature {user:soft:SOFT}. Using all available "
    "information, make a prediction about whether the user would {enjoy} the {item} titled {target:title} "
    'with the feature {target_item:soft:SOFT}? Answer with "Yes" or "No". \n#Answer:'
)
ENCODERS = {"mf": "mf", "lightgcn": "ctr/lightgcn", "sasrec": "ctr/sasrec", "din": "ctr/din"}
PLANS = {
    "tuned_vectors": Plan(lora=False, vectors="tuned"),
    "fresh_vectors": Plan(lora=False, vectors="fresh"),
    "one_step": Plan(lora=True),
}
CONTROLS = ("without_vectors", "shuffled_vectors")


class CollmPrompts(Prompting):
    soft_tokens: int = Field(1, ge=1, description="soft tokens that show one user or item")


def template(variant: str, settings: CollmPrompts) -> Template:
    """The variant's question, in the study's words."""
    text = TEXT_ONLY if variant == "without_vectors" else FULL.replace("SOFT", str(settings.soft_tokens))
    text = text.replace("\n", "\\n") if settings.literal_newline else text
    return parse(text, settings.words.model_dump(), empty=settings.no_history)


def plan(variant: str) -> Plan | None:
    """What is tuned: the projector alone, unless the variant is about just that; None without soft tokens."""
    return None if variant == "without_vectors" else PLANS.get(variant, Plan(lora=False))


def vectors(
    inputs: Mapping[str, Artefact], settings: CollmPrompts, variant: str, seed: int
) -> NDArray[np.float32] | None:
    """All vectors of users, then all of items, (n, d); None for words alone."""
    if variant == "without_vectors":
        return None
    held = vectors_of(inputs["encoder"])
    return np.concatenate([held.user, held.item])


def others(table: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """For each vector (n, d) the row of another, unequal one, where not more than half are the same."""
    return donors(np.unique(table, axis=0, return_inverse=True)[1].ravel(), seed)


def vector_slots(
    asked: pl.DataFrame, held: Encoded, examples: pl.DataFrame, variant: str, seed: int
) -> dict[str, pl.Series]:
    """Which of `vectors` each example shows of its user and its target; shuffled, those of others."""
    user, item = held.users_of(examples, asked["row"]).to_numpy(), asked["item"].to_numpy()
    if variant == "shuffled_vectors":
        user, item = others(held.user, seed)[user], others(held.item, seed)[item]
    return {"user.vector": pl.Series(user), "target_item.vector": pl.Series(item + len(held.user))}


def shown(
    asked: pl.DataFrame, inputs: Mapping[str, Artefact], settings: CollmPrompts, variant: str, seed: int
) -> Shown:
    """Liked titles of each example's past, and which vectors are its user's and its target's."""
    past = past_of(asked, settings.history, liked_only=True)
    if variant == "without_vectors":
        return Shown(past)
    examples = inputs["split"].scan("examples").select("row").collect()
    return Shown(past, vector_slots(asked, vectors_of(inputs["encoder"]), examples, variant, seed))


RANKER = YesNoRanker(
    __name__,
    template,
    shown,
    variants=(*ENCODERS, *PLANS, *CONTROLS),
    default_variants=("mf", *CONTROLS),
    controls=CONTROLS,
    shuffled={"shuffled_vectors": "mf"},
    inputs={"encoder": PerVariant({variant: "mf" for variant in (*PLANS, *CONTROLS)} | ENCODERS)},
    prompting=CollmPrompts,
    tuning=SoftTuning,
    start=Pinned("tallrec/adapter", "titles"),
    from_scratch=("one_step",),
    vectors=vectors,
    plan=plan,
)
prompts = RANKER.prompts(
    2, "What the language model is asked about each example: titles, and vectors of user and target."
)
adapter = RANKER.adapter(
    3, "A projector of vectors into words, tuned behind the text-only LoRA weights; what else the variant says."
)
predictions = RANKER.predictions(3)
