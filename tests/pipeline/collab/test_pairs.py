"""The shared fitting loop: it learns, stops, keeps the best, and goes on where it was killed."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.collab import pairs
from pipeline.collab.factors import Factors
from pipeline.collab.labelled import Labelled
from pipeline.collab.pairs import (
    Average,
    Batch,
    Fit,
    Fitting,
    Saving,
    curve_table,
    finished,
    fit_pairs,
    generator,
    rows_a_step,
    search_table,
    to_batch,
)
from pipeline.schema import Curve, Search

HOW = Fitting(seed=5, lr=0.05, weight_decay=1e-3, batch=16, epochs=6, patience=10)


class Killed(Exception):
    """Stands for the end of the process."""


def rows(n: int = 60) -> Batch:
    draw = np.random.default_rng(2)
    user, item = draw.integers(8, size=n), draw.integers(10, size=n)
    return to_batch(Labelled(user, item, (user + item) % 2))


def model() -> Factors:
    return Factors(8, 10, 4, 0.1, generator(HOW.seed, 999))


def loss_of(net: nn.Module) -> Callable[[Batch, int, Generator], Tensor]:
    """A loss that draws too, so that a resumed run must draw the same."""

    def loss(batch: Batch, epoch: int, draws: Generator) -> Tensor:
        noise = torch.rand(len(batch.label), generator=draws) * 0.1
        return binary_cross_entropy_with_logits(net(batch.user, batch.item) + noise, batch.label)

    return loss


def rising(net: nn.Module, killed_after: int | None = None) -> Callable[[], float]:
    """A judge whose marks depend on the weights, and that raises at its k-th call."""
    calls = 0

    def judge() -> float:
        nonlocal calls
        calls += 1
        if calls == killed_after:
            raise Killed
        return sum(p.detach().abs().sum().item() for p in net.parameters())

    return judge


def same(one: nn.Module, other: nn.Module) -> bool:
    held = other.state_dict()
    return all(torch.equal(tensor, held[name]) for name, tensor in one.state_dict().items())


def unbroken(how: Fitting = HOW) -> tuple[Factors, Fit]:
    net = model()
    return net, fit_pairs(net, rows(), loss_of(net), rising(net), how)


def test_the_loss_falls() -> None:
    _, fit = unbroken()
    losses = [value for _, name, value in fit.curve if name == "train_loss"]
    assert len(losses) == HOW.epochs
    assert losses[-1] < losses[0] - 0.05


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, second, other = unbroken()[0], unbroken()[0], model()
    fit_pairs(other, rows(), loss_of(other), rising(other), Fitting(**{**HOW.__dict__, "seed": 6}))
    assert same(first, second)
    assert not same(first, other)


def test_the_number_of_threads_changes_nothing_and_is_put_back() -> None:
    before = torch.get_num_threads()
    first = unbroken()[0]
    torch.set_num_threads(2)
    try:
        second = unbroken()[0]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert same(first, second)


def test_threads_are_put_back_after_an_error() -> None:
    before, net = torch.get_num_threads(), model()
    with pytest.raises(Killed):
        fit_pairs(net, rows(), loss_of(net), rising(net, killed_after=1), HOW)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("averaged", [0, 3])
@pytest.mark.parametrize("killed_after", [1, 2, 4, 6])
def test_a_resumed_fit_equals_an_unbroken_one_bit_for_bit(
    killed_after: int, averaged: int, tmp_path: Path
) -> None:
    how = replace(HOW, averaged=averaged)
    whole, fit = unbroken(how)
    saving = Saving(tmp_path / "mf.safetensors", seconds=0)
    first = model()
    with pytest.raises(Killed):
        fit_pairs(first, rows(), loss_of(first), rising(first, killed_after), how, saving)
    assert saving.file.exists() == (killed_after > 1)
    second = model()
    assert fit_pairs(second, rows(), loss_of(second), rising(second), how, saving) == fit
    assert same(second, whole)


def test_without_its_optimiser_a_resumed_fit_would_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = unbroken()
    saving = Saving(tmp_path / "mf.safetensors", seconds=0)
    first, second = model(), model()
    with pytest.raises(Killed):
        fit_pairs(first, rows(), loss_of(first), rising(first, 4), HOW, saving)
    monkeypatch.setattr(torch.optim.Adam, "load_state_dict", lambda self, state: None)
    fit_pairs(second, rows(), loss_of(second), rising(second), HOW, saving)
    assert not same(second, whole)


def test_the_mean_lets_the_last_weights_in_and_forgets_the_first() -> None:
    one = nn.Linear(1, 1, bias=False)
    optimiser, average = torch.optim.Adam(one.parameters()), Average(one, steps=2)
    expected = 0.0
    for done, weight in ((1, 1), (2, 10 / 11), (3, 10 / 12), (30, 1 / 2)):
        one.weight.data.fill_(done)
        optimiser.state[one.weight] = {"step": torch.tensor(float(done))}
        average.take(optimiser)
        expected += weight * (done - expected)
        with average.worn():
            assert one.weight.item() == pytest.approx(expected)
        assert one.weight.item() == done


def test_the_mean_is_judged_and_kept_and_the_steps_go_on_from_the_last_weights() -> None:
    plain, mean = unbroken(), unbroken(replace(HOW, averaged=4))
    losses = [[value for _, name, value in fit.curve if name == "train_loss"] for _, fit in (plain, mean)]
    assert losses[0] == losses[1]
    assert mean[1].best == sum(p.detach().abs().sum().item() for p in mean[0].parameters())
    assert not same(plain[0], mean[0])


def test_a_finished_fit_is_read_and_not_trained_again(tmp_path: Path) -> None:
    saving, first, second = Saving(tmp_path / "mf.safetensors"), model(), model()
    fit = fit_pairs(first, rows(), loss_of(first), rising(first), HOW, saving)

    def never(*_: object) -> Tensor:
        raise AssertionError("trained")

    assert fit_pairs(second, rows(), never, rising(second), HOW, saving) == fit
    assert same(first, second)


def test_checkpoints_are_written_no_more_often_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(pairs, "save", lambda file, optimiser, fit, weights: written.append(fit.epochs))
    for seconds in (0, 3600):
        net = model()
        fit_pairs(net, rows(), loss_of(net), rising(net), HOW, Saving(tmp_path / "x", seconds))
    assert written == [1, 2, 3, 4, 5, 6, 6]


def test_a_kill_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving, net = Saving(tmp_path / "mf.safetensors", seconds=0), model()
    with pytest.raises(Killed):
        fit_pairs(net, rows(), loss_of(net), rising(net, killed_after=3), HOW, saving)
    before = saving.file.read_bytes()

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        fit_pairs(net, rows(), loss_of(net), rising(net), HOW, saving)
    assert saving.file.read_bytes() == before


def marks(values: list[float]) -> Callable[[], float]:
    left = iter(values)
    return lambda: next(left)


def test_it_stops_after_patience_and_keeps_the_best_epoch() -> None:
    net, weights = model(), []

    def judge() -> float:
        weights.append({name: t.clone() for name, t in net.state_dict().items()})
        return [0.5, 0.7, 0.7, 0.6, 0.9][len(weights) - 1]

    fit = fit_pairs(net, rows(), loss_of(net), judge, Fitting(**{**HOW.__dict__, "patience": 2}))
    assert (fit.epochs, fit.best, fit.best_epochs) == (4, 0.7, 2)
    assert all(torch.equal(t, weights[1][name]) for name, t in net.state_dict().items())


def test_it_stops_after_its_epochs() -> None:
    assert finished(Fit(epochs=6, best_epochs=6), HOW)
    assert not finished(Fit(epochs=5, best_epochs=5), HOW)


def test_every_row_is_used_once_an_epoch_in_another_order() -> None:
    net, orders = model(), []

    def loss(batch: Batch, epoch: int, draws: Generator) -> Tensor:
        orders.append((epoch, batch.user.tolist(), batch.item.tolist()))
        return net(batch.user, batch.item).mean()

    fit_pairs(net, rows(), loss, marks([1, 2]), Fitting(5, 0.0, 0.0, 16, 2, 10))
    data = sorted(zip(rows().user.tolist(), rows().item.tolist(), strict=True))
    by_epoch = [
        [pair for e, users, items in orders if e == epoch for pair in zip(users, items, strict=True)]
        for epoch in (0, 1)
    ]
    assert [sorted(pairs_) for pairs_ in by_epoch] == [data, data]
    assert by_epoch[0] != by_epoch[1]
    assert [len(users) for _, users, _ in orders[:4]] == [16, 16, 16, 12]


def test_the_recorded_loss_is_the_mean_over_rows_not_over_batches() -> None:
    net = model()

    def loss(batch: Batch, epoch: int, draws: Generator) -> Tensor:
        return net(batch.user, batch.item).mean() * 0 + len(batch.label)

    fit = fit_pairs(net, rows(), loss, marks([1]), Fitting(5, 0.1, 0.0, 16, 1, 1))
    assert fit.curve[0] == (1, "train_loss", (3 * 16 * 16 + 12 * 12) / 60)


def test_a_loss_that_is_no_number_is_an_error_that_names_the_setting() -> None:
    net = model()
    with pytest.raises(FloatingPointError, match=r"after epoch 1; a lower `lr` may help"):
        fit_pairs(net, rows(), lambda b, e, d: net(b.user, b.item).mean() * torch.nan, marks([1]), HOW)


def test_weight_decay_shrinks_tables_and_spares_scalars() -> None:
    net = Factors(8, 10, 4, 1.0, generator(1))
    with torch.no_grad():
        net.offset.fill_(3.0)
    before = net.user.detach().abs().sum()
    fit_pairs(
        net, rows(), lambda b, e, d: net(b.user, b.item).mean() * 0, marks([1]), Fitting(1, 0.1, 1.0, 16, 1, 1)
    )
    assert net.user.detach().abs().sum() < before
    assert net.offset.item() == 3.0


@pytest.mark.parametrize(
    ("batch", "n", "rows_"), [(7, 10**6, 7), (None, 10, 2048), (None, 500_000, 5000), (None, 10**6, 8192)]
)
def test_a_batch_is_as_set_or_grows_with_the_data(batch: int | None, n: int, rows_: int) -> None:
    assert rows_a_step(batch, n) == rows_


def test_draws_differ_by_seed_and_path_and_repeat() -> None:
    drawn = [torch.rand(3, generator=generator(*path)).tolist() for path in [(1, 0), (1, 1), (2, 0), (1, 0)]]
    assert drawn[0] == drawn[3]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


def test_rows_become_tensors_with_real_labels() -> None:
    batch = to_batch(Labelled(*(np.array([1, 0]) for _ in range(3))))
    assert [column.dtype for column in batch] == [torch.int64, torch.int64, torch.float32]


def test_trials_become_tables_and_the_first_of_the_best_is_chosen() -> None:
    trials = {
        "a=1": Fit(2, 0.6, 1, [(1, "valid_auc", 0.6), (2, "valid_auc", 0.5)]),
        "a=2": Fit(1, 0.7, 1, [(1, "valid_auc", 0.7)]),
        "a=3": Fit(1, 0.7, 1, []),
    }
    tried = Search.validate(search_table("mf", trials), cast=True)
    assert tried["chosen"].to_list() == [False, True, False]
    assert tried["epochs"].to_list() == [1, 1, 1]
    curve = Curve.validate(curve_table(trials), cast=True)
    assert curve.rows() == [
        ("a=1", 1, "valid_auc", 0.6),
        ("a=1", 2, "valid_auc", 0.5),
        ("a=2", 1, "valid_auc", 0.7),
    ]
