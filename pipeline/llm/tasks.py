"""What a language model is tuned to do: the examples of a step, their loss, and the figure that chooses a step.

    YesNo     prompt -> " Yes" or " No": a label each; AUC chooses Written   prompt -> a text of its own each:
    cross-entropy of its tokens; a figure that the method brings chooses

The tuner (`pipeline.llm.tune`) knows no more of a task than `Task` says.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pipeline.evaluate.pointwise import auc
from pipeline.llm.reader import Ids, Reader
from pipeline.llm.settings import Loss
from pipeline.llm.yes_no import Answers, answer_rows, batches, decide, last_states, pad, score


class Task(Protocol):
    """What the tuner asks of a task. `step` is the optimiser's, from 0, of `steps` in all: a task may show its
    examples otherwise as tuning goes on."""

    @property
    def chooses(self) -> str:
        """Name of the figure, larger better, whose best step is kept."""
        ...

    def __len__(self) -> int:
        """Training examples."""
        ...

    def lengths(self, rows: Sequence[int], step: int, steps: int) -> list[int]:
        """Tokens of each of some training examples."""
        ...

    def units(self, rows: Sequence[int], step: int, steps: int) -> int:
        """What a step's loss is the mean over: examples, or tokens."""
        ...

    def loss(self, reader: Reader, rows: Sequence[int], step: int, steps: int, draws: int | None) -> Tensor:
        """Sum of the loss over some examples; draws: seed of dropout, None without."""
        ...

    def measure(self, reader: Reader) -> Mapping[str, float]:
        """Figures on the validation rows: `loss`, and the one that chooses; NaN where it cannot be told."""
        ...

    def identity(self) -> Any:
        """All that decides a run, as JSON, so that a checkpoint of another is not gone on from."""
        ...


@dataclass(frozen=True)
class Questions:
    """Tokenised prompts with their labels."""

    prompts: Sequence[Ids]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class YesNo:
    """Yes or no to each prompt.

    endings: what follows a prompt for label 0 and 1, closing token included; the language-model losses read it.
    batch_tokens: of one pass over validation rows.
    """

    train: Questions
    valid: Questions
    answers: Answers
    endings: tuple[Ids, Ids]
    kind: Loss = "difference"
    batch_tokens: int = 512
    chooses: str = "auc"

    def __len__(self) -> int:
        return len(self.train)

    def lengths(self, rows: Sequence[int], step: int, steps: int) -> list[int]:
        return [len(self.train.prompts[row]) for row in rows]

    def units(self, rows: Sequence[int], step: int, steps: int) -> int:
        """Examples, or marked tokens for the language-model losses."""
        if self.kind in ("difference", "yes_logit"):
            return len(rows)
        return sum(sum(self.whole(row)[1]) for row in rows)

    def loss(
        self, reader: Reader, rows: Sequence[int], step: int = 0, steps: int = 0, draws: int | None = None
    ) -> Tensor:
        """difference: BCE on logit_yes - logit_no; yes_logit: BCE on logit_yes alone (CoLLM, BinLLM);
        lm_answer: cross-entropy of the answer's tokens; lm_all: of every token of the text (TALLRec)."""
        if self.kind in ("lm_answer", "lm_all"):
            return language_loss(reader, [self.whole(row) for row in rows], draws)
        states = last_states(reader, [self.train.prompts[row] for row in rows], draws=draws)
        yes, no = (states @ answer_rows(reader, self.answers).T).unbind(-1)
        truth = torch.tensor([float(self.train.labels[row]) for row in rows], device=yes.device)
        logits = yes - no if self.kind == "difference" else yes
        return binary_cross_entropy_with_logits(logits, truth, reduction="sum")

    def whole(self, row: int) -> tuple[list[int], list[bool]]:
        """A text with its answer, and which of its tokens the loss predicts; the first one never is, nor are
        soft tokens, which are no words."""
        prompt, ending = self.train.prompts[row], self.endings[self.train.labels[row]]
        counts = [self.kind == "lm_all" and token >= 0 for token in prompt] + [True] * len(ending)
        return [*prompt, *ending], [False, *counts[1:]]

    def measure(self, reader: Reader) -> dict[str, float]:
        """AUC and mean BCE of the deciding logit on the validation rows; NaN AUC where there is one class
        only."""
        if not len(self.valid):
            return {"auc": math.nan, "loss": math.inf}
        logits = score(reader, self.valid.prompts, self.answers, self.batch_tokens, "validate")
        chosen, truth = decide(logits, self.kind), torch.tensor(self.valid.labels, dtype=torch.float32)
        loss = binary_cross_entropy_with_logits(chosen, truth).item()
        return {"auc": auc(self.valid.labels, chosen.numpy()), "loss": loss}

    def identity(self) -> Any:
        rows = [[list(map(list, q.prompts)), list(q.labels)] for q in (self.train, self.valid)]
        return ["yes or no", self.kind, self.answers, rows]


@dataclass(frozen=True)
class Written:
    """A text of its own behind each prompt, learnt by the cross-entropy of its tokens.

    prompts, endings: ids of each training example, the ending with its closing token. other_prompts: how the
    same examples are asked at steps that `shows_other` says (a curriculum); judge: figures on validation,
    `loss` and `chooses` among them.
    """

    prompts: Sequence[Ids]
    endings: Sequence[Ids]
    judge: Callable[[Reader], Mapping[str, float]]
    chooses: str
    other_prompts: Sequence[Ids] = ()
    shows_other: Callable[[int, int], bool] = lambda step, steps: False

    def __len__(self) -> int:
        return len(self.prompts)

    def asked(self, step: int, steps: int) -> Sequence[Ids]:
        return self.other_prompts if self.shows_other(step, steps) else self.prompts

    def lengths(self, rows: Sequence[int], step: int, steps: int) -> list[int]:
        prompts = self.asked(step, steps)
        return [len(prompts[row]) + len(self.endings[row]) for row in rows]

    def units(self, rows: Sequence[int], step: int, steps: int) -> int:
        return sum(len(self.endings[row]) for row in rows)

    def loss(self, reader: Reader, rows: Sequence[int], step: int, steps: int, draws: int | None) -> Tensor:
        prompts = self.asked(step, steps)
        texts = [
            ([*prompts[row], *self.endings[row]], [False] * len(prompts[row]) + [True] * len(self.endings[row]))
            for row in rows
        ]
        return language_loss(reader, texts, draws)

    def measure(self, reader: Reader) -> Mapping[str, float]:
        return self.judge(reader)

    def identity(self) -> Any:
        texts = [list(map(list, one)) for one in (self.prompts, self.endings, self.other_prompts)]
        return ["written", self.chooses, texts]


def judged_by_likelihood(
    prompts: Sequence[Ids], endings: Sequence[Ids], batch_tokens: int
) -> Callable[[Reader], dict[str, float]]:
    """What judges by held-out texts: their cross-entropy a token as `loss`, and `likelihood`, its negative."""
    held = Written(prompts, endings, lambda reader: {}, "likelihood")
    cut = batches(held.lengths(range(len(held)), 0, 1), batch_tokens)

    def judge(reader: Reader) -> dict[str, float]:
        with torch.inference_mode():
            loss = sum(held.loss(reader, rows, 0, 1, None).item() for rows in cut)
        mean = loss / held.units(range(len(held)), 0, 1) if len(held) else math.nan
        return {"loss": mean, "likelihood": -mean}

    return judge


def language_loss(reader: Reader, texts: Sequence[tuple[list[int], list[bool]]], draws: int | None) -> Tensor:
    """Cross-entropy summed over the marked tokens; logits are made for the places before them only."""
    block = pad([ids for ids, _ in texts], reader.device)
    marks = torch.zeros_like(block, dtype=torch.bool)
    for mark, (_, wanted) in zip(marks, texts, strict=True):
        mark[: len(wanted)] = torch.tensor(wanted, device=mark.device)
    at = marks.flatten().nonzero().squeeze(1)
    logits = reader.states(block, at - 1, draws=draws) @ reader.outputs.T
    return cross_entropy(logits, block.flatten()[at], reduction="sum")
