"""The three stages of every method that asks a language model for yes or no.

    examples -> prompts (table) -> adapter (LoRA weights) -> predictions (table pairs)

A method writes its templates and what it fills them with; asking, tuning, scoring and their checks are here.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.evaluate import leaks
from pipeline.llm.load import choose_dtype, encode, end_id, load_model, load_tokenizer
from pipeline.llm.settings import Loss, Prompting, Scoring, Tuning
from pipeline.schema import Prompts, empty
from pipeline.stage import Artefact, Check, Draft, Input, Verdict
from pipeline.text.prompts import Event, Template, Values, fill, safe_titles

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

    from pipeline.llm.tune import Questions, Task
    from pipeline.llm.yes_no import Answers, Logits

Make = Callable[[Mapping[str, Any], Any, str, int, pl.DataFrame], pl.DataFrame]
SCORED = ("valid", "test")


def model_folder(language_model: Artefact) -> Path:
    return language_model.file("model")


# --- prompts -----------------------------------------------------------------------------------------------


def few_shot(examples: pl.DataFrame, count: int | None, seed: int) -> pl.DataFrame:
    """All valid and test rows, and `count` train rows drawn by seed (all for None), in order of row.

    The same rows for every method at equal seed and count.
    """
    train = examples.filter(part="train").sort("row")
    if count is not None and count < train.height:
        drawn = np.random.default_rng(seed).permutation(train.height)[:count]
        train = train[np.sort(drawn)]
    return pl.concat([train, examples.filter(pl.col("part").is_in(SCORED))]).sort("row")


def histories_of(
    examples: pl.DataFrame, longest: int, liked_only: bool
) -> tuple[list[list[int]], list[list[int]]]:
    """Each example's latest items and their labels, oldest first, at most `longest`."""
    items, labels = [], []
    for history, liked in examples.select("history", "history_labels").iter_rows():
        events = [(i, y) for i, y in zip(history, liked, strict=True) if y or not liked_only]
        events = events[len(events) - longest :] if longest < len(events) else events
        items.append([i for i, _ in events])
        labels.append([y for _, y in events])
    return items, labels


def donors(owners: "ArrayLike", seed: int) -> "NDArray[np.int64]":
    """For each place (n,) another place, of another owner, one to one: a shuffle for controls.

    Owners (users, or codes that several share) are put in a seeded order and every place takes from the one
    that is the largest owner's size further on. Falls short only where one owner has more than half.
    """
    rng = np.random.default_rng(seed)
    names, owner, counts = np.unique(np.asarray(owners), return_inverse=True, return_counts=True)
    order = np.lexsort((rng.random(len(owner)), rng.permutation(len(names))[owner]))
    taken = np.empty(len(owner), dtype=np.int64)
    taken[order] = np.roll(order, -int(counts.max(initial=0)))
    return taken


def donors_by_part(examples: pl.DataFrame, seed: int) -> "NDArray[np.int64]":
    """For each example the place of another user's example of the same part."""
    taken, user = np.empty(examples.height, dtype=np.int64), examples["user"].to_numpy()
    for part in ("train", *SCORED):
        places = np.flatnonzero((examples["part"] == part).to_numpy())
        taken[places] = places[donors(user[places], seed)]
    return taken


def ask(
    examples: pl.DataFrame,
    events: tuple[list[list[int]], list[list[int]]],
    titles: Mapping[int, str],
    template: Template,
    extra: Mapping[str, Sequence[str]],
    settings: Prompting,
    tokenizer: "Tokenizer",
) -> pl.DataFrame:
    """One prompt per example, in the same order, as the table `prompts`.

    events: items and labels of the histories to show; titles: item -> title as the source has it;
    extra: further slots, one string per example.
    """
    items, labels = events
    safe = safe_titles(titles, tokenizer, settings.title_length)
    histories = [
        [Event(safe[i], bool(y)) for i, y in zip(one, liked, strict=True)]
        for one, liked in zip(items, labels, strict=True)
    ]
    rows: list[Values] = [
        {"target": safe[item], **{name: values[n] for name, values in extra.items()}}
        for n, item in enumerate(examples["item"])
    ]
    found = fill(template, rows, histories, settings.max_tokens, tokenizer)
    made = examples.select("row", "part", "user", "item", "label").with_columns(
        prompt=pl.Series([one.text for one in found], dtype=pl.String),
        tokens=pl.Series([one.tokens for one in found], dtype=pl.UInt32),
        shown=pl.Series(
            [one[len(one) - p.shown :] for one, p in zip(items, found, strict=True)], dtype=pl.List(pl.UInt32)
        ),
        items_shown=pl.Series([one.shown for one in found], dtype=pl.UInt32),
        items_dropped=pl.Series([len(o) - p.shown for o, p in zip(items, found, strict=True)], dtype=pl.UInt32),
    )
    return made.select(empty(Prompts).columns)


def write_prompts(prompts: pl.DataFrame, answers: tuple[str, str], out: Draft) -> None:
    """Write the prompts, the words that answer them, and their sizes as metrics."""
    out.table("prompts", prompts)
    out.json("answers", list(answers))
    tokens = prompts["tokens"].to_numpy()
    counts = {f"{part}_rows": prompts.filter(part=part).height for part in ("train", *SCORED)}
    out.metric(
        **counts,
        longest_prompt=int(tokens.max(initial=0)),
        mean_tokens=round(float(tokens.mean()), 2) if len(tokens) else None,
        prompts_cut=prompts.filter(pl.col("items_dropped") > 0).height,
        targets_used_before=leaks.targets_shown(prompts).height,
    )


def prompt_checks(make: Make, shuffled: Collection[str]) -> tuple[Check, ...]:
    """Blocking checks of a prompts stage.

    make: renders its table again; shuffled: variants that show the pasts of other users.
    """

    def labels_change_no_prompt(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Turning round every example's label, and each held-out one in a history, changes no prompt."""
        examples = inputs["split"].table("examples")
        train_only = inputs["split"].settings.get("history_from") == "train"
        moved = leaks.moved_by_labels(
            lambda turned: make(inputs, settings, draft.variant, draft.seed, turned),
            examples,
            draft.read("prompts"),
            inputs["dataset"].table("interactions") if train_only else None,
        )
        words = f"{moved.height} prompts change" + ("" if train_only else leaks.NOT_JUDGED)
        return Verdict(moved.is_empty(), words, {"changed": moved.height})

    def history_is_of_the_past(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Every history item that a prompt shows was used by its user before the prompt's time."""
        return judge_past(leaks.shown_too_early, draft, inputs, shuffled)

    def target_not_in_history(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No prompt shows its own target in the history, unless its user had really used it before."""
        return judge_past(leaks.targets_leaked, draft, inputs, shuffled)

    def inside_the_budget(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No prompt is longer than the token budget."""
        over = draft.read("prompts").filter(pl.col("tokens") > settings.max_tokens).height
        return Verdict(over == 0, f"{over} prompts over {settings.max_tokens} tokens", {"over": over})

    def one_prompt_per_example(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Every example that is asked about has one prompt, with its own user, item and label."""
        keys = ("row", "part", "user", "item", "label")
        examples = inputs["split"].scan("examples").select(keys).collect()
        wanted = few_shot(examples, settings.train_rows, draft.seed)
        same = wanted.equals(draft.read("prompts").select(keys))
        return Verdict(same, f"{wanted.height} examples", {"examples": wanted.height})

    def nothing_smuggled_in(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No title brings a special token or a line: all prompts have the same number of both."""
        return judge_shape(
            draft.read("prompts")["prompt"], load_tokenizer(model_folder(inputs["language_model"]))
        )

    checks = (
        labels_change_no_prompt,
        history_is_of_the_past,
        target_not_in_history,
        inside_the_budget,
        one_prompt_per_example,
        nothing_smuggled_in,
    )
    return tuple(Check(check) for check in checks)


def judge_past(
    guard: Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame], pl.DataFrame],
    draft: Draft,
    inputs: Mapping[str, Any],
    shuffled: Collection[str],
) -> Verdict:
    if draft.variant in shuffled:
        return Verdict(True, "not judged: this control shows histories of others")
    examples = inputs["split"].scan("examples").select("row", "at").collect()
    interactions = inputs["dataset"].scan("interactions").select("user", "item", "at").collect()
    found = guard(draft.read("prompts"), examples, interactions)
    words = f"{found.height} shown items at fault" + (
        f", first: {found.row(0, named=True)}" if found.height else ""
    )
    return Verdict(found.is_empty(), words, {"at fault": found.height})


def judge_shape(prompts: pl.Series, tokenizer: "Tokenizer") -> Verdict:
    """One count of special tokens and one of line ends over all prompts."""
    from pipeline.text.cleaning import special_ids

    special = special_ids(tokenizer)
    counts = {sum(i in special for i in ids) for ids in encode(tokenizer, prompts.to_list())}
    lines = prompts.str.count_matches("\n").n_unique()
    words = f"{len(counts)} different counts of special tokens, {lines} of lines"
    return Verdict(len(counts) <= 1 and lines <= 1, words, {"special tokens": sorted(counts), "lines": lines})


# --- adapter -----------------------------------------------------------------------------------------------


def tune_on(
    prompts: Artefact, language_model: Artefact, start: Artefact | None, settings: Tuning, out: Draft
) -> None:
    """Tune low-rank weights on the train prompts and keep the best step on valid; fresh, or from `start`."""
    from pipeline.llm import tune
    from pipeline.llm.reader import read_with

    folder = model_folder(language_model)
    task = task_of(prompts, folder, settings, out.seed)
    dtype = choose_dtype(settings.dtype)
    model = load_model(folder, tuning=True)
    wrapped = tune.add_adapter(model, settings, out.seed, start.path if start else None)
    label = f"{out.stage.name} {out.variant} seed {out.seed}"
    tuned = tune.tune(model, task, settings, out.seed, out.checkpoints, label)
    tune.write_adapter(wrapped, tuned.weights, out.path)
    state = tuned.progress
    out.table("curve", curve_table(state.curve, out.variant))
    out.metric(
        loss=settings.loss,
        trainable_parameters=sum(weight.numel() for weight in tuned.weights.values()),
        steps=state.step,
        best_step=state.best_step,
        valid_auc=round(state.best_auc, 6),
        valid_loss=round(state.best_loss, 6),
        train_rows=len(task.train),
        tokens_seen=state.tokens,
    )
    out.measure(tokens_per_second=round(tuned.tokens_here / tuned.seconds, 1) if tuned.tokens_here else None)
    out.measure(**read_with(model, dtype))


def task_of(prompts: Artefact, folder: Path, settings: Tuning, seed: int) -> "Task":
    """Train rows, the validation rows that choose, and the answers, as token ids."""
    from pipeline.llm.tune import Task

    table, words, tokenizer = prompts.table("prompts"), tuple(prompts.json("answers")), load_tokenizer(folder)
    train = table.filter(part="train")
    valid = draw(table.filter(part="valid"), settings.valid_rows, seed)
    return Task(
        questions(train, tokenizer),
        questions(valid, tokenizer),
        resolve_answers(tokenizer, table["prompt"].to_list(), words),
        endings(tokenizer, train["prompt"].to_list(), words, end_id(folder)),
    )


def draw(rows: pl.DataFrame, count: int | None, seed: int) -> pl.DataFrame:
    """At most `count` rows, drawn by seed, in their own order."""
    if count is None or count >= rows.height:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(rows.height)[:count])]


def questions(rows: pl.DataFrame, tokenizer: "Tokenizer") -> "Questions":
    from pipeline.llm.tune import Questions

    return Questions(encode(tokenizer, rows["prompt"].to_list()), rows["label"].to_list())


def resolve_answers(tokenizer: "Tokenizer", prompts: list[str], words: tuple[str, ...]) -> "Answers":
    from pipeline.llm.yes_no import answer_ids

    yes, no = words
    return answer_ids(tokenizer, prompts, (yes, no))


def endings(
    tokenizer: "Tokenizer", prompts: list[str], words: tuple[str, ...], end: int | None
) -> tuple[list[int], list[int]]:
    """Ids that follow a prompt for label 0 and 1: the answer's tokens and the end-of-text token."""
    if not prompts:
        return [], []
    before, yes, no = encode(tokenizer, [prompts[0], prompts[0] + words[0], prompts[0] + words[1]])
    close = [] if end is None else [end]
    return no[len(before) :] + close, yes[len(before) :] + close


def curve_table(points: Sequence[tuple[int, str, float]], phase: str) -> pl.DataFrame:
    """The learning curve; points that are not a number (AUC of one class) are left out."""
    kept = [(phase, step, name, value) for step, name, value in points if np.isfinite(value)]
    return pl.DataFrame(
        kept,
        schema={"phase": pl.String, "step": pl.UInt32, "metric": pl.String, "value": pl.Float64},
        orient="row",
    )


def ranks_better_than_chance(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """The kept step orders the validation rows better than chance."""
    found = draft.metrics["valid_auc"]
    return Verdict(found > 0.5, f"valid AUC {found:.3f}", {"valid AUC": found})


def weights_are_finite(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """No low-rank weight is NaN or infinite."""
    from pipeline.llm.tune import read_adapter

    broken = sum(int((~weight.isfinite()).sum()) for weight in read_adapter(draft.path).values())
    return Verdict(broken == 0, f"{broken} weights not finite", {"not finite": broken})


ADAPTER_CHECKS = (Check(weights_are_finite), Check(ranks_better_than_chance, blocking=False))


# --- predictions -------------------------------------------------------------------------------------------


def score_with(
    prompts: Artefact, language_model: Artefact, adapter: Artefact, settings: Scoring, out: Draft
) -> None:
    """Score every valid and test prompt with the tuned model, and write the pairs."""
    from time import perf_counter

    from pipeline.llm.reader import read_with, reader
    from pipeline.llm.tune import merge_adapter
    from pipeline.llm.yes_no import score

    folder, table = model_folder(language_model), prompts.table("prompts")
    tokenizer, rows = load_tokenizer(folder), table.filter(pl.col("part").is_in(SCORED))
    answers = resolve_answers(tokenizer, table["prompt"].to_list(), tuple(prompts.json("answers")))
    dtype = choose_dtype(settings.dtype)
    model = merge_adapter(load_model(folder), adapter.path)
    reading = reader(model, dtype)
    ids = encode(tokenizer, rows["prompt"].to_list())
    started = perf_counter()
    logits = score(
        reading, ids, answers, settings.batch_tokens, f"{out.stage.name} {out.variant} seed {out.seed}"
    )
    seconds = perf_counter() - started
    out.table("pairs", pairs_table(rows, logits, adapter.metrics["loss"], out))
    tokens = sum(map(len, ids))
    out.metric(tokens_seen=tokens, rows=rows.height)
    out.measure(tokens_per_second=round(tokens / seconds, 1), rows_per_second=round(rows.height / seconds, 2))
    out.measure(**read_with(model, dtype))


def pairs_table(rows: pl.DataFrame, logits: "Logits", loss: Loss, out: Draft) -> pl.DataFrame:
    """Rows as `pairs`, scored by the logits that the loss has trained."""
    from pipeline.llm.yes_no import decide

    chosen: Tensor = decide(logits, loss).double()
    return rows.select(
        track=pl.lit("ctr"),
        method=pl.lit(out.stage.method),
        variant=pl.lit(out.variant),
        seed=pl.lit(out.seed),
        part="part",
        row="row",
        user="user",
        item="item",
        label="label",
        score=pl.Series(chosen.tolist(), dtype=pl.Float64),
        probability=pl.Series(chosen.sigmoid().tolist(), dtype=pl.Float64),
    )


def every_prompt_scored_once(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Each valid and test prompt has one finite score, under its own user, item and label."""
    keys = ("row", "part", "user", "item", "label")
    wanted = inputs["prompts"].table("prompts").filter(pl.col("part").is_in(SCORED)).select(keys)
    pairs = draft.read("pairs")
    finite = pairs["score"].is_finite().all()
    return Verdict(
        finite and wanted.equals(pairs.select(keys)), f"{wanted.height} prompts", {"rows": wanted.height}
    )


def scores_differ(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """The model does not give everyone the same answer."""
    spread = float(np.std(draft.read("pairs")["score"].to_numpy()))
    return Verdict(spread > 1e-6, f"standard deviation {spread:.3g}", {"deviation": spread})


PREDICTION_CHECKS = (Check(every_prompt_scored_once), Check(scores_differ, blocking=False))
