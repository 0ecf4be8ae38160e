"""PALR: a language model picks and orders what a user may like from a list, by history and keyword profile.

Yang et al., 2023, https://arxiv.org/abs/2305.07622

    train events -> lists to learn from (two tasks) ------------------------+
    rerank/retrieved + history + keyword profile -> prompts -> adapter (LoRA) -> titles written -> rankings

A profile is a line of keywords; here a rule makes it (`pipeline.text.profiles`), which the variant's name says.
The two instruction tasks are the paper's: Recommend (from the history alone) and Recommend_Retrieval (from
candidates). To learn from are a share of the users, each with its last train items as targets and what came
before as history; candidates are the targets and hard negatives (`pipeline.collab.co_use`), made without any
retriever. What the model writes is read by `pipeline.text.lists`, and filled up in the retriever's order, so
all candidates are ranked.

The candidates are told in the order of their places in the stored list: the retriever's, but for the target,
whose place is drawn. The retriever's own order would tell it, since a target that was put in stands last there,
and a model that likes what it has read last would seem to know it.

Variants: `rule_profile` (both tasks, the paper's v2), `recommend_only` (tuned on the first task only, its v1,
asked with the list all the same). Controls: `without_profile`, `shuffled_candidates` (the list in a random
order, which shows whether the retriever's order is copied; it is filled up in the retriever's own), `zero_shot`
(no tuning).

Protocol: the paper's is open, a target that is not among the retriever's first 50 is lost, so its HR@10 is at
most SASRec's HR@50. Our stored lists always hold the target, behind all others where the retriever had not
found it, so figures are higher and must not be set beside the paper's. `test_open_hr_10` counts such lists as
lost, and the retriever's own HR@1, HR@10, NDCG@10 and HR over the list's length stand beside it in the metrics.

Departures from the paper: any causal language model, not LLaMA-7B, tuned by LoRA; the profile by rule, not by a
chat model; "based on user's history" as the paper's prompt for products has it (for films: "watching history");
the number of titles asked for is that of the targets; no items of a 3-hop affinity and no swaps between input
and label. The paper does not say, and this is ours: targets in order of time, train candidates in an order
drawn, the step with the least loss on lists of other users, greedy decoding, and how a list is read.
"""

from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl
from pydantic import Field

from pipeline.collab.lessons import ITEMS, Sizes, lessons, shuffled
from pipeline.collab.retriever import beside_the_retriever, own_order
from pipeline.evaluate.pointwise import RUN, refusal
from pipeline.evaluate.reranking import judged
from pipeline.llm import controls
from pipeline.llm.adapt import run_tuning, weights_are_finite
from pipeline.llm.answer import tuned_reader
from pipeline.llm.ask import model_folder
from pipeline.llm.examples import draw
from pipeline.llm.list_guards import Tables, list_checks, tables
from pipeline.llm.load import choose_dtype, encode, end_id, load_tokenizer
from pipeline.llm.settings import Scoring, Tuning
from pipeline.llm.written import copied, how_read, read_lists
from pipeline.schema import PARTS, Curve, ListPrompts, Rankings, WrittenLists
from pipeline.stage import Artefact, Check, Draft, Settings, Verdict, stage
from pipeline.study import Words
from pipeline.text.lists import LIKE
from pipeline.text.profiles import keywords, profiles, shares
from pipeline.text.prompts import Template, fill, parse, safe_titles

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TASKS = ("recommend", "recommend_retrieval")
INSTRUCTION = {
    "recommend": "Recommend {count:code} other {items} based on user's history.",
    "recommend_retrieval": "Recommend {count:code} other {items} based on user's history "
    "from the candidate list.",
}
HISTORY = " Input: User {used} {items} {history:titles}."
PROFILE = " The user's keywords are {profile:titles}."
CANDIDATES = " The candidates are {candidates:titles}."
VARIANTS = ("rule_profile", "recommend_only", "without_profile", "shuffled_candidates", "zero_shot")
CONTROLS = ("without_profile", "shuffled_candidates", "zero_shot")
FORMS = {
    "variants": VARIANTS,
    "default_variants": ("rule_profile", "without_profile", "zero_shot"),
    "controls": CONTROLS,
}


class PalrPrompts(Settings):
    words: Words = Field(Words(), description="words of the study: movie, movies, watched, enjoy")
    history: int = Field(20, ge=0, description="history items shown at most, the latest ones")
    max_tokens: int = Field(
        2048, ge=16, description="longest prompt in tokens; whole items, the oldest first, are left out to fit"
    )
    title_length: int = Field(80, ge=8, description="characters of a title shown at most")
    no_history: str = Field("unknown", description="what stands for an empty history or profile")
    titles: int = Field(10, ge=1, description="titles asked for, and targets of a list to learn from at most")
    keywords: int = Field(5, ge=1, description="keywords of a profile at most")
    user_share: float = Field(0.2, gt=0, lt=1, description="share of the users to learn from, drawn by seed")
    valid_users: int = Field(64, ge=1, description="other users, whose train items choose the best step")
    train_rows: int | None = Field(
        None, ge=1, description="prompts to tune on at most, drawn by seed; a user has one for each task"
    )
    train_candidates: int = Field(
        30, ge=1, description="candidates of a list to learn from: targets and hard negatives"
    )
    item_ids: bool = Field(
        False, description="write the source's id before each title, as the paper for Beauty"
    )


# --- what is asked -----------------------------------------------------------------------------------------


def questions(found: Tables, variant: str, seed: int) -> pl.DataFrame:
    """One row per stored list, as of `lessons` and without targets: candidates in the order of their places."""
    lists = found.lists.sort("part", "user", "place").group_by("part", "user", maintain_order=True)
    rows = lists.agg(candidates="item").join(
        found.queries.select("part", "user", past="history"), on=("part", "user"), maintain_order="left"
    )
    if variant == "shuffled_candidates":
        keys = zip(rows["candidates"].to_list(), rows["part"], rows["user"], strict=True)
        mixed = [shuffled(items, seed, PARTS.index(part), user) for items, part, user in keys]
        rows = rows.with_columns(candidates=pl.Series(mixed, dtype=ITEMS))
    targets = pl.lit([], dtype=ITEMS)
    return rows.select("part", "user", "past", "candidates", role=pl.lit("ask"), targets=targets)


def asked(found: Tables, settings: PalrPrompts, variant: str, seed: int) -> pl.DataFrame:
    """All rows that get a prompt: lists to learn and choose from in each task, then the stored lists.

    Columns row, role, task, part, user, past, targets, candidates, count.
    """
    sizes = Sizes(settings.titles, settings.train_candidates, settings.user_share, settings.valid_users)
    made = lessons(found.events, found.items, sizes, seed).with_columns(part=pl.lit("train"))
    learnt = TASKS[:1] if variant == "recommend_only" else TASKS
    tasks = [made.with_columns(task=pl.lit(task)) for task in learnt]
    taught = pl.concat(tasks).sort("role", "user", maintain_order=True)
    learn = draw(taught.filter(role="learn"), settings.train_rows, seed)
    ask = questions(found, variant, seed).with_columns(task=pl.lit(TASKS[1]))
    whole = pl.concat([learn, taught.filter(role="choose"), ask], how="diagonal")
    wanted = pl.when(role="ask").then(settings.titles).otherwise(pl.col("targets").list.len())
    told = pl.when(task=TASKS[1]).then("candidates").otherwise(pl.lit([], dtype=ITEMS))
    return whole.with_columns(count=wanted, candidates=told).with_row_index("row")


class Texts(NamedTuple):
    """Harmless, quoted texts: of each item its title, of each keyword the word."""

    titles: Mapping[int, str]
    words: Mapping[str, str]


def texts_of(items: pl.DataFrame, words: Iterable[str], settings: PalrPrompts, tokenizer: "Tokenizer") -> Texts:
    title = pl.format("{} ({})", "item_id", "title") if settings.item_ids else pl.col("title")
    titles = dict(items.select("item", title).iter_rows())
    named = sorted(set(words))
    safe = safe_titles(dict(enumerate(named)), tokenizer, settings.title_length)
    return Texts(
        safe_titles(titles, tokenizer, settings.title_length), {word: safe[i] for i, word in enumerate(named)}
    )


def template(task: str, variant: str, settings: PalrPrompts) -> Template:
    """The task's instruction, in the study's words."""
    profile = "" if variant == "without_profile" else PROFILE
    listed = CANDIDATES if task == "recommend_retrieval" else ""
    text = f"Task Instruction: {INSTRUCTION[task]}{HISTORY}{profile}{listed} Output:"
    return parse(text, settings.words.model_dump(), empty=settings.no_history)


def render(
    found: Tables, settings: PalrPrompts, variant: str, seed: int, tokenizer: "Tokenizer"
) -> tuple[pl.DataFrame, Texts]:
    """Table `list_prompts` of one variant, and the texts that it shows."""
    rows = asked(found, settings, variant, seed)
    known = keywords(found.items)
    catalogue = shares(found.events.filter(part="train")["item"].unique().sort(), known)
    rows = rows.with_columns(profiles(rows["past"], known, catalogue, settings.keywords))
    texts = texts_of(found.items, rows["profile"].explode(empty_as_null=False), settings, tokenizer)
    tasks = rows.partition_by("task", maintain_order=True)
    made = [
        prompted(some, template(some["task"][0], variant, settings), texts, settings, tokenizer)
        for some in tasks
    ]
    return pl.concat(made).sort("row").select(ListPrompts.column_names()), texts


def prompted(
    rows: pl.DataFrame, question: Template, texts: Texts, settings: PalrPrompts, tokenizer: "Tokenizer"
) -> pl.DataFrame:
    """Rows of one task with `prompt`, `tokens`, `shown`, `answer` and how many history items were dropped."""
    title = pl.element().replace_strict(texts.titles, return_dtype=pl.String)
    word = pl.element().replace_strict(texts.words, return_dtype=pl.String)
    slots = rows.select(
        pl.col("count").cast(pl.String),
        pl.col("profile").list.eval(word),
        pl.col("candidates").list.eval(title),
    )
    past = rows.select(items=pl.col("past").list.tail(settings.history))
    past = past.with_columns(labels=pl.col("items").list.eval(pl.lit(1, pl.UInt8)))
    found = fill(question, slots, past, texts.titles, settings.max_tokens, tokenizer)
    answer = pl.lit(" ") + pl.col("targets").list.eval(title).list.join(", ")
    return pl.concat([rows, found], how="horizontal").with_columns(
        answer=pl.when(role="ask").then(pl.lit("")).otherwise(answer),
        items_dropped=past["items"].list.len() - pl.col("shown").list.len(),
    )


def rendered(
    found: Tables, settings: PalrPrompts, variant: str, seed: int, tokenizer: "Tokenizer"
) -> pl.DataFrame:
    return render(found, settings, variant, seed, tokenizer)[0]


@stage(
    "palr/prompts",
    settings=PalrPrompts,
    section="methods",
    version=1,
    inputs={
        "split": "next_item/split",
        "dataset": "dataset",
        "language_model": "language_model",
        "retrieved": "rerank/retrieved",
    },
    tables={"list_prompts": ListPrompts},
    checks=(*list_checks(rendered, ("shuffled_candidates",)), *controls.CONTROL_CHECKS),
    seeded=True,
    shared={"words": "words"},
    **FORMS,
)
def prompts(settings: PalrPrompts, out: Draft, **inputs: Artefact) -> None:
    """What the language model learns from and is asked: history, keyword profile and candidates, as titles."""
    found, tokenizer = tables(inputs), load_tokenizer(model_folder(inputs["language_model"]))
    table, texts = render(found, settings, out.variant, out.seed, tokenizer)
    out.table("list_prompts", table)
    out.json("titles", {str(item): title.strip('"') for item, title in texts.titles.items()})
    roles = dict(table.group_by("role").len().iter_rows())
    out.metric(
        **{f"{role}_rows": roles.get(role, 0) for role in ("learn", "choose", "ask")},
        longest_prompt=int(table["tokens"].max() or 0),  # type: ignore[arg-type]
        mean_tokens=round(float(table["tokens"].mean() or 0), 2),  # type: ignore[arg-type]
        prompts_cut=table.filter(pl.col("items_dropped") > 0).height,
        without_keywords=table.filter(pl.col("profile").list.len() == 0).height,
    )
    if out.variant == "shuffled_candidates":
        plain, _ = render(found, settings, "rule_profile", out.seed, tokenizer)
        words = {"form": pl.lit(""), "vectors": pl.lit([], dtype=ITEMS)}  # one form of a prompt, words alone
        both = (table.filter(role="ask"), plain)
        out.metric(**controls.shares_changed(*(one.with_columns(**words) for one in both)))


# --- what is learnt ----------------------------------------------------------------------------------------


class PalrTuning(Tuning):
    loss: Literal["lm_answer"] = Field(  # type: ignore[assignment]
        "lm_answer", description="cross-entropy of the answer's tokens, the only one for lists"
    )


def learns(draft: Draft, inputs: Mapping[str, Any], settings: PalrTuning) -> Verdict:
    """Tuning has made lists of users that are not learnt from likelier than the untuned model finds them."""
    losses = draft.read("curve").filter(metric="valid_loss").sort("step")["value"]
    words = f"loss on other users' lists {losses.first()}, best {draft.metrics['valid_loss']}"
    return Verdict(draft.metrics["steps"] == 0 or draft.metrics["best_step"] > 0, words)


@stage(
    "palr/adapter",
    settings=PalrTuning,
    section="methods",
    version=3,
    inputs={"prompts": "palr/prompts", "language_model": "language_model"},
    tables={"curve": Curve},
    checks=(Check(weights_are_finite), Check(learns, blocking=False)),
    seeded=True,
    needs="gpu",
    **FORMS,
)
def adapter(prompts: Artefact, language_model: Artefact, settings: PalrTuning, out: Draft) -> None:
    """Low-rank weights tuned to write the lists of the users that teach; untouched ones for `zero_shot`."""
    from pipeline.llm.list_task import list_task

    folder, table = model_folder(language_model), prompts.table("list_prompts")
    learn = table.filter(role="learn")
    choose = draw(table.filter(role="choose"), settings.valid_rows, out.seed)
    task = list_task(learn, choose, load_tokenizer(folder), end_id(folder), settings.batch_tokens)
    steps = {"steps": 0} if out.variant == "zero_shot" else {}
    run_tuning(task, prompts, language_model, None, settings.model_copy(update=steps), out)
    out.metric(loss=settings.loss, train_rows=learn.height, valid_rows=choose.height)


# --- what is written ---------------------------------------------------------------------------------------


class Writing(Scoring):
    max_new: int = Field(192, ge=1, description="tokens of an answer at most")
    like: float = Field(
        LIKE,
        gt=0,
        le=1,
        description="least likeness of a title that is not written as it stands; 1: the same only",
    )
    batch_tokens: int = Field(
        8192, ge=1, description="tokens kept at once, prompts and answers; changes results by rounding only"
    )


def write_titles(
    prompts: Artefact, language_model: Artefact, adapter: Artefact, settings: Writing, out: Draft
) -> dict[tuple[str, int], str]:
    """What the tuned model writes for each stored list: (part, user) -> text."""
    from pipeline.llm.generate import greedy
    from pipeline.llm.reader import read_with

    folder, dtype = model_folder(language_model), choose_dtype(settings.dtype)
    tokenizer, end = load_tokenizer(folder), end_id(folder)
    stop = [] if end is None else [end]
    rows = prompts.table("list_prompts").filter(role="ask")
    model, reading = tuned_reader(folder, prompts, adapter, dtype)
    ids = encode(tokenizer, rows["prompt"].to_list())
    started, label = perf_counter(), f"{out.stage.name} {out.variant} seed {out.seed}"
    found = greedy(reading, ids, settings.max_new, stop, settings.batch_tokens, label)
    seconds, tokens = perf_counter() - started, sum(map(len, found))
    out.metric(tokens_read=sum(map(len, ids)), tokens_written=tokens, lists=rows.height)
    out.measure(tokens_per_second=round(tokens / seconds, 1), lists_per_second=round(rows.height / seconds, 2))
    out.measure(**read_with(model, dtype))
    texts = tokenizer.decode_batch(found, skip_special_tokens=True)
    return dict(zip(rows.select("part", "user").iter_rows(), texts, strict=True))


def each_list_written_once(draft: Draft, inputs: Mapping[str, Any], settings: Writing) -> Verdict:
    """Each stored list of the retriever is ordered whole: each item once, none added, the target marked."""
    lists, rows = inputs["retrieved"].table("candidates"), draft.read("rankings")
    broken, seen = judged(rows.partition_by(*RUN, as_dict=True, maintain_order=True).items(), lists)
    return refusal(broken + ([] if len(seen) == 1 else [f"{len(seen)} runs, one was expected"]), len(seen))


def most_titles_are_valid(draft: Draft, inputs: Mapping[str, Any], settings: Writing) -> Verdict:
    """At least half of the titles written are candidates, each for the first time; else the order is mostly the
    retriever's."""
    found = draft.metrics["test_valid_share"]
    return Verdict((found or 0) >= 0.5, f"{found} of the titles are valid", {"valid": found})


@stage(
    "palr/predictions",
    settings=Writing,
    section="methods",
    version=2,
    inputs={
        "prompts": "palr/prompts",
        "adapter": "palr/adapter",
        "language_model": "language_model",
        "retrieved": "rerank/retrieved",
        "orders": "rerank/orders",
    },
    tables={"rankings": Rankings, "written_lists": WrittenLists},
    checks=(Check(each_list_written_once), Check(most_titles_are_valid, blocking=False)),
    predicts="orders",
    seeded=True,
    needs="gpu",
    **FORMS,
)
def predictions(settings: Writing, out: Draft, **inputs: Artefact) -> None:
    """The retriever's lists in the order that the model writes, filled up in the retriever's own."""
    prompts, own = inputs["prompts"], own_order(inputs["retrieved"], inputs["orders"])
    rows = prompts.table("list_prompts").filter(role="ask")
    written = write_titles(prompts, inputs["language_model"], inputs["adapter"], settings, out)
    titles = {int(item): title for item, title in prompts.json("titles").items()}
    orders, read = read_lists(own, written, titles, settings.like)
    run = {"method": pl.lit("palr"), "variant": pl.lit(out.variant), "seed": pl.lit(out.seed)}
    out.table("rankings", orders.with_columns(**run).select(Rankings.column_names()))
    out.table("written_lists", read.with_columns(**run).select(WrittenLists.column_names()))
    for part in PARTS[1:]:
        mine, told = orders.filter(part=part), rows.filter(part=part)
        counts = read.filter(part=part)
        found = how_read(counts, prompts.settings["titles"]) | {"copied_share": copied(mine, counts, told)}
        found |= beside_the_retriever(mine, own.filter(part=part))
        out.metric(**{f"{part}_{name}": value for name, value in found.items()})
    length = own["rank"].max()
    hit = {name: value for name, value in inputs["retrieved"].metrics.items() if name.endswith(f"_hr_{length}")}
    out.metric(
        retriever=inputs["retrieved"].metrics["retriever"], **{f"retriever_{n}": v for n, v in hit.items()}
    )
