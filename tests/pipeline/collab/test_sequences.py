"""Histories become windows, windows batches, batches steps; a fit learns, resumes and scores what it should."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from pipeline.collab import sequences
from pipeline.collab.pairs import Fit, Saving, generator
from pipeline.collab.ranked import Block
from pipeline.collab.sequence_losses import cross_entropy
from pipeline.collab.sequences import (
    Histories,
    Reader,
    Reading,
    Steps,
    Windows,
    batches,
    fit_sequences,
    known_only,
    last_states,
    mean_in_lanes,
    reader_scores,
    steps,
    windows,
)

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=8)
HOW = Reading(seed=3, lr=0.05, weight_decay=0.0, batch=24, epochs=5, patience=5, length=4)


class Killed(Exception):
    """Stands for the end of the process."""


class Means(Reader):
    """A reader whose state is the mean of the vectors so far; with draws, a little noise."""

    def __init__(self, n_items: int = 6, dim: int = 3) -> None:
        super().__init__()
        self.item = nn.Parameter(torch.randn(n_items, dim, generator=generator(7)))

    def forward(self, inputs: Tensor, draws: Generator | None = None, lengths: Tensor | None = None) -> Tensor:
        x = self.item[inputs].cumsum(1) / torch.arange(1, inputs.shape[1] + 1)[:, None]
        return x if draws is None else x + torch.rand(x.shape, generator=draws) * 0.1

    def vectors(self) -> Tensor:
        return self.item


def histories(lists: list[list[int]]) -> Histories:
    items = torch.tensor([item for one in lists for item in one], dtype=torch.int64)
    return Histories(items, torch.tensor([0, *np.cumsum([len(one) for one in lists])]))


def cut_lists(lists: list[list[int]], length: int) -> list[list[int]]:
    held = histories(lists)
    return [held.items[a:b].tolist() for a, b in zip(*windows(held, length), strict=True)]


def test_windows_are_cut_from_the_end_and_share_one_item_with_the_next() -> None:
    assert cut_lists([[1, 2, 3, 4, 5, 6], [7], [], [8, 9]], 3) == [[3, 4, 5, 6], [1, 2, 3], [8, 9]]
    assert cut_lists([[1, 2, 3, 4]], 3) == [[1, 2, 3, 4]]


@given(LISTS, st.integers(1, 5))
def test_every_item_is_foretold_once_from_the_one_before(lists: list[list[int]], length: int) -> None:
    found = cut_lists(lists, length)
    assert all(2 <= len(window) <= length + 1 for window in found)
    steps_ = sorted(pair for window in found for pair in pairwise(window))
    assert steps_ == sorted(pair for one in lists for pair in pairwise(one))


def drawn(inputs: list[int], positions: int, seed: int = 1) -> list[list[int]]:
    return [rows.tolist() for rows in batches(torch.tensor(inputs), positions, generator(seed))]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200))
def test_batches_hold_every_window_once_and_no_more_positions_than_asked(
    inputs: list[int], positions: int
) -> None:
    found = drawn(inputs, positions)
    assert sorted(row for batch in found for row in batch) == list(range(len(inputs)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(inputs[row] for row in batch) <= positions


def test_batches_hold_windows_of_like_length_in_drawn_order() -> None:
    inputs = [1 + row % 40 for row in range(400)]
    found = drawn(inputs, 200)
    padded = sum(len(batch) * max(inputs[row] for row in batch) for batch in found)
    assert padded < 1.25 * sum(inputs)
    widest = [max(inputs[row] for row in batch) for batch in found]
    assert widest != sorted(widest)
    assert found != drawn(inputs, 200, seed=2)
    assert found == drawn(inputs, 200)


def test_steps_are_padded_on_the_right_and_targets_are_the_next_items() -> None:
    held = histories([[1, 2, 3, 4], [5, 6]])
    found = steps(held, windows(held, 9), torch.tensor([1, 0]))
    assert found.inputs[found.real].tolist() == [5, 1, 2, 3]
    assert found.real.tolist() == [[True, False, False], [True, True, True]]
    assert found.targets.tolist() == [6, 2, 3, 4]


def test_unknown_items_are_left_out_of_histories() -> None:
    place = torch.tensor([1, -1, 0])
    found = known_only(torch.tensor([0, 1, 2, 1, 2]), torch.tensor([0, 3, 4, 4, 5]), place)
    assert found.items.tolist() == [1, 0, 0]
    assert found.offsets.tolist() == [0, 2, 2, 2, 3]


def test_a_state_is_that_after_the_last_items_whatever_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, lists = Means(), [[0, 1, 2], [], [3], [4, 5]]
    wanted = torch.stack([net.item[one[-2:]].mean(0) for one in lists])
    for positions in (512, 1):
        monkeypatch.setattr(sequences, "READ", positions)
        found = last_states(net, histories(lists), length=2)
        assert torch.allclose(found, wanted, equal_nan=True)
        assert not found.requires_grad


def block(lists: list[list[int]]) -> Block:
    return Block(torch.arange(len(lists)), *histories(lists))


def test_scores_are_products_with_the_state_and_unknown_items_have_none() -> None:
    net, place = Means(2), torch.tensor([1, -1, 0])
    found = reader_scores(net, place, histories([[0, 1]]), 5)(block([[2, 1], [0]]))
    wanted = net.item @ net.item.T
    assert torch.allclose(found[:, [2, 0]], wanted)
    assert found[:, 1].tolist() == [-torch.inf, -torch.inf]


def test_a_history_of_nothing_known_is_answered_from_the_mean_training_state() -> None:
    net, place = Means(2), torch.tensor([1, -1, 0])
    train = histories([[0], [0, 1], []])
    found = reader_scores(net, place, train, 5)(block([[1], [], [2]]))
    usual = (net.item[0] + net.item.mean(0)) / 2
    assert torch.allclose(found[:2][:, [2, 0]], (net.item @ usual).expand(2, 2))
    assert torch.allclose(found[2, [2, 0]], net.item @ net.item[0])


def test_scoring_takes_one_thread_and_puts_the_number_back() -> None:
    before, counts = torch.get_num_threads(), []

    class Counting(Means):
        def forward(
            self, inputs: Tensor, draws: Generator | None = None, lengths: Tensor | None = None
        ) -> Tensor:
            counts.append(torch.get_num_threads())
            return super().forward(inputs, draws)

        def vectors(self) -> Tensor:
            counts.append(torch.get_num_threads())
            return super().vectors()

    torch.set_num_threads(2)
    try:
        net, place = Counting(2), torch.tensor([0, 1])
        for _ in range(2):
            reader_scores(net, place, histories([[0, 1]]), 5)(block([[0]]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(counts) == {1}


# --- the fit -----------------------------------------------------------------------------------------------

TRAIN = histories([[user % 6, (user + 1) % 6, (user + 2) % 6, (user + 3) % 6] for user in range(20)] + [[1, 2]])


def loss_of(net: Means) -> Callable[[Steps, Generator | None], Tensor]:
    return lambda these, draws: cross_entropy(
        net(these.inputs, draws)[these.real], net.vectors(), these.targets
    )


def judge_of(net: Means, killed_after: int | None = None) -> Callable[[], float]:
    calls = 0

    def judge() -> float:
        nonlocal calls
        calls += 1
        if calls == killed_after:
            raise Killed
        return net.item.detach().abs().sum().item()

    return judge


def unbroken(seed: int = HOW.seed) -> tuple[Means, Fit]:
    net, how = Means(), Reading(**{**HOW.__dict__, "seed": seed})
    return net, fit_sequences(net, TRAIN, loss_of(net), judge_of(net), how)


def test_the_loss_falls_and_the_judgement_has_its_name() -> None:
    _, fit = unbroken()
    losses = [value for _, name, value in fit.curve if name == "train_loss"]
    assert len(losses) == HOW.epochs
    assert losses[-1] < losses[0] - 0.05
    assert {name for _, name, _ in fit.curve} == {"train_loss", "valid_ndcg_10"}


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    first, second, other = (unbroken(seed)[0].item for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_hang_on_the_number_of_threads(threads: int) -> None:
    before, (one, fit) = torch.get_num_threads(), unbroken()
    torch.set_num_threads(threads)
    try:
        other, again = unbroken()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.item, other.item)
    assert fit == again


def test_parts_of_a_batch_have_the_loss_and_the_gradient_of_the_whole() -> None:
    net, cut = Means(), windows(TRAIN, 4)
    every = torch.arange(len(cut.start))
    without_noise = lambda these, draws: loss_of(net)(these, None)  # noqa: E731
    found = [
        mean_in_lanes(net, without_noise, [(steps(TRAIN, cut, rows), generator(1)) for rows in cut_up], map)
        for cut_up in ([every], [every[:1], every[1:9], every[9:]])
    ]
    assert torch.allclose(found[0], found[1])
    (whole,), (parts,) = (torch.autograd.grad(3 * loss, [net.item]) for loss in found)
    (plain,) = torch.autograd.grad(3 * without_noise(steps(TRAIN, cut, every), None), [net.item])
    assert torch.allclose(whole, plain)
    assert torch.allclose(parts, plain)


@pytest.mark.parametrize("killed_after", [1, 2, 5])
def test_a_killed_fit_goes_on_to_the_same_bits(killed_after: int, tmp_path: Path) -> None:
    whole, fit = unbroken()
    saving, first, second = Saving(tmp_path / "reader.safetensors", seconds=0), Means(), Means()
    with pytest.raises(Killed):
        fit_sequences(first, TRAIN, loss_of(first), judge_of(first, killed_after), HOW, saving)
    assert saving.file.exists() == (killed_after > 1)
    assert fit_sequences(second, TRAIN, loss_of(second), judge_of(second), HOW, saving) == fit
    assert torch.equal(second.item, whole.item)


def test_every_target_counts_once_in_an_epoch() -> None:
    net, counted = Means(), []

    def loss(these: Steps, draws: Generator) -> Tensor:
        counted.extend(these.targets.tolist())
        return loss_of(net)(these, draws)

    fit_sequences(net, TRAIN, loss, judge_of(net), Reading(**{**HOW.__dict__, "epochs": 1}))
    targets = [b for one in TRAIN.items.split(TRAIN.offsets.diff().tolist()) for b in one[1:].tolist()]
    assert sorted(counted) == sorted(targets)


def test_histories_of_one_item_are_an_error_that_says_why() -> None:
    net = Means()
    with pytest.raises(ValueError, match="no user has two training events"):
        fit_sequences(net, histories([[1], [2], []]), loss_of(net), judge_of(net), HOW)


def test_windows_tell_their_inputs() -> None:
    assert Windows(torch.tensor([0, 5]), torch.tensor([4, 7])).inputs.tolist() == [3, 1]
