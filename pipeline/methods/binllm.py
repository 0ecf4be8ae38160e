"""BinLLM: write collaborative knowledge into the prompt as short numbers that a language model can read.

Zhang et al., ACL 2024, https://arxiv.org/abs/2406.03210

    ctr/split + titles + binary_codes -> prompts -> adapter (goes on from text-only tuning) -> predictions

The codes are the signs of a matrix factorisation (`pipeline.codes.binary`). Step one is TALLRec's `titles`;
step two goes on with the same LoRA weights on the full prompt. Shared parts: `pipeline.text.prompts`,
`pipeline.llm.ranker`.

Variants: `dotted` (bytes as decimals, 172.16.254.1), `bits` (0 and 1), `codes_only` (no titles, from fresh
LoRA weights: the paper's BinLLM-IO), `one_step` (dotted, from fresh weights: BinLLM-IT). Controls:
`without_codes` (step two on the text-only prompt: same start, rows and steps) and `shuffled_codes` (every
user and item carries the code of one with another code, where not more than half share theirs; the same in all
parts).

Departures from the paper: any causal language model, not Vicuna-7B; the loss and the score are the lead of
the yes logit over the no logit (`loss: yes_logit` is the paper's); prompts end in a real line end
(`literal_newline` writes the official files' backslash-n); an empty history reads `unknown` (`no_history`;
the code: `unkow`). The only prompt file that is shipped speaks of books: the words are the study's.
"""

from collections.abc import Mapping

import polars as pl
from pydantic import Field

from pipeline.llm.ask import Shown
from pipeline.llm.examples import donors, past_of
from pipeline.llm.ranker import YesNoRanker
from pipeline.llm.settings import Prompting, Tuning
from pipeline.stage import Artefact, Pinned
from pipeline.text.prompts import Template, parse
from pipeline.text.templates import TEXT_ONLY

FULL = (
    "#Question: A user has given high ratings to the following {items}: {liked:titles}. Additionally, we have "
    "information about the user's preferences encoded in the feature {user_code:code}. Using all available "
    "information, make a prediction about whether the user would {enjoy} the {item} titled {target:title} "
    'with the feature {item_code:code}? Answer with "Yes" or "No". \n#Answer:'
)
CODES_ONLY = (
    "#Question: We have information about the user's preferences encoded in the feature {user_code:code}. "
    "Using all available information, make a prediction about whether the user would {enjoy} the {item} with "
    'the feature {item_code:code}? Answer with "Yes" or "No". \n#Answer:'
)
TEXTS = {"codes_only": CODES_ONLY, "without_codes": TEXT_ONLY}


class BinllmTuning(Tuning):
    learning_rate: float = Field(
        1e-4, gt=0, description="AdamW's rate after the warm-up; the paper's for step two"
    )


def template(variant: str, settings: Prompting) -> Template:
    """The variant's question, in the study's words."""
    text = TEXTS.get(variant, FULL)
    text = text.replace("\n", "\\n") if settings.literal_newline else text
    return parse(text, settings.words.model_dump(), empty=settings.no_history)


def spell(codes: pl.DataFrame, entity: str, variant: str, seed: int) -> pl.DataFrame:
    """Columns `id` and `code` of all users or items, as the variant writes them; shuffled, of one unlike it."""
    chosen = codes.filter(entity=entity).sort("id")
    written = chosen["bits" if variant == "bits" else "dotted"]
    if variant == "shuffled_codes":
        written = written.gather(donors(written.to_list(), seed))
    return chosen.select("id", code=written)


def code_slots(asked: pl.DataFrame, codes: pl.DataFrame, variant: str, seed: int) -> dict[str, pl.Series]:
    """Both code slots, one string per example. Raises ValueError for a user or item without a code."""
    slots = {}
    for entity in ("user", "item"):
        written = spell(codes, entity, variant, seed)
        found = asked.select(id=entity).join(written, on="id", how="left", maintain_order="left")
        missing = found.filter(pl.col("code").is_null())["id"]
        if len(missing):
            raise ValueError(
                f"{missing.n_unique()} of the examples' {entity}s have no code, {missing.min()} among them"
            )
        slots[f"{entity}_code"] = found["code"]
    return slots


def shown(
    asked: pl.DataFrame, inputs: Mapping[str, Artefact], settings: Prompting, variant: str, seed: int
) -> Shown:
    """Liked titles of each example's past, and the codes of its user and item."""
    past = past_of(asked, 0 if variant == "codes_only" else settings.history, liked_only=True)
    return Shown(past, code_slots(asked, inputs["codes"].table("codes"), variant, seed))


RANKER = YesNoRanker(
    __name__,
    template,
    shown,
    variants=("dotted", "bits", "codes_only", "one_step", "without_codes", "shuffled_codes"),
    default_variants=("dotted", "without_codes", "shuffled_codes"),
    controls=("without_codes", "shuffled_codes"),
    shuffled={"shuffled_codes": "dotted"},
    inputs={"codes": "binary_codes"},
    tuning=BinllmTuning,
    start=Pinned("tallrec/adapter", "titles"),
    from_scratch=("codes_only", "one_step"),
)
prompts = RANKER.prompts(
    4, "What the language model is asked about each example: titles and the codes of user and item."
)
adapter = RANKER.adapter(
    5,
    "The text-only LoRA weights, tuned further on prompts with codes; fresh ones where the variant says so.",
)
predictions = RANKER.predictions(4)
