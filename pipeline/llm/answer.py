"""The answers of a tuned language model: the stage `predictions` of every yes/no method.

valid and test prompts + adapter -> two logits each -> scored pairs
"""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.collab.labelled import sigmoid
from pipeline.llm.adapt import resolve_answers
from pipeline.llm.ask import model_folder
from pipeline.llm.examples import SCORED
from pipeline.llm.load import choose_dtype, load_model, load_tokenizer
from pipeline.llm.settings import Loss, Scoring
from pipeline.stage import Artefact, Check, Draft, Input, Verdict

if TYPE_CHECKING:
    import torch

    from pipeline.llm.reader import Reader
    from pipeline.llm.yes_no import Logits


def score_with(
    prompts: Artefact, language_model: Artefact, adapter: Artefact, settings: Scoring, out: Draft
) -> None:
    """Score every valid and test prompt with the tuned model, and write the pairs."""
    from pipeline.llm.reader import read_with
    from pipeline.llm.soft_tokens import encode_slots
    from pipeline.llm.yes_no import score

    folder, table = model_folder(language_model), prompts.table("prompts")
    tokenizer, rows = load_tokenizer(folder), table.filter(pl.col("part").is_in(SCORED))
    answers = resolve_answers(tokenizer, table["prompt"].to_list(), tuple(prompts.json("answers")))
    dtype = choose_dtype(settings.dtype)
    model, reading = tuned_reader(folder, prompts, adapter, dtype)
    ids = encode_slots(tokenizer, rows)
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


def tuned_reader(
    folder: Path, prompts: Artefact, adapter: Artefact, dtype: "torch.dtype"
) -> tuple[Any, "Reader"]:
    """The model with a finished adapter in it, and what reads it, soft tokens included; its frozen weights have
    as many bits as when it was tuned."""
    from pipeline.llm.reader import reader
    from pipeline.llm.soft_tokens import read_soft
    from pipeline.llm.tune import LORA_FILES, merge_adapter

    model: Any = load_model(folder, quantisation=adapter.settings.get("quantisation", "none"))
    if adapter.file(LORA_FILES[0]).exists():
        model = merge_adapter(model, adapter.path)
    return model, reader(model, dtype, read_soft(adapter, prompts, model))


def pairs_table(rows: pl.DataFrame, logits: "Logits", loss: Loss, out: Draft) -> pl.DataFrame:
    """Rows as `pairs`, scored by the logits that the loss has trained."""
    from pipeline.llm.yes_no import decide

    score = decide(logits, loss).double().cpu().numpy()
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
        score=pl.Series(score),
        # torch's own sigmoid gives equal scores unequal last bits, by where they lie in the batch
        probability=pl.Series(sigmoid(score)),
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
