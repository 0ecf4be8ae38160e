"""The tuner: order, rates, losses by hand, exact resume, and that it learns what is there to learn."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.llm import tune
from pipeline.llm.reader import reader
from pipeline.llm.settings import Tuning
from pipeline.llm.tasks import Questions, YesNo
from pipeline.llm.tune import Progress, add_adapter, count_steps, rate, step_rows, trainable
from pipeline.llm.yes_no import Answers
from tests.tiny_lm import make_model

ANSWERS = Answers(yes=300, no=301)
QUICK = Tuning(
    steps=6,
    examples_per_step=4,
    batch_tokens=40,
    warm_up=2,
    evaluate_every=2,
    learning_rate=1e-2,
    dropout=0.3,
    dtype="float32",
)


def some_task(rows: int = 24, seed: int = 0) -> YesNo:
    """Yes exactly where the first token is 10."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size=rows).tolist()
    prompts = [[10 if y else 11, *rng.integers(20, 40, size=rng.integers(2, 12)).tolist()] for y in labels]
    half = (
        Questions(prompts[: rows // 2], labels[: rows // 2]),
        Questions(prompts[rows // 2 :], labels[rows // 2 :]),
    )
    return YesNo(*half, ANSWERS, ([301, 2], [300, 2]), batch_tokens=40)


TASK = some_task()


def run(folder: Path, settings: Tuning = QUICK, task: YesNo = TASK, seed: int = 1) -> tune.Tuned:
    model = make_model()
    add_adapter(model, settings, seed)
    folder.mkdir(exist_ok=True)
    return tune.tune(model, replace(task, kind=settings.loss), settings, seed, folder)


def assert_same(one: tune.Tuned, other: tune.Tuned) -> None:
    assert one.progress == other.progress
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name]), name


# --- the same bits -----------------------------------------------------------------------------------------


def test_same_seed_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    assert_same(first, run(tmp_path / "b"))
    other = run(tmp_path / "c", seed=2)
    assert any(not torch.equal(weight, other.weights[name]) for name, weight in first.weights.items())


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(tmp_path / "one")
        torch.set_num_threads(3)
        assert_same(run(tmp_path / "three"), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def interrupted(folder: Path, after: int) -> None:
    """Run until a step is about to be taken that never is."""
    take_step = tune.Run.take_step

    def dies(self) -> None:
        if self.progress.step == after:
            raise KeyboardInterrupt
        take_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune.Run, "take_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run(folder)


@pytest.mark.parametrize("dies_after", [1, 2, 3, 5])
def test_an_interrupted_run_ends_in_the_bits_of_an_unbroken_one(tmp_path: Path, dies_after: int) -> None:
    unbroken = run(tmp_path / "unbroken")
    interrupted(tmp_path / "broken", dies_after)
    torch.rand(7)  # whatever happened in between does not matter
    resumed = run(tmp_path / "broken")
    assert_same(resumed, unbroken)
    assert same_checkpoint(tmp_path / "broken", tmp_path / "unbroken")
    assert resumed.tokens_here < unbroken.tokens_here or dies_after < QUICK.evaluate_every


def same_checkpoint(one: Path, other: Path) -> bool:
    """Weights, moments and progress of two runs, byte for byte."""
    return (one / tune.CHECKPOINT).read_bytes() == (other / tune.CHECKPOINT).read_bytes()


@pytest.mark.parametrize("forgotten", ["step", "moments", "weights"])
def test_a_resume_that_forgets_something_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    run(tmp_path / "unbroken")
    interrupted(tmp_path / "broken", 3)
    if forgotten == "step":
        monkeypatch.setattr(tune, "Progress", lambda step=0, **facts: Progress(step + 1, **facts))
    elif forgotten == "moments":
        monkeypatch.setattr(tune.Run, "moments", lambda self, held: self.optimizer.state_dict())
    else:
        copy = torch.Tensor.copy_
        monkeypatch.setattr(torch.Tensor, "copy_", lambda w, new: w if w.requires_grad else copy(w, new))
    run(tmp_path / "broken")
    assert not same_checkpoint(tmp_path / "broken", tmp_path / "unbroken")


def test_a_checkpoint_of_another_run_is_not_gone_on_from(tmp_path: Path) -> None:
    run(tmp_path / "a")
    other = QUICK.model_copy(update={"learning_rate": 2e-2})
    assert_same(run(tmp_path / "a", other), run(tmp_path / "b", other))


def test_a_torn_checkpoint_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", QUICK.model_copy(update={"steps": 2}))
    whole = (tmp_path / "a" / tune.CHECKPOINT).read_bytes()

    def half(tensors, file, metadata) -> None:
        Path(file).write_bytes(whole[:100])
        raise OSError("disk full")

    monkeypatch.setattr(tune, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        run(tmp_path / "a", QUICK)
    assert (tmp_path / "a" / tune.CHECKPOINT).read_bytes() == whole


def test_the_worlds_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)


# --- what is learnt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["difference", "yes_logit", "lm_answer", "lm_all"])
def test_every_loss_learns_a_plain_rule(tmp_path: Path, loss: str) -> None:
    settings = QUICK.model_copy(
        update={"loss": loss, "steps": 60, "evaluate_every": 10, "dropout": 0.0, "batch_tokens": 400, "rank": 4}
    )
    tuned = run(tmp_path / "a", settings, some_task(80))
    assert tuned.progress.best > (0.8 if loss == "lm_all" else 0.95)
    assert tuned.progress.best_step > 0


def test_only_the_low_rank_weights_move(tmp_path: Path) -> None:
    model = make_model()
    add_adapter(model, QUICK, 1)
    frozen = {n: p.clone() for n, p in model.named_parameters() if "lora" not in n}
    assert set(trainable(model)) == {
        f"base_model.model.model.layers.{layer}.self_attn.{place}.lora_{side}.weight"
        for layer in (0, 1)
        for place in ("q_proj", "v_proj")
        for side in "AB"
    }
    tune.tune(model, TASK, QUICK, 1, tmp_path)
    for name, before in frozen.items():
        assert torch.equal(dict(model.named_parameters())[name], before), name


def test_no_steps_leave_the_model_as_it_was(tmp_path: Path) -> None:
    tuned = run(tmp_path / "a", QUICK.model_copy(update={"steps": 0}))
    assert tuned.progress.step == tuned.progress.best_step == 0
    assert all((weight == 0).all() for name, weight in tuned.weights.items() if "lora_B" in name)


def test_the_best_step_is_kept_and_patience_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.5, 0.6, 0.9, 0.8, 0.9, 0.7, 0.95])
    monkeypatch.setattr(YesNo, "measure", lambda task, reader: {"auc": next(found), "loss": 1.0})
    settings = QUICK.model_copy(update={"steps": 100, "evaluate_every": 1, "patience": 3})
    tuned = run(tmp_path / "a", settings)
    assert (tuned.progress.best_step, tuned.progress.step, tuned.progress.best) == (2, 5, 0.9)


def test_validation_of_one_class_falls_back_to_the_loss(tmp_path: Path) -> None:
    task = some_task()
    one_class = replace(task, valid=Questions(task.valid.prompts, [1] * 12))
    tuned = run(tmp_path / "a", task=one_class)
    assert math.isfinite(tuned.progress.best_loss)
    assert tuned.progress.best == -math.inf


def test_without_validation_rows_the_latest_weights_are_kept(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"steps": 6, "patience": 1})
    tuned = run(tmp_path / "a", settings, replace(TASK, valid=Questions([], [])))
    assert (tuned.progress.best_step, tuned.progress.step) == (6, 6)
    assert any(weight.any() for name, weight in tuned.weights.items() if "lora_B" in name)  # they start at 0


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nan(task, reader, *given):
        pairs = [low for layer in reader.layers for low in layer.low_rank if low]
        return sum(low.up.sum() + low.down.sum() for low in pairs) * math.nan

    monkeypatch.setattr(YesNo, "loss", nan)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        run(tmp_path / "a")


def test_the_curve_tells_train_and_valid(tmp_path: Path) -> None:
    curve = run(tmp_path / "a").progress.curve
    assert [step for step, name, _ in curve if name == "valid_auc"] == [0, 2, 4, 6]
    assert [step for step, name, _ in curve if name == "train_loss"] == [2, 4, 6]


def test_seen_tokens_are_those_of_the_prompts(tmp_path: Path) -> None:
    taken = [row for step in range(6) for row in step_rows(12, step, 4, 1)]
    assert run(tmp_path / "a").progress.tokens == sum(len(TASK.train.prompts[row]) for row in taken)


@pytest.mark.parametrize("loss", ["difference", "lm_all"])
def test_the_gradient_does_not_depend_on_how_a_step_is_cut(tmp_path: Path, loss: str) -> None:
    grads = []
    for batch_tokens in (1, 30, 10_000):
        settings = QUICK.model_copy(
            update={"steps": 1, "loss": loss, "dropout": 0.0, "batch_tokens": batch_tokens, "warm_up": 0}
        )
        model = make_model()
        add_adapter(model, settings, 1)
        tune.tune(model, replace(TASK, kind=loss), settings, 1, tmp_path)
        grads.append([weight.grad.clone() for weight in trainable(model).values()])
        (tmp_path / tune.CHECKPOINT).unlink()
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], atol=1e-6, rtol=1e-4)


# --- order and rate ----------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_takes_every_row_once(rows: int, size: int, seed: int) -> None:
    taken = [row for step in range(3 * rows) for row in step_rows(rows, step, size, seed)]
    for epoch in range(3):
        assert sorted(taken[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_and_seeds_differ_in_their_order() -> None:
    assert step_rows(50, 0, 50, 1) != step_rows(50, 1, 50, 1)
    assert step_rows(50, 0, 50, 1) != step_rows(50, 0, 50, 2)


def test_steps_or_epochs_say_how_long() -> None:
    assert count_steps(Tuning(epochs=2, examples_per_step=16), 100) == 13
    assert count_steps(Tuning(epochs=2, steps=7), 100) == 7


def test_the_rate_warms_up_over_the_whole_run_and_then_falls() -> None:
    settings = Tuning(learning_rate=1.0, warm_up=4, schedule="linear")
    rates = [rate(step, 24, settings) for step in range(24)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.5)
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    cosine = settings.model_copy(update={"schedule": "cosine"})
    assert rate(14, 24, cosine) == pytest.approx(0.5)
    assert rate(9, 24, cosine) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert rate(20, 24, settings.model_copy(update={"schedule": "constant"})) == 1.0


# --- adapters ----------------------------------------------------------------------------------------------


def test_an_adapter_comes_back_from_its_files_and_merges_to_the_same_scores(tmp_path: Path) -> None:
    from pipeline.llm.yes_no import score

    model = make_model()
    wrapped = add_adapter(model, QUICK, 1)
    tuned = tune.tune(model, TASK, QUICK, 1, tmp_path)
    tune.take_weights(model, tuned.weights)
    tune.write_adapter(wrapped, tuned.weights, tmp_path)
    model.eval()
    before = score(reader(model, torch.float32), TASK.valid.prompts, ANSWERS)
    merged = tune.merge_adapter(make_model(), tmp_path)
    after = score(reader(merged, torch.float32), TASK.valid.prompts, ANSWERS)
    torch.testing.assert_close(after.yes, before.yes, atol=1e-5, rtol=0)
    untuned = score(reader(make_model(), torch.float32), TASK.valid.prompts, ANSWERS)
    assert not torch.allclose(after.yes, untuned.yes, atol=1e-4)


def test_the_second_phase_starts_where_the_first_ended(tmp_path: Path) -> None:
    model = make_model()
    wrapped = add_adapter(model, QUICK, 1)
    tuned = tune.tune(model, TASK, QUICK, 1, tmp_path)
    tune.write_adapter(wrapped, tuned.weights, tmp_path)
    second = make_model()
    add_adapter(second, QUICK, 2, start=tmp_path)
    for name, weight in trainable(second).items():
        assert torch.equal(weight, tuned.weights[name])


def test_a_start_of_another_rank_is_refused(tmp_path: Path) -> None:
    model = make_model()
    wrapped = add_adapter(model, QUICK, 1)
    tune.write_adapter(wrapped, trainable(model), tmp_path)
    with pytest.raises(ValueError, match="same rank and targets"):
        add_adapter(make_model(), QUICK.model_copy(update={"rank": 4}), 1, start=tmp_path)


def test_an_adapter_names_no_place_of_this_machine(tmp_path: Path) -> None:
    model = make_model()
    tune.write_adapter(add_adapter(model, QUICK, 1), trainable(model), tmp_path)
    assert str(tmp_path) not in (tmp_path / "adapter_config.json").read_text()


def test_the_order_of_targets_leaves_no_trace(tmp_path: Path) -> None:
    for name, targets in (("a", ("q_proj", "v_proj")), ("b", ("v_proj", "q_proj"))):
        model = make_model()
        (tmp_path / name).mkdir()
        settings = QUICK.model_copy(update={"targets": targets})
        tune.write_adapter(add_adapter(model, settings, 1), trainable(model), tmp_path / name)
    written = [(tmp_path / name / "adapter_config.json").read_text() for name in "ab"]
    assert written[0] == written[1]
    assert json.loads(written[0])["target_modules"] == ["q_proj", "v_proj"]
