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

from collections.abc import Mapping, Sequence

import polars as pl
from pydantic import Field

from pipeline.llm import controls, ranker
from pipeline.llm.load import load_tokenizer
from pipeline.llm.settings import Prompting, Scoring, Tuning
from pipeline.schema import Curve, Pairs, Prompts
from pipeline.stage import Artefact, Draft, Pinned, stage
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
VARIANTS = ("dotted", "bits", "codes_only", "one_step", "without_codes", "shuffled_codes")
CONTROLS = ("without_codes", "shuffled_codes")
DEFAULT_VARIANTS = ("dotted", *CONTROLS)
FROM_SCRATCH = ("codes_only", "one_step")


class BinllmTuning(Tuning):
    learning_rate: float = Field(
        1e-4, gt=0, description="AdamW's rate after the warm-up; the paper's for step two"
    )


def template(variant: str, settings: Prompting) -> Template:
    """The variant's question, in the study's words."""
    text = TEXTS.get(variant, FULL)
    text = text.replace("\n", "\\n") if settings.literal_newline else text
    return parse(text, settings.words.model_dump(), empty=settings.no_history)


def spell(codes: pl.DataFrame, entity: str, variant: str, seed: int) -> dict[int, str]:
    """Code by user or item, as the variant writes it; for `shuffled_codes` that of one with another code."""
    chosen = codes.filter(entity=entity).sort("id")
    written = chosen["bits" if variant == "bits" else "dotted"].to_list()
    if variant == "shuffled_codes":
        written = [written[i] for i in ranker.donors(written, seed)]
    return dict(zip(chosen["id"].to_list(), written, strict=True))


def code_slots(
    examples: pl.DataFrame, codes: pl.DataFrame, variant: str, seed: int
) -> dict[str, Sequence[str]]:
    """Both code slots, one string per example. Raises ValueError for a user or item without a code."""
    slots: dict[str, Sequence[str]] = {}
    for entity in ("user", "item"):
        written = spell(codes, entity, variant, seed)
        missing = set(examples[entity].to_list()) - written.keys()
        if missing:
            raise ValueError(
                f"{len(missing)} of the examples' {entity}s have no code, {min(missing)} among them"
            )
        slots[f"{entity}_code"] = [written[i] for i in examples[entity].to_list()]
    return slots


def make_prompts(
    inputs: Mapping[str, Artefact], settings: Prompting, variant: str, seed: int, examples: pl.DataFrame
) -> pl.DataFrame:
    """The table `prompts` of one variant: the rows that `tallrec/prompts` has at the same seed and count."""
    asked = ranker.few_shot(examples, settings.train_rows, seed)
    longest = 0 if variant == "codes_only" else settings.history
    events = ranker.histories_of(asked, longest, liked_only=True)
    slots = code_slots(asked, inputs["codes"].table("codes"), variant, seed)
    titles = dict(inputs["dataset"].table("items").select("item", "title").iter_rows())
    tokenizer = load_tokenizer(ranker.model_folder(inputs["language_model"]))
    return ranker.ask(asked, events, titles, template(variant, settings), slots, settings, tokenizer)


@stage(
    "binllm/prompts",
    settings=Prompting,
    section="methods",
    version=2,
    inputs={
        "split": "ctr/split",
        "dataset": "dataset",
        "codes": "binary_codes",
        "language_model": "language_model",
    },
    tables={"prompts": Prompts},
    checks=(*ranker.prompt_checks(make_prompts, shuffled=()), *controls.CONTROL_CHECKS),
    seeded=True,
    variants=VARIANTS,
    default_variants=DEFAULT_VARIANTS,
    controls=CONTROLS,
    shared={"words": "words"},
)
def prompts(
    split: Artefact,
    dataset: Artefact,
    codes: Artefact,
    language_model: Artefact,
    settings: Prompting,
    out: Draft,
) -> None:
    """What the language model is asked about each example: titles and the codes of user and item."""
    inputs = {"dataset": dataset, "codes": codes, "language_model": language_model}
    examples = split.table("examples")
    table = make_prompts(inputs, settings, out.variant, out.seed, examples)
    ranker.write_prompts(table, template(out.variant, settings).answers, out)
    if out.variant == "shuffled_codes":
        own = make_prompts(inputs, settings, "dotted", out.seed, examples)
        slots = (code_slots(table, codes.table("codes"), v, out.seed) for v in (out.variant, "dotted"))
        out.metric(**controls.shares_changed(table, own), **controls.slot_shares_changed(*slots))


@stage(
    "binllm/adapter",
    settings=BinllmTuning,
    section="methods",
    version=2,
    inputs={
        "prompts": "binllm/prompts",
        "start": Pinned("tallrec/adapter", "titles"),
        "language_model": "language_model",
    },
    tables={"curve": Curve},
    checks=ranker.ADAPTER_CHECKS,
    seeded=True,
    variants=VARIANTS,
    default_variants=DEFAULT_VARIANTS,
    controls=CONTROLS,
    needs="gpu",
)
def adapter(
    prompts: Artefact, start: Artefact, language_model: Artefact, settings: BinllmTuning, out: Draft
) -> None:
    """The text-only LoRA weights, tuned further on prompts with codes; fresh ones where the variant says so."""
    fresh = out.variant in FROM_SCRATCH
    ranker.tune_on(prompts, language_model, None if fresh else start, settings, out)


@stage(
    "binllm/predictions",
    settings=Scoring,
    section="methods",
    version=2,
    inputs={"prompts": "binllm/prompts", "adapter": "binllm/adapter", "language_model": "language_model"},
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
