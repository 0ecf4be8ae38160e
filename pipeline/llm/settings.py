"""Settings that every method which asks a language model for yes or no has in common."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from pipeline.stage import Settings
from pipeline.study import Words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.machine import Forecast, Machine
    from pipeline.stage import Input

Loss = Literal["difference", "yes_logit", "lm_answer", "lm_all"]
Precision = Literal["auto", "float32", "bfloat16"]
Quantisation = Literal["none", "8bit", "4bit"]


def as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Prompting(Settings):
    words: Words = Field(Words(), description="words of the study: movie, movies, watched, enjoy")
    history: int = Field(10, ge=0, description="history items shown at most, the latest ones")
    max_tokens: int = Field(
        512, ge=16, description="longest prompt in tokens; whole items, the oldest first, are left out to fit"
    )
    title_length: int = Field(200, ge=8, description="characters of a title shown at most")
    train_rows: int | None = Field(
        None, ge=1, description="examples to tune on, drawn by seed (few-shot K); null for all"
    )
    no_history: str = Field("unknown", description="what stands for an empty history (the papers' code: unkow)")
    literal_newline: bool = Field(
        False, description="write backslash and n, as the papers' files do, where a line should end"
    )


class Reading(Settings):
    """Base of the settings of every stage that reads with a language model, and tells before what it takes."""

    foretells: ClassVar[bool] = True

    batch_tokens: int = Field(
        1024, ge=1, description="tokens of one pass, padding included; changes results by rounding only"
    )
    dtype: Precision = Field("auto", description="of the weights; auto: bfloat16 where it is native")

    def unfit(self, machine: "Machine") -> str:
        """Weights in 8 or 4 bits need an accelerator and bitsandbytes."""
        from pipeline.llm.estimate import cannot_quantise

        return cannot_quantise(getattr(self, "quantisation", "none"), machine)

    def forecast(
        self, inputs: "Mapping[str, Input]", machine: "Machine", store: "Path | str"
    ) -> "Forecast | None":
        """Memory and seconds, from the model's shape, the prompts' lengths and earlier runs."""
        from pipeline.llm.estimate import foretell

        return foretell(self, inputs, machine, store)


class Tuning(Reading):
    rank: int = Field(8, ge=1, description="rank of the low-rank weights")
    alpha: int = Field(16, ge=1, description="their scale is alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before them, to the 1/256")
    targets: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        ("auto",),
        min_length=1,
        description="names of the layers that get them; auto: queries and values, by the model's architecture",
    )
    loss: Loss = Field(
        "difference",
        description="difference: BCE on yes minus no logit; yes_logit: BCE on the yes logit (CoLLM, BinLLM); "
        "lm_answer: cross-entropy of the answer; lm_all: of the whole text (TALLRec)",
    )
    epochs: float = Field(1.0, gt=0, description="passes over the training rows, where steps is null")
    steps: int | None = Field(None, ge=0, description="optimiser steps, instead of epochs")
    examples_per_step: int = Field(16, ge=1, description="examples of one optimiser step")
    batch_tokens: int = Field(
        2048, ge=1, description="tokens of one pass, padding included; changes results by rounding only"
    )
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's rate after the warm-up")
    warm_up: int = Field(10, ge=0, description="steps of linear warm-up, counted over the whole run")
    schedule: Literal["cosine", "linear", "constant"] = Field("linear", description="rate after the warm-up")
    weight_decay: float = Field(1e-3, ge=0, description="AdamW's decay")
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    evaluate_every: int = Field(20, ge=1, description="steps between two looks at the validation rows")
    patience: int = Field(10, ge=1, description="looks without a better AUC before tuning stops")
    valid_rows: int | None = Field(
        400, ge=2, description="validation rows that choose the best step, drawn by seed; null for all"
    )
    dtype: Precision = Field("auto", description="of the frozen weights; auto: bfloat16 where it is native")
    quantisation: Quantisation = Field(
        "none",
        description="of the frozen weights, in tuning and then in scoring: 8bit, 4bit (NF4); needs an NVIDIA "
        "accelerator and bitsandbytes",
    )
    checkpointing: bool = Field(
        False,
        description="keep of each layer its input alone and read the layer again on the way back: less memory, "
        "up to half more time, the same gradients",
    )


@dataclass(frozen=True)
class Plan:
    """Which weights a phase tunes: the low-rank ones, the projector's, and the vectors themselves.

    vectors: `given` and left alone, `tuned` from what they are, or tuned from `fresh` normal numbers.
    """

    lora: bool = True
    projector: bool = True
    vectors: Literal["given", "tuned", "fresh"] = "given"


class SoftTuning(Tuning):
    middle: float | Literal["model"] = Field(
        10.0, description="width of the projector's middle layer, in widths of a vector; model: the model's own"
    )
    activation: Literal["relu", "gelu"] = Field("relu", description="between the projector's two layers")


class Scoring(Reading):
    """Settings of scoring with a tuned model: tokens of one pass, and precision."""
