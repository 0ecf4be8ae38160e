"""Learning to write lists of titles: a table `list_prompts` as a task of the tuner.

rows to learn from -> prompts and endings as ids; rows to choose by -> how likely the model finds their answers
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl
import torch

from pipeline.llm.load import encode
from pipeline.llm.reader import Ids, Reader
from pipeline.llm.tasks import Written, language_loss
from pipeline.llm.yes_no import batches

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHOOSES = "log_likelihood"


def list_task(
    learn: pl.DataFrame, choose: pl.DataFrame, tokenizer: "Tokenizer", end: int | None, batch_tokens: int
) -> Written:
    """The answers of `learn`, and the step at which those of `choose` are likeliest. Frames: prompt, answer."""
    prompts, endings = with_endings(learn, tokenizer, end)
    judged = with_endings(choose, tokenizer, end)

    def judge(reader: Reader) -> Mapping[str, float]:
        found = mean_log_likelihood(reader, *judged, batch_tokens)
        return {CHOOSES: found, "loss": -found}

    return Written(prompts, endings, judge, CHOOSES)


def with_endings(rows: pl.DataFrame, tokenizer: "Tokenizer", end: int | None) -> tuple[list[Ids], list[Ids]]:
    """Prompts and answers (n,) as ids, each answer with the closing token where the model has one.

    Raises ValueError where an answer changes how its prompt is split.
    """
    prompts, close = encode(tokenizer, rows["prompt"].to_list()), [] if end is None else [end]
    whole = encode(tokenizer, rows.select(pl.col("prompt") + pl.col("answer")).to_series().to_list())
    if any(text[: len(prompt)] != prompt for prompt, text in zip(prompts, whole, strict=True)):
        raise ValueError("an answer changes how its prompt is split; begin the answer with a space")
    endings = [text[len(prompt) :] + close for prompt, text in zip(prompts, whole, strict=True)]
    return list(prompts), list(endings)


def mean_log_likelihood(
    reader: Reader, prompts: Sequence[Ids], endings: Sequence[Ids], batch_tokens: int
) -> float:
    """Mean over all tokens of the endings of the logarithm of what the model gives them; NaN for none."""
    texts = [
        ([*prompt, *ending], [False] * len(prompt) + [True] * len(ending))
        for prompt, ending in zip(prompts, endings, strict=True)
    ]

    def read(batch: list[int]) -> float:
        with torch.inference_mode():
            return language_loss(reader, [texts[i] for i in batch], None).item()

    cut = batches([len(ids) for ids, _ in texts], batch_tokens)
    tokens = sum(map(len, endings))
    return -sum(reader.each(read, cut)) / tokens if tokens else float("nan")
