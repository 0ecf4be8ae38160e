"""Losses of the next item: equal to the plain ways of writing them, in value and gradient."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as binary
from torch.nn.functional import cross_entropy as plain

from pipeline.collab import sequence_losses as losses
from pipeline.collab.pairs import generator
from pipeline.collab.readers import ReaderSettings

N, M, D = 7, 11, 4


def drawn(seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    draws = generator(seed)
    states, items = (torch.randn(k, D, generator=draws) * spread for k in (N, M))
    return states.requires_grad_(), items.requires_grad_(), torch.randint(M, (N,), generator=draws)


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss * 3, of))


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_the_full_softmax_equals_torch_in_value_and_gradient(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CELLS", 1)
    monkeypatch.setattr(losses, "LEAST", rows)
    states, items, targets = drawn()
    ours, theirs = losses.cross_entropy(states, items, targets), plain(states @ items.T, targets)
    assert torch.allclose(ours, theirs)
    for one, other in zip(gradients(ours, states, items), gradients(theirs, states, items), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_the_full_softmax_bears_scores_of_any_size() -> None:
    states, items, targets = drawn(spread=40)
    ours = losses.cross_entropy(states, items, targets)
    assert ours.isfinite()
    theirs = plain(states @ items.T, targets)
    for one, other in zip(gradients(ours, states, items), gradients(theirs, states, items), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def one_state() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A state, all items, its target, and all other items."""
    states, items, targets = drawn()
    others = torch.tensor([item for item in range(M) if item != targets[0].item()])
    return states[:1], items, targets[:1], others


def test_sampling_every_other_item_is_the_full_softmax() -> None:
    states, items, targets, others = one_state()
    ours = losses.sampled_softmax(states, items, targets, others)
    assert torch.allclose(ours, plain(states @ items.T, targets))


def test_sampled_items_stand_for_all_others() -> None:
    states, items, targets, others = one_state()
    found = losses.sampled_softmax(states, items, targets, others[:1])
    own, other = states[0] @ items[targets[0]], states[0] @ items[others[0]]
    assert torch.allclose(found, (own.exp() + (M - 1) * other.exp()).log() - own)


def test_a_target_that_is_drawn_is_not_its_own_negative() -> None:
    states, items, targets, others = one_state()
    doubled = torch.cat([others, targets])
    own, rest = states[0] @ items[targets[0]], (states @ items[others].T).exp().sum()
    found = losses.sampled_softmax(states, items, targets, doubled)
    assert torch.allclose(found, (own.exp() + rest * (M - 1) / M).log() - own)
    sums = [losses.gbce(states, items, targets, some, 0.0) * (len(some) + 1) for some in (others, doubled)]
    assert torch.allclose(sums[0], sums[1])


def test_bce_is_yes_for_the_target_and_no_for_the_drawn_item() -> None:
    states, items, targets = drawn()
    other = (targets + 1) % M
    scores = torch.stack([(states * items[targets]).sum(1), (states * items[other]).sum(1)])
    answers = torch.stack([torch.ones(N), torch.zeros(N)])
    assert torch.allclose(losses.bce(states, items, targets, other), binary(scores, answers) * 2)


def test_gbce_without_calibration_is_bce_and_with_it_weighs_the_target_less() -> None:
    states, items, _ = drawn()
    targets, others = torch.zeros(N, dtype=torch.int64), torch.tensor([3, 5])
    scores = torch.cat([(states * items[targets]).sum(1)[:, None], states @ items[others].T], 1)
    answers = torch.tensor([1.0, 0.0, 0.0]).expand(N, 3)
    assert torch.allclose(losses.gbce(states, items, targets, others, 0.0), binary(scores, answers))
    share = 2 / (M - 1)  # the weight at full calibration
    wanted = binary(scores, answers, weight=torch.tensor([share, 1.0, 1.0]))
    assert torch.allclose(losses.gbce(states, items, targets, others, 1.0), wanted)


def test_one_other_item_is_drawn_evenly_and_never_the_target() -> None:
    targets = torch.arange(5).repeat_interleave(4000)
    found = losses.others_than(targets, 5, generator(1))
    counts = torch.zeros(5, 5).index_put_((targets, found), torch.ones(()), accumulate=True)
    assert counts.diagonal().sum() == 0
    assert (counts[~torch.eye(5, dtype=torch.bool)] - 1000).abs().max() < 150


@pytest.mark.parametrize("name", ["cross_entropy", "sampled_softmax", "bce", "gbce"])
def test_a_loss_is_found_by_its_name_and_falls_when_followed(name: str) -> None:
    loss = losses.item_loss(ReaderSettings.model_validate({"loss": name, "negatives": 5}))
    states, items, targets = drawn()
    optimiser, draws, values = torch.optim.Adam([states, items], lr=0.1), generator(4), []
    for _ in range(40):
        value = loss(states, items, targets, draws)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < values[0] / 2


def test_no_more_negatives_are_drawn_than_there_are_other_items() -> None:
    loss = losses.item_loss(ReaderSettings.model_validate({"loss": "sampled_softmax", "negatives": 10**9}))
    states, items, targets = drawn()
    assert loss(states, items, targets, generator(1)).isfinite()
