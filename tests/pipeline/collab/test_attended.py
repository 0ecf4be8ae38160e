"""DIN's modules: Dice and attention by hand, and that what is random comes from draws alone."""

import pytest
import torch

from pipeline.collab.attended import DIN, NEW, TINY, Asked, Dice, Stack
from pipeline.collab.din import DINSettings
from pipeline.collab.pairs import generator
from pipeline.collab.pasts import PAD


def din() -> DIN:
    return DIN(3, 5, DINSettings(dim=4, dropout=0.5, spread=0.5), generator(1))


def asked(pasts: list[list[int]]) -> Asked:
    n = len(pasts)
    return Asked(torch.arange(n) % 3, torch.arange(n) % 5, torch.tensor(pasts, dtype=torch.int32))


def test_dice_bends_where_the_column_is_small() -> None:
    dice = Dice(1)
    dice.slope.data.fill_(0.25)
    x = torch.tensor([[-1.0], [0.0], [4.0]])
    mean, variance = 1.0, 14 / 3
    p = torch.sigmoid((x - mean) / (variance + TINY) ** 0.5)
    assert torch.allclose(dice(x, learning=True), x * (p + (1 - p) * 0.25))


def test_dice_follows_the_batches_in_learning_and_uses_what_it_saw_afterwards() -> None:
    dice, x = Dice(1), torch.tensor([[-1.0], [0.0], [4.0]])
    dice(x, learning=True)
    assert dice.mean.item() == pytest.approx(NEW * 1.0)
    assert dice.variance.item() == pytest.approx(1 - NEW + NEW * 14 / 3)
    held = dice.mean.clone()
    assert torch.equal(dice(x, learning=False)[:1], dice(x[:1], learning=False))
    assert torch.equal(dice.mean, held)
    assert {"slope", "mean", "variance"} == set(dice.state_dict())


def test_a_stack_is_its_maps_and_bends() -> None:
    stack, x = Stack((3, 2), 0.0, generator(2)), torch.randn(5, 3, generator=generator(3))
    inner = stack.bends[0](x @ stack.weights[0].T + stack.biases[0], False)
    assert torch.allclose(stack(x, None), (inner @ stack.weights[1].T + stack.biases[1]).squeeze(1))


def test_the_past_is_weighed_by_the_target_and_summed() -> None:
    model = din()
    items, target = model.item, model.item[torch.tensor([2, 3])]
    past = torch.tensor([[1, 4, PAD], [PAD, PAD, PAD]], dtype=torch.int32)
    query, keys = target[:1].expand(2, -1), items[torch.tensor([1, 4])]
    weight = model.attention(torch.cat([query, keys, query - keys, query * keys], 1), None)
    found = model.attend(target, past, items, None)
    assert torch.allclose(found[0], (weight[:, None] * keys).sum(0), atol=1e-6)
    assert torch.equal(found[1], torch.zeros(4))


def test_the_vector_is_target_past_and_user_and_the_head_reads_it() -> None:
    model, rows = din(), asked([[1, PAD], [2, 3]])
    found = model(rows, model.tables())
    assert found.vector.shape == (2, 12)
    assert torch.equal(found.vector[:, :4], model.item[:2])
    assert torch.equal(found.vector[:, 8:], model.user[:2])
    assert torch.equal(found.logit, model.head(found.vector, None))


def test_pads_change_nothing_and_a_batch_of_nothing_liked_is_fine() -> None:
    model = din()
    short, long = asked([[1], [2]]), asked([[1, PAD, PAD], [2, PAD, PAD]])
    assert torch.equal(model(short, model.tables()).logit, model(long, model.tables()).logit)
    nothing = model(asked([[PAD], [PAD]]), model.tables(), generator(4))
    assert nothing.logit.isfinite().all()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_only_draws_make_it_random_and_the_same_draws_the_same() -> None:
    rows = asked([[1, 2], [3, PAD], [4, 0]])

    def logit(seed: int | None) -> torch.Tensor:
        model = din()
        return model(rows, model.tables(), None if seed is None else generator(seed)).logit

    assert torch.equal(logit(None), logit(None))
    assert torch.equal(logit(5), logit(5))
    assert not torch.equal(logit(5), logit(6))


def test_all_parameters_learn() -> None:
    model = din()
    model(asked([[1, 2], [3, PAD], [4, 0]]), model.tables(), generator(5)).logit.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
