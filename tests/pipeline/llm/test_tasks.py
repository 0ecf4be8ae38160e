"""Tasks of the tuner: losses by hand, units, what a curriculum shows."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from pipeline.llm.reader import reader
from pipeline.llm.soft_tokens import Soft
from pipeline.llm.tasks import Questions, Written, YesNo, judged_by_likelihood
from pipeline.llm.yes_no import Answers
from tests.tiny_lm import make_model

TASK = YesNo(
    Questions([[10, 21, 22], [11, 23], [10, 24, 25, 26], [11, 30]], [1, 0, 1, 0]),
    Questions([], []),
    Answers(yes=300, no=301),
    ([301, 2], [300, 2]),
)


def plain_logits(model, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].double()


def test_difference_and_yes_logit_by_hand() -> None:
    model = make_model()
    wanted = {"difference": 0.0, "yes_logit": 0.0}
    for ids, label in zip(TASK.train.prompts, TASK.train.labels, strict=True):
        last = plain_logits(model, list(ids))[-1]
        for loss, logit in (("difference", last[300] - last[301]), ("yes_logit", last[300])):
            wanted[loss] -= math.log(torch.sigmoid(logit if label else -logit).item())
    rows = range(len(TASK.train))
    for loss, value in wanted.items():
        assert replace(TASK, kind=loss).loss(reader(model, torch.float32), rows).item() == pytest.approx(
            value, rel=1e-5
        )


@pytest.mark.parametrize("loss", ["lm_answer", "lm_all"])
def test_language_model_losses_by_hand(loss: str) -> None:
    model, rows = make_model(), [0, 1, 2]
    total, count = 0.0, 0
    for row in rows:
        prompt = list(TASK.train.prompts[row])
        whole = prompt + list(TASK.endings[TASK.train.labels[row]])
        logs = plain_logits(model, whole).log_softmax(-1)
        for at in range(len(prompt) if loss == "lm_answer" else 1, len(whole)):
            total -= logs[at - 1, whole[at]].item()
            count += 1
    assert replace(TASK, kind=loss).loss(reader(model, torch.float32), rows).item() == pytest.approx(
        total, rel=1e-5
    )
    assert replace(TASK, kind=loss).units(rows, 0, 1) == count


def test_the_loss_of_a_whole_text_is_not_that_of_its_soft_tokens() -> None:
    task = replace(TASK, train=Questions([[10, -1, 22, -2]], [1]), kind="lm_all")
    assert task.whole(0) == ([10, -1, 22, -2, 300, 2], [False, False, True, False, True, True])
    soft = Soft(torch.ones(2, 3), torch.nn.Linear(3, 32), 1)
    assert math.isfinite(task.loss(reader(make_model(), torch.float32, soft), [0]).item())


def test_no_validation_rows_tell_nothing() -> None:
    found = TASK.measure(reader(make_model(), torch.float32))
    assert math.isnan(found["auc"])
    assert found["loss"] == math.inf


def written(prompts: Sequence[Sequence[int]] = ((10, 21), (11, 23, 24)), **facts) -> Written:
    return Written(prompts, ((300, 2), (301, 302, 2)), lambda reader: {"loss": 0.0}, "loss", **facts)


def test_no_held_out_texts_tell_nothing() -> None:
    found = judged_by_likelihood([], [], 40)(reader(make_model(), torch.float32))
    assert all(math.isnan(value) for value in found.values())


def test_a_written_answer_costs_the_cross_entropy_of_its_own_tokens() -> None:
    model, task, total = make_model(), written(), 0.0
    for prompt, ending in zip(task.prompts, task.endings, strict=True):
        logs = plain_logits(model, [*prompt, *ending]).log_softmax(-1)
        total -= sum(logs[len(prompt) - 1 + i, token].item() for i, token in enumerate(ending))
    found = task.loss(reader(model, torch.float32), [0, 1], 0, 1, None).item()
    assert found == pytest.approx(total, rel=1e-5)
    assert task.units([0, 1], 0, 1) == 5
    assert task.lengths([0, 1], 0, 1) == [4, 6]


def test_a_curriculum_shows_the_other_prompts_when_it_says_so() -> None:
    task = written(
        other_prompts=((10, 21, 40, 41, 42), (11,)), shows_other=lambda step, steps: step >= steps // 2
    )
    assert [task.lengths([0], step, 4) for step in range(4)] == [[4], [4], [7], [7]]
    plain, other = written(), written(prompts=task.other_prompts)
    reading = reader(make_model(), torch.float32)
    assert task.loss(reading, [0], 1, 4, None) == plain.loss(reading, [0], 1, 4, None)
    assert task.loss(reading, [0], 2, 4, None) == other.loss(reading, [0], 0, 1, None)


@pytest.mark.parametrize(
    "other",
    [
        replace(TASK, kind="lm_all"),
        replace(TASK, valid=TASK.train),
        replace(TASK, answers=Answers(1, 2)),
        written(),
    ],
)
def test_another_task_has_another_identity(other) -> None:
    assert other.identity() != TASK.identity()
    assert replace(TASK).identity() == TASK.identity()
