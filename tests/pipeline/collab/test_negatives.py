"""Sampled negatives: what may be drawn, and the losses by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collab.events import Trained
from pipeline.collab.negatives import as_batch, bce, bpr, squared, unused, used, was_used
from pipeline.collab.pairs import generator

ROWS = Trained(np.array([0, 0, 1, 2, 2, 2]), np.array([1, 1, 4, 0, 1, 4]), 3, 6)


def test_only_items_with_training_rows_can_be_drawn() -> None:
    drawn = unused(torch.tensor([0, 1]), 200, used(ROWS), generator(1))
    assert set(drawn[0].tolist()) == {0, 4}
    assert set(drawn[1].tolist()) == {0, 1}


def test_who_used_everything_gets_what_they_used() -> None:
    drawn = unused(torch.tensor([2]), 50, used(ROWS), generator(1))
    assert set(drawn[0].tolist()) == {0, 1, 4}


def test_what_was_used_is_told_from_what_was_not() -> None:
    users, items = (grid.flatten() for grid in torch.meshgrid(torch.arange(3), torch.arange(6), indexing="ij"))
    asked = was_used(users, items, used(ROWS)).reshape(3, 6)
    assert asked.nonzero().tolist() == [[0, 1], [1, 4], [2, 0], [2, 1], [2, 4]]


@given(st.integers(0, 2**31), st.integers(1, 20))
def test_nobody_is_offered_what_they_used(seed: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    rows = Trained(draw.integers(9, size=30), draw.integers(200, size=30), 9, 200)  # nobody used half of it all
    users = torch.arange(9)
    drawn = unused(users, count, used(rows), generator(seed))
    assert drawn.shape == (9, count)
    assert not was_used(users[:, None].expand(-1, count), drawn, used(rows)).any()


def test_every_unused_item_is_as_likely_as_another() -> None:
    rows = Trained(np.array([0, 1, 1, 1, 1]), np.arange(5), 2, 5)
    drawn = unused(torch.zeros(4000, dtype=torch.int64), 1, used(rows), generator(3)).flatten()
    counts = drawn.bincount(minlength=5)
    assert counts[0] == 0
    assert ((counts[1:] - 1000).abs() < 4 * math.sqrt(1000)).all()


def test_the_same_draws_give_the_same_items() -> None:
    first, second = (unused(torch.tensor([0, 1]), 5, used(ROWS), generator(4)) for _ in range(2))
    assert first.equal(second)


def test_training_pairs_are_all_there_and_labelled_one() -> None:
    batch = as_batch(ROWS)
    assert batch.user.tolist() == ROWS.user.tolist()
    assert batch.label.tolist() == [1] * 6


def test_losses_by_hand() -> None:
    liked, others = torch.tensor([2.0, 0.0]), torch.tensor([[1.0, 2.0], [0.0, -1.0]])

    def minus_log_sigmoid(x: float) -> float:
        return math.log(1 + math.exp(-x))

    pairwise = [minus_log_sigmoid(x) for x in (1, 0, 0, 1)]
    assert bpr(liked, others).item() == pytest.approx(sum(pairwise) / 4)
    positive = [minus_log_sigmoid(x) for x in (2, 0)]
    negative = [minus_log_sigmoid(-x) for x in (1, 2, 0, -1)]
    assert bce(liked, others).item() == pytest.approx(sum(positive) / 2 + sum(negative) / 4)


def test_squared_lengths_are_summed_a_row_and_averaged() -> None:
    assert squared(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.ones(2, 3, 2)).item() == (26 + 12) / 2
