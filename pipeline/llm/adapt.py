"""Adapting a language model to a table of prompts: the stage `adapter` of every yes/no method.

prompts -> token ids -> low-rank weights that answer yes or no -> the step that validation likes best
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.llm.ask import model_folder
from pipeline.llm.examples import draw
from pipeline.llm.load import choose_dtype, encode, end_id, load_model, load_tokenizer
from pipeline.llm.settings import Tuning
from pipeline.stage import Artefact, Check, Draft, Input, Verdict

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.llm.tune import Questions, Task
    from pipeline.llm.yes_no import Answers


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
