"""LLaRA: name the next item of a list, with each title followed by its item's vector.

Liao et al., SIGIR 2024, https://arxiv.org/abs/2312.02445; templates from github.com/ljy0ustc/LLaRA.

    stored lists + histories + item vectors -> prompts -> adapter (LoRA and projector, curriculum) -> orders

A prompt lists the titles that a user had before and a set of candidates; the answer is one candidate's title.
Early steps of tuning show titles alone, later ones titles with a soft token each: step t of T is hybrid with
probability t / T, one draw a step. All candidates are ordered by the likelihood of their titles, so every
answer is valid.

Variants: `hybrid`, `direct` (hybrid from the first step on). Controls: `text_only` (titles alone, the same
steps on the same rows), `shuffled_vectors` (each item has the vector of another one). Shared parts:
`pipeline.llm.choices`, `pipeline.llm.titles`, `pipeline.llm.soft_tokens`, `pipeline.llm.tune`.

Departures from the paper: any causal language model, not Llama2-7B; low-rank weights beside q, k and v
(`targets` takes the paper's seven layers); the counter of the curriculum is the tuner's own step (the authors'
restarts in every data loader, so that no more than a fifth of all steps is hybrid); one template a row, drawn
by seed, where the authors draw one a batch; prompts say how many titles they list (theirs always say 10) in the
study's words; titles are quoted, and keep their year where two would be the same without; the answer ends in
the end-of-text token, not a line end; text-only prompts show nothing where a soft token would stand (theirs: an
untrained placeholder); the candidates are stored, the same for every method and run; users are split by time
and not apart, and the step that validation likes best is kept.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import BeforeValidator, Field

from pipeline.data.negatives import mixed
from pipeline.llm.adapt import run_tuning, weights_are_finite
from pipeline.llm.answer import tuned_reader
from pipeline.llm.ask import model_folder, write_vectors
from pipeline.llm.choices import (
    Choices,
    Lists,
    choice_checks,
    choices,
    drawn,
    every_list_in_order,
    figures,
    listed,
    rankings_of,
    scores_differ,
    sizes,
    stored,
    titles_of,
    together,
)
from pipeline.llm.controls import CONTROL_CHECKS
from pipeline.llm.examples import SCORED, donors, draw
from pipeline.llm.load import choose_dtype, end_id, load_tokenizer
from pipeline.llm.named import shares_named, written_choices
from pipeline.llm.settings import Plan, Scoring, SoftTuning, as_tuple
from pipeline.schema import Candidates, ChoicePrompts, Curve, Rankings
from pipeline.stage import Artefact, Check, Draft, Input, Settings, Verdict, stage
from pipeline.study import Words
from pipeline.text.prompts import Template, fill, parse, safe_titles

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

    from pipeline.llm.reader import Reader
    from pipeline.llm.tasks import Written

TEMPLATES = (
    "This user has {used} {history:KIND} in the previous. Please predict the next {item} this user will "
    "{enjoy}. Choose the answer from the following {size:code} {item} titles: {candidates:KIND}. Answer:",
    "This user has {used} {history:KIND} in the previous. Given the following {size:code} {item} titles: "
    "{candidates:KIND}, recommend one {item} for this user to {enjoy} next. The {item} title you recommend is:",
    "The visit history of this user is: {history:KIND}. Recommend a next {item} for this user to {enjoy} from "
    "the following {item} title set: {candidates:KIND}. The recommendation should contain one {item} title "
    "only. Recommendation:",
)
YEAR = re.compile(r"^(?P<name>.+?)(?:, (?P<article>The|An?|Les?|La|L'|Il|El|Das|Der|Die))? \(\d{4}\)$")

FORMS: dict[str, Any] = {
    "variants": ("hybrid", "direct", "text_only", "shuffled_vectors"),
    "default_variants": ("hybrid", "text_only", "shuffled_vectors"),
    "controls": ("text_only", "shuffled_vectors"),
    "section": "methods",
    "seeded": True,
}


class LlaraPrompts(Settings):
    words: Words = Field(Words(), description="words of the study: movie, movies, watched, enjoy")
    lists: Literal["random_20", "random_10"] = Field("random_20", description="stored lists to order")
    history: int = Field(10, ge=0, description="history items shown at most, the latest ones")
    max_tokens: int = Field(
        1024,
        ge=16,
        description="longest prompt in tokens; whole history items, the oldest first, are left out to fit",
    )
    title_length: int = Field(80, ge=8, description="characters of a title shown at most")
    years: bool = Field(
        False, description="keep the year in brackets behind each title, which the paper cuts off"
    )
    train_rows: int | None = Field(
        None, ge=1, description="users whose last training step is tuned on, drawn by seed; null for all"
    )
    no_history: str = Field("nothing", description="what stands for an empty history")


# --- titles ------------------------------------------------------------------------------------------------


def without_years(titles: Mapping[int, str]) -> dict[int, str]:
    """Titles without the year in brackets at their end, an article behind the comma put first, as the paper has
    them.

    Where this would give two items one title, both stay as they are.
    """
    short = {item: shortened(title) for item, title in titles.items()}
    uses = Counter(short.values())
    return {item: title if uses[title] == 1 else titles[item] for item, title in short.items()}


def shortened(title: str) -> str:
    found = YEAR.match(title)
    if not found:
        return title
    return f"{found['article']} {found['name']}" if found["article"] else found["name"]


# --- prompts -----------------------------------------------------------------------------------------------


def templates(kind: str, settings: LlaraPrompts) -> list[Template]:
    """The three questions in the study's words; kind: `titles`, or `items` for titles with a soft token
    each."""
    words = settings.words.model_dump()
    return [parse(text.replace("KIND", kind), words, empty=settings.no_history) for text in TEMPLATES]


def ask(
    lists: Lists,
    titles: Mapping[int, str],
    kind: str,
    settings: LlaraPrompts,
    tokenizer: "Tokenizer",
    seed: int,
) -> pl.DataFrame:
    """Table `choice_prompts` of the lists, a row each; titles: item -> safe, quoted title."""
    rows = lists.rows.with_columns(listed=listed(lists.rows, lists.candidates))
    which = mixed(seed, rows["row"].to_numpy()) % np.uint64(len(TEMPLATES))
    parts = [
        asked_by(template, rows.filter(pl.Series(which == n)), titles, settings, tokenizer)
        for n, template in enumerate(templates(kind, settings))
    ]
    return pl.concat(parts).sort("row").select(ChoicePrompts.column_names())


def asked_by(
    template: Template,
    rows: pl.DataFrame,
    titles: Mapping[int, str],
    settings: LlaraPrompts,
    tokenizer: "Tokenizer",
) -> pl.DataFrame:
    """The prompts of rows (row, part, user, item, history, listed) that one template asks."""
    past = rows.select(items=pl.col("history").list.tail(settings.history))
    past = past.with_columns(vectors="items", labels=pl.col("items").list.eval(pl.element() * 0 + 1))
    told = pl.element().replace_strict(titles, return_dtype=pl.String)
    slots = rows.select(
        pl.col("listed").list.eval(told).alias("candidates"),
        pl.col("listed").alias("candidates.vector"),
        pl.col("listed").list.len().cast(pl.String).alias("size"),
    )
    found = fill(template, slots, past, titles, settings.max_tokens, tokenizer)
    dropped = past["items"].list.len() - found["shown"].list.len()
    return (
        rows.select("row", "part", "user", "item", label=pl.lit(1), form=pl.lit(1, dtype=pl.UInt8))
        .hstack(found)
        .with_columns(items_shown=pl.col("shown").list.len(), items_dropped=dropped)
    )


def gathered(inputs: Mapping[str, Any], settings: LlaraPrompts, seed: int) -> Lists:
    """The lists to tune on, and those of the study that are to be ordered."""
    split, candidates = inputs["split"], inputs["candidates"].table("candidates")
    learnt = drawn(split.table("events"), settings.lists, settings.train_rows, seed)
    return together(learnt, stored(split.table("queries"), candidates, settings.lists))


def told(inputs: Mapping[str, Any], settings: LlaraPrompts, tokenizer: "Tokenizer") -> dict[int, str]:
    """Item -> title as prompts and answers say it."""
    titles = dict(inputs["dataset"].table("items").select("item", "title").iter_rows())
    return safe_titles(titles if settings.years else without_years(titles), tokenizer, settings.title_length)


def rendered(
    lists: Lists, inputs: Mapping[str, Any], settings: LlaraPrompts, variant: str, seed: int
) -> pl.DataFrame:
    """Table `choice_prompts` of a variant."""
    tokenizer = load_tokenizer(model_folder(inputs["language_model"]))
    kind = "titles" if variant == "text_only" else "items"
    return ask(lists, told(inputs, settings, tokenizer), kind, settings, tokenizer, seed)


def moved(vectors: "NDArray[np.float32]", seed: int) -> "NDArray[np.float32]":
    """Each item's vector (n, d) put at another item, one to one; items with equal vectors count as one."""
    alike = np.unique(vectors, axis=0, return_inverse=True)[1]
    return vectors[donors(alike, seed)]


@stage(
    "llara/prompts",
    settings=LlaraPrompts,
    version=1,
    inputs={
        "split": "next_item/split",
        "dataset": "dataset",
        "candidates": "rerank/candidates",
        "sasrec": "next_item/sasrec",
        "language_model": "language_model",
    },
    tables={"choice_prompts": ChoicePrompts, "easy": ChoicePrompts, "candidates": Candidates},
    checks=(*choice_checks(gathered, rendered), *CONTROL_CHECKS),
    shared={"words": "words"},
    **FORMS,
)
def prompts(settings: LlaraPrompts, out: Draft, **inputs: Artefact) -> None:
    """What the language model is asked about each list: titles that a user had, and candidates; with
    vectors."""
    lists = gathered(inputs, settings, out.seed)
    tokenizer = load_tokenizer(model_folder(inputs["language_model"]))
    titles = told(inputs, settings, tokenizer)
    out.table("candidates", lists.candidates)
    out.table("choice_prompts", rendered(lists, inputs, settings, out.variant, out.seed))
    learnt = Lists(lists.rows.filter(part="train"), lists.candidates)
    out.table("easy", rendered(learnt, inputs, settings, "text_only", out.seed))
    used = lists.candidates["item"].unique().sort().to_list()
    out.json("titles", {item: titles[item] for item in used})
    shown = vectors_of(inputs["sasrec"], out.variant, out.seed)
    write_vectors(shown, templates("items", settings)[0], out)
    if out.variant == "shuffled_vectors":
        own = vectors_of(inputs["sasrec"], "hybrid", out.seed)
        out.metric(share_changed=round(float((shown != own).any(axis=1).mean()), 6))
    out.metric(**sizes(out.read("choice_prompts")))


def vectors_of(sasrec: Artefact, variant: str, seed: int) -> "NDArray[np.float32] | None":
    """The item vectors (n, d) that a variant shows, None for words alone."""
    if variant == "text_only":
        return None
    own = sasrec.tensors("vectors")["items"].numpy()
    return moved(own, seed) if variant == "shuffled_vectors" else own


# --- tuning ------------------------------------------------------------------------------------------------


class LlaraTuning(SoftTuning):
    alpha: int = Field(32, ge=1, description="their scale is alpha / rank")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout before them, to the 1/256")
    targets: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        ("q_proj", "k_proj", "v_proj"),
        min_length=1,
        description="names of the layers that get them; the paper: also o_proj, gate_proj, up_proj and "
        "down_proj, which are read by transformers' slower pass",
    )
    loss: Literal["lm_answer"] = Field(  # type: ignore[override]
        "lm_answer", description="cross-entropy of the title's tokens"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="rate after the warm-up")
    valid_rows: int | None = Field(
        60, ge=2, description="validation lists that choose the best step, drawn by seed; null for all"
    )
    middle: float | Literal["model"] = Field(
        "model",
        description="width of the projector's middle layer, in widths of a vector; model: the model's own",
    )
    activation: Literal["relu", "gelu"] = Field("gelu", description="between the projector's two layers")


def shows_vectors(variant: str, seed: int, step: int, steps: int) -> bool:
    """Whether a step of tuning, from 0, shows soft tokens: drawn with probability step / steps for the
    curriculum."""
    if variant in ("text_only", "direct"):
        return variant == "direct"
    return bool(np.random.default_rng((seed, step)).random() < step / steps)


def the_curriculum_climbs(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """Soft tokens are shown more often late than early in tuning; always by `direct`, never by `text_only`."""
    shares = {name: share for name, share in draft.metrics.items() if name.startswith("hybrid_share")}
    early, late = (shares.get(f"hybrid_share_{half}", math.nan) for half in ("early", "late"))
    fixed = {"direct": {1.0}, "text_only": {0.0}}.get(draft.variant)
    right = set(shares.values()) <= fixed if fixed else not late < early
    return Verdict(right, f"{early:.0%} of the early steps, {late:.0%} of the late ones", shares)


def better_than_chance(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """The kept step finds more targets than a random order of as many candidates would, by NDCG@10."""
    candidates = inputs["prompts"].table("candidates").filter(part="valid")
    size = candidates.height / max(1, candidates.select("user").n_unique())
    places = np.arange(1, round(size) + 1)
    chance = float(np.where(places <= 10, 1 / np.log2(1 + places), 0.0).mean()) if size else 0.0
    found = draft.metrics["valid_ndcg_10"]
    return Verdict(found > chance, f"valid NDCG@10 {found:.3f}, by chance {chance:.3f}", {"chance": chance})


@stage(
    "llara/adapter",
    settings=LlaraTuning,
    version=3,
    inputs={"prompts": "llara/prompts", "language_model": "language_model"},
    tables={"curve": Curve},
    checks=(
        Check(weights_are_finite),
        Check(the_curriculum_climbs, blocking=False),
        Check(better_than_chance, blocking=False),
    ),
    needs="gpu",
    **FORMS,
)
def adapter(prompts: Artefact, language_model: Artefact, settings: LlaraTuning, out: Draft) -> None:
    """Low-rank weights and a projector of item vectors, tuned to write the target's title."""
    from pipeline.llm.tune import count_steps

    hybrid = partial(shows_vectors, out.variant, out.seed)
    task = task_of(prompts, model_folder(language_model), settings, hybrid, out.seed)
    plan = None if out.variant == "text_only" else Plan()
    run_tuning(task, prompts, language_model, None, settings, out, plan)
    planned = count_steps(settings, len(task))
    out.metric(
        train_rows=len(task), **hybrid_shares([hybrid(step, planned) for step in range(out.metrics["steps"])])
    )


def hybrid_shares(shown: Sequence[bool]) -> dict[str, float]:
    """Share of the steps taken that showed soft tokens, and of their earlier and later half."""
    half = len(shown) // 2
    parts = {"hybrid_share": shown, "hybrid_share_early": shown[:half], "hybrid_share_late": shown[half:]}
    return {name: round(float(np.mean(part)), 6) for name, part in parts.items() if part}


def task_of(
    prompts: Artefact, folder: Path, settings: LlaraTuning, hybrid: Callable[[int, int], bool], seed: int
) -> "Written":
    """The training lists asked in words alone, at hybrid steps with soft tokens, and the validation lists that
    choose."""
    from pipeline.llm.soft_tokens import encode_slots
    from pipeline.llm.tasks import Written
    from pipeline.llm.titles import log_likelihoods

    table, candidates = prompts.table("choice_prompts"), prompts.table("candidates")
    tokenizer = load_tokenizer(folder)
    train, valid = (
        choices(rows, candidates, titles_of(prompts), tokenizer, end_id(folder))
        for rows in (table.filter(part="train"), draw(table.filter(part="valid"), settings.valid_rows, seed))
    )

    def judge(reader: "Reader") -> dict[str, float]:
        scores = log_likelihoods(
            reader, valid.prompts, valid.endings, batch_tokens=settings.batch_tokens, label="validate"
        )
        return figures(scores, valid)

    return Written(
        prompts=encode_slots(tokenizer, prompts.table("easy")),
        endings=[endings[target] for endings, target in zip(train.endings, train.targets, strict=True)],
        judge=judge,
        chooses="ndcg_10",
        other_prompts=train.prompts,
        shows_other=hybrid,
    )


# --- orders ------------------------------------------------------------------------------------------------


class LlaraScoring(Scoring):
    likelihood: Literal["sum", "mean"] = Field(
        "sum", description="of a title: the sum over its tokens, or the mean, which does not favour short ones"
    )
    generated: bool = Field(
        False, description="score as the paper too: a title written freely, found among the candidates or not"
    )


@stage(
    "llara/predictions",
    settings=LlaraScoring,
    version=2,
    inputs={"prompts": "llara/prompts", "adapter": "llara/adapter", "language_model": "language_model"},
    tables={"rankings": Rankings},
    checks=(Check(every_list_in_order), Check(scores_differ, blocking=False)),
    predicts="orders",
    needs="gpu",
    **FORMS,
)
def predictions(
    prompts: Artefact, adapter: Artefact, language_model: Artefact, settings: LlaraScoring, out: Draft
) -> None:
    """Every stored list in the order of its titles' likelihoods."""
    from pipeline.llm.reader import read_with
    from pipeline.llm.titles import log_likelihoods

    folder, dtype = model_folder(language_model), choose_dtype(settings.dtype)
    model, reading = tuned_reader(folder, prompts, adapter, dtype)
    rows, candidates = (
        prompts.table("choice_prompts").filter(pl.col("part").is_in(SCORED)),
        prompts.table("candidates"),
    )
    tokenizer, titles = load_tokenizer(folder), titles_of(prompts)
    asked = choices(rows, candidates, titles, tokenizer, end_id(folder))
    label, started = f"{out.stage.name} {out.variant} seed {out.seed}", perf_counter()
    scores = log_likelihoods(
        reading, asked.prompts, asked.endings, settings.likelihood, settings.batch_tokens, label
    )
    seconds = perf_counter() - started
    orders = [rankings_of(rows, candidates, [one.tolist() for one in scores], out)]
    if settings.generated:
        own = [[titles[item].strip('"') for item in items] for items in listed(rows, candidates)]
        named = written_choices(reading, asked.prompts, own, tokenizer, end_id(folder))
        only = [
            [1.0 if i == place else None for i in range(len(one))]
            for place, one in zip(named, scores, strict=True)
        ]
        orders.append(rankings_of(rows, candidates, only, out, f"{out.variant}_generated"))
        out.metric(**shares_named(named, asked, rows["part"]))
    out.table("rankings", pl.concat(orders))
    out.metric(tokens_seen=asked.tokens(), rows=rows.height, **by_part(scores, asked, rows["part"]))
    out.measure(tokens_per_second=round(asked.tokens() / seconds, 1))
    out.measure(rows_per_second=round(rows.height / seconds, 2), **read_with(model, dtype))


def by_part(scores: Sequence["Tensor"], asked: Choices, parts: pl.Series) -> dict[str, float]:
    """NDCG@10 and HR@1 of each part that has lists."""
    found = {}
    for part in SCORED:
        own = (parts == part).arg_true().to_list()
        told = figures([scores[i] for i in own], asked.take(own))
        found |= {f"{part}_{name}": round(told[name], 6) for name in ("ndcg_10", "hr_1") if own}
    return found
