"""Adapting a language model to a table of prompts: the stage `adapter` of every yes/no method.

prompts -> token ids -> weights that answer yes or no -> the step that validation likes best
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.llm.ask import model_folder
from pipeline.llm.examples import draw
from pipeline.llm.load import choose_dtype, encode, end_id, load_model, load_tokenizer
from pipeline.llm.settings import Plan, SoftTuning, Tuning
from pipeline.stage import Artefact, Check, Draft, Input, Verdict

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from pipeline.llm.tasks import Questions, Task, YesNo
    from pipeline.llm.yes_no import Answers


def tune_on(
    prompts: Artefact,
    language_model: Artefact,
    start: Artefact | None,
    settings: Tuning,
    out: Draft,
    plan: Plan | None = None,
) -> None:
    """Tune on the train prompts and keep the best step on valid; from fresh weights, or from `start`.

    plan: which weights, where prompts show vectors; else the low-rank ones.
    """
    task = yes_no_task(prompts, model_folder(language_model), settings, out.seed)
    run_tuning(task, prompts, language_model, start, settings, out, plan)
    out.metric(loss=settings.loss, train_rows=len(task))


def run_tuning(
    task: "Task",
    prompts: Artefact | None,
    language_model: Artefact,
    start: Artefact | None,
    settings: Tuning,
    out: Draft,
    plan: Plan | None = None,
) -> None:
    """Tune for any task, and write the adapter: low-rank weights, those of soft tokens, the curve and figures.

    prompts: those that bring the vectors of soft tokens, where there are any.

    Low-rank weights that a plan leaves alone are read as part of the model, and copied beside what was tuned.
    """
    from pipeline.llm import tune
    from pipeline.llm.reader import read_with
    from pipeline.llm.soft_tokens import make_soft, write_soft

    model = load_model(model_folder(language_model), tuning=True, quantisation=settings.quantisation)
    dtype, wrapped = choose_dtype(settings.dtype), None
    if plan is None or plan.lora:
        wrapped = tune.add_adapter(model, settings, out.seed, folder_of(start))
    else:
        model = with_frozen_adapter(model, start, out)
    soft = None
    if plan is not None:
        assert isinstance(settings, SoftTuning)
        assert prompts is not None
        soft = make_soft(prompts, model, settings, plan, out.seed)
    label = f"{out.stage.name} {out.variant} seed {out.seed}"
    tuned = tune.tune(model, task, settings, out.seed, out.checkpoints, label, soft)
    if wrapped is not None:
        tune.write_adapter(wrapped, tuned.weights, out.path)
    write_soft(tuned.weights, out.path)
    state = tuned.progress
    out.table("curve", curve_table(state.curve, out.variant))
    out.metric(
        trainable_parameters=sum(weight.numel() for weight in tuned.weights.values()),
        steps=state.step,
        best_step=state.best_step,
        **{f"valid_{task.chooses}": round(state.best, 6)},
        valid_loss=round(state.best_loss, 6),
        tokens_seen=state.tokens,
    )
    out.measure(tokens_per_second=round(tuned.tokens_here / tuned.seconds, 1) if tuned.tokens_here else None)
    out.measure(**read_with(model, dtype))


def folder_of(start: Artefact | None) -> Path | None:
    """Where the low-rank weights are that tuning goes on from; None for none, as of instructions not asked
    for."""
    from pipeline.llm.tune import LORA_FILES

    return start.path if start is not None and start.file(LORA_FILES[0]).exists() else None


def with_frozen_adapter(model: "PreTrainedModel", start: Artefact | None, out: Draft) -> Any:
    """The model with a finished adapter's low-rank weights in its own, which all stay as they are."""
    from pipeline.llm.tune import LORA_FILES, merge_adapter

    if folder := folder_of(start):
        model = merge_adapter(model, folder)
        for name in LORA_FILES:
            shutil.copyfile(folder / name, out.path / name)
    return model.requires_grad_(False)


def yes_no_task(prompts: Artefact, folder: Path, settings: Tuning, seed: int) -> "YesNo":
    """Train rows, the validation rows that choose, and the answers, as token ids."""
    from pipeline.llm.tasks import YesNo

    table, words, tokenizer = prompts.table("prompts"), tuple(prompts.json("answers")), load_tokenizer(folder)
    train = table.filter(part="train")
    valid = draw(table.filter(part="valid"), settings.valid_rows, seed)
    return YesNo(
        questions(train, tokenizer),
        questions(valid, tokenizer),
        resolve_answers(tokenizer, table["prompt"].to_list(), words),
        endings(tokenizer, train["prompt"].to_list(), words, end_id(folder)),
        settings.loss,
        settings.batch_tokens,
    )


def questions(rows: pl.DataFrame, tokenizer: "Tokenizer") -> "Questions":
    from pipeline.llm.soft_tokens import encode_slots
    from pipeline.llm.tasks import Questions

    return Questions(encode_slots(tokenizer, rows), rows["label"].to_list())


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
    """No tuned weight is NaN or infinite."""
    from safetensors.torch import load_file

    files = sorted(draft.path.glob("*.safetensors"))
    broken = sum(int((~w.isfinite()).sum()) for file in files for w in load_file(file).values())
    return Verdict(bool(files) and broken == 0, f"{broken} weights not finite", {"not finite": broken})


ADAPTER_CHECKS = (Check(weights_are_finite), Check(ranks_better_than_chance, blocking=False))
