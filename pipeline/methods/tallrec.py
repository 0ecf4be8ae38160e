"""TALLRec: tune a language model to say whether a user would like an item, from titles alone.

Bao et al., RecSys 2023, https://arxiv.org/abs/2305.00447. The form `titles` is the text-only prompt of CoLLM
and BinLLM (https://arxiv.org/abs/2406.03210), which is the first of their two steps.

    instructions (where the study names a set) -> ctr/split + titles -> prompts -> adapter (LoRA on yes/no)
        -> predictions, few_shot (the same for K = 16, 64, 256 ... training examples, where the study names
        them)

Variants: `titles` (liked items only), `alpaca` (the paper's own prompt, likes and dislikes). Controls:
`zero_shot` (the untuned model), `without_history`, `shuffled_history` (every row shows the history of another
user). Shared parts: `pipeline.text.prompts`, `pipeline.llm.ranker`.

Departures from the paper: any causal language model, not LLaMA-7B in 8 bit; no instruction tuning before,
unless the study names a set (`models.instructions.location`: Alpaca's is not for commercial use); the loss and
the score are the lead of the yes logit over the no logit, not the whole text's language-model loss (`loss:
lm_all`) and the softmax over two probabilities; one set of LoRA steps with early stopping on validation AUC,
not 200 epochs; prompts end in a real line end (`literal_newline` writes CoLLM's backslash-n); the remark `#
noqa: E501`, which the official code sends with every prompt, is off (`noqa_remark`); an empty history reads
`unknown` (`no_history`; CoLLM's code: `unkow`); splits are the study's, not the last 10,000 windows.
"""

from collections.abc import Mapping

import polars as pl
from pydantic import Field

from pipeline.llm.ask import Shown
from pipeline.llm.examples import donors_by_part, past_of
from pipeline.llm.ranker import YesNoRanker
from pipeline.llm.settings import Prompting
from pipeline.stage import Artefact
from pipeline.text.prompts import Template, parse
from pipeline.text.templates import TEXT_ONLY

ALPACA = """Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.{remark}

### Instruction:
Given the user's preference and unpreference, identify whether the user will like the target {item} by \
answering "Yes." or "No.".

### Input:
User Preference: {liked:titles}
User Unpreference: {disliked:titles}
Whether the user will like the target {item} {target:title}?

### Response:
"""
REMARK = "  # noqa: E501"


class TallrecPrompts(Prompting):
    noqa_remark: bool = Field(
        False, description="keep the stray remark in the Alpaca prompt, as the paper's code does"
    )


def template(variant: str, settings: TallrecPrompts) -> Template:
    """The variant's question, in the study's words."""
    words = {**settings.words.model_dump(), "remark": REMARK if settings.noqa_remark else ""}
    text, answers, empty = TEXT_ONLY, (" Yes", " No"), settings.no_history
    if variant == "alpaca":
        text, answers, empty = ALPACA, ("Yes.", "No."), ""
    return parse(text.replace("\n", "\\n") if settings.literal_newline else text, words, answers, empty)


def shown(
    asked: pl.DataFrame, inputs: Mapping[str, Artefact], settings: TallrecPrompts, variant: str, seed: int
) -> Shown:
    """What the variant shows of each example's past."""
    longest = 0 if variant == "without_history" else settings.history
    past = past_of(asked, longest, liked_only=variant != "alpaca")
    return Shown(past[donors_by_part(asked, seed)] if variant == "shuffled_history" else past)


RANKER = YesNoRanker(
    __name__,
    template,
    shown,
    variants=("titles", "alpaca", "zero_shot", "without_history", "shuffled_history"),
    default_variants=("titles", "zero_shot", "shuffled_history"),
    controls=("zero_shot", "without_history", "shuffled_history"),
    shuffled={"shuffled_history": "titles"},
    foreign=("shuffled_history",),
    untuned=("zero_shot",),
    prompting=TallrecPrompts,
    start="instructions",
)
prompts = RANKER.prompts(
    4, "What the language model is asked about each example: titles of the user's past, and the target's."
)
adapter = RANKER.adapter(5, "Low-rank weights tuned to answer yes or no; untouched ones for `zero_shot`.")
predictions = RANKER.predictions(4)
few_shot = RANKER.few_shot(
    3, "AUC over numbers of training examples, as in the paper's table; none by default."
)
