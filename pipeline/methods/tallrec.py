"""TALLRec: tune a language model to say whether a user would like an item, from titles alone.

Bao et al., RecSys 2023, https://arxiv.org/abs/2305.00447; its second stage, rec-tuning. The form `titles` is
the text-only prompt of CoLLM and BinLLM (https://arxiv.org/abs/2406.03210), which is the first of BinLLM's
two steps.

    ctr/split + titles -> prompts -> adapter (LoRA on yes/no) -> predictions

Variants: `titles` (liked items only), `alpaca` (the paper's own prompt, likes and dislikes). Controls:
`zero_shot` (the untuned model), `without_history`, `shuffled_history` (every row shows the history of another
user). Shared parts: `pipeline.text.prompts`, `pipeline.llm.ranker`.

Departures from the paper: any causal language model, not LLaMA-7B in 8 bit, and no Alpaca tuning before; the
loss and the score are the lead of the yes logit over the no logit, not the whole text's language-model loss
(`loss: lm_all`) and the softmax over two probabilities; one set of LoRA steps with early stopping on
validation AUC, not 200 epochs; prompts end in a real line end (`literal_newline` writes CoLLM's backslash-n);
the remark `# noqa: E501`, which the official code sends with every prompt, is off (`noqa_remark`); an empty
history reads `unknown` (`no_history`; CoLLM's code: `unkow`); splits are the study's, not the last 10,000
windows.
"""

from collections.abc import Mapping

import polars as pl
from pydantic import Field

from pipeline.llm import controls, ranker
from pipeline.llm.load import load_tokenizer
from pipeline.llm.settings import Prompting, Scoring, Tuning
from pipeline.schema import Curve, Pairs, Prompts
from pipeline.stage import Artefact, Draft, stage
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
VARIANTS = ("titles", "alpaca", "zero_shot", "without_history", "shuffled_history")
CONTROLS = ("zero_shot", "without_history", "shuffled_history")
DEFAULT_VARIANTS = ("titles", "zero_shot", "shuffled_history")


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


def make_prompts(
    inputs: Mapping[str, Artefact], settings: TallrecPrompts, variant: str, seed: int, examples: pl.DataFrame
) -> pl.DataFrame:
    """The table `prompts` of one variant: `train_rows` of train, all of valid and test."""
    asked = ranker.few_shot(examples, settings.train_rows, seed)
    longest = 0 if variant == "without_history" else settings.history
    items, labels = ranker.histories_of(asked, longest, liked_only=variant != "alpaca")
    if variant == "shuffled_history":
        taken = ranker.donors_by_part(asked, seed)
        items, labels = [items[i] for i in taken], [labels[i] for i in taken]
    titles = dict(inputs["dataset"].table("items").select("item", "title").iter_rows())
    tokenizer = load_tokenizer(ranker.model_folder(inputs["language_model"]))
    return ranker.ask(asked, (items, labels), titles, template(variant, settings), {}, settings, tokenizer)


@stage(
    "tallrec/prompts",
    settings=TallrecPrompts,
    section="methods",
    version=2,
    inputs={"split": "ctr/split", "dataset": "dataset", "language_model": "language_model"},
    tables={"prompts": Prompts},
    checks=(*ranker.prompt_checks(make_prompts, shuffled=("shuffled_history",)), *controls.CONTROL_CHECKS),
    seeded=True,
    variants=VARIANTS,
    default_variants=DEFAULT_VARIANTS,
    controls=CONTROLS,
    shared={"words": "words"},
)
def prompts(
    split: Artefact, dataset: Artefact, language_model: Artefact, settings: TallrecPrompts, out: Draft
) -> None:
    """What the language model is asked about each example: titles of the user's past, and the target's."""
    inputs = {"dataset": dataset, "language_model": language_model}
    examples = split.table("examples")
    table = make_prompts(inputs, settings, out.variant, out.seed, examples)
    ranker.write_prompts(table, template(out.variant, settings).answers, out)
    if out.variant == "shuffled_history":
        own = make_prompts(inputs, settings, "titles", out.seed, examples)
        out.metric(**controls.shares_changed(table, own))


@stage(
    "tallrec/adapter",
    settings=Tuning,
    section="methods",
    version=2,
    inputs={"prompts": "tallrec/prompts", "language_model": "language_model"},
    tables={"curve": Curve},
    checks=ranker.ADAPTER_CHECKS,
    seeded=True,
    variants=VARIANTS,
    default_variants=DEFAULT_VARIANTS,
    controls=CONTROLS,
    needs="gpu",
)
def adapter(prompts: Artefact, language_model: Artefact, settings: Tuning, out: Draft) -> None:
    """Low-rank weights tuned to answer yes or no; untouched ones for `zero_shot`."""
    untuned = {"steps": 0} if out.variant == "zero_shot" else {}
    ranker.tune_on(prompts, language_model, None, settings.model_copy(update=untuned), out)


@stage(
    "tallrec/predictions",
    settings=Scoring,
    section="methods",
    version=2,
    inputs={"prompts": "tallrec/prompts", "adapter": "tallrec/adapter", "language_model": "language_model"},
    tables={"pairs": Pairs},
    checks=ranker.PREDICTION_CHECKS,
    seeded=True,
    variants=VARIANTS,
    default_variants=DEFAULT_VARIANTS,
    controls=CONTROLS,
    predicts="pairs",
    needs="gpu",
)
def predictions(
    prompts: Artefact, adapter: Artefact, language_model: Artefact, settings: Scoring, out: Draft
) -> None:
    """How far yes leads over no, for every valid and test example."""
    ranker.score_with(prompts, language_model, adapter, settings, out)
