"""The modules of matrix factorisation: logits by hand, signs and what their gradient is."""

import pytest
import torch
from torch import Tensor

from pipeline.collab.factors import Factors, SignedFactors, SignedForm, Slope, linear, signs
from pipeline.collab.pairs import generator

USER, ITEM = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0])


def factors() -> Factors:
    net = Factors(3, 2, 4, 1.0, generator(1))
    with torch.no_grad():
        net.user_bias.copy_(torch.tensor([[0.1], [0.2], [0.3]]))
        net.item_bias.copy_(torch.tensor([[1.0], [-1.0]]))
        net.offset.fill_(0.5)
    return net


def signed(**changes: object) -> SignedFactors:
    form = {"width": 8, "spread": 1.0, "layer": "separate", "slope": "tanh", "logits": "raw", **changes}
    return SignedFactors(3, 2, SignedForm(**form), generator(1))  # pyright: ignore[reportArgumentType]


def test_a_logit_is_offset_biases_and_inner_product() -> None:
    net = factors()
    wanted = [
        0.5 + net.user_bias[u, 0] + net.item_bias[i, 0] + net.user[u] @ net.item[i]
        for u, i in zip(USER.tolist(), ITEM.tolist(), strict=True)
    ]
    assert net(USER, ITEM).tolist() == pytest.approx([w.item() for w in wanted], abs=1e-6)


def test_exported_vectors_and_the_offset_give_the_logit() -> None:
    net = factors()
    vectors = net.vectors()
    assert vectors["user"].shape == (3, 6)
    product = (vectors["user"][USER] * vectors["item"][ITEM]).sum(1) + net.offset
    assert torch.allclose(product, net(USER, ITEM), atol=1e-6)


def test_first_vectors_have_the_spread_and_follow_the_draws() -> None:
    wide = Factors(2000, 1, 4, 0.3, generator(1))
    assert wide.user.std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(wide.user, Factors(2000, 1, 4, 0.3, generator(1)).user)
    assert not torch.equal(wide.user, Factors(2000, 1, 4, 0.3, generator(2)).user)


@pytest.mark.parametrize("slope", ["tanh", "identity"])
def test_signs_are_minus_one_and_plus_one_and_zero_is_plus_one(slope: Slope) -> None:
    found = signs(torch.tensor([-2.0, -1e-9, -0.0, 0.0, 1e-9, 0.3]), slope)
    assert found.tolist() == [-1, -1, 1, 1, 1, 1]


def gradient(slope: Slope, incoming: Tensor) -> Tensor:
    x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    (signs(x, slope) * incoming).sum().backward()
    assert x.grad is not None
    return x.grad


def test_the_gradient_passes_the_sign_unchanged() -> None:
    assert gradient("identity", torch.tensor([1.0, -3.0, 7.0])).tolist() == [1, -3, 7]


def test_with_tanh_the_gradient_is_that_of_tanh() -> None:
    slopes = 1 - torch.tanh(torch.tensor([-2.0, 0.0, 0.5])) ** 2
    assert torch.allclose(
        gradient("tanh", torch.tensor([1.0, -3.0, 7.0])), slopes * torch.tensor([1.0, -3.0, 7.0])
    )


def test_a_share_of_none_trains_on_tanh_and_of_all_on_signs() -> None:
    net = signed()
    x, y = net.reach("user", USER), net.reach("item", ITEM)
    soft = (torch.tanh(x) * torch.tanh(y)).sum(1)
    hard = (signs(x, "tanh") * signs(y, "tanh")).sum(1)
    assert torch.equal(net(USER, ITEM, 0.0, generator(1)), soft)
    assert torch.equal(net(USER, ITEM, 1.0, generator(1)), hard)
    assert set(hard.tolist()) <= set(range(-8, 9, 2))


def test_a_share_between_mixes_bit_by_bit_with_one_draw_for_both_sides() -> None:
    net = signed()
    user, item = USER.repeat(400), ITEM.repeat(400)
    x, y = net.reach("user", user), net.reach("item", item)
    chosen = torch.rand(x.shape, generator=generator(1)) < 0.3
    wanted = torch.where(chosen, signs(x, "tanh") * signs(y, "tanh"), torch.tanh(x) * torch.tanh(y)).sum(1)
    assert torch.equal(net(user, item, 0.3, generator(1)), wanted)
    assert chosen.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_layers_are_separate_shared_or_absent() -> None:
    apart, one, none = (signed(layer=layer) for layer in ("separate", "shared", "none"))
    assert apart.user_layer is not apart.item_layer
    assert one.user_layer is one.item_layer
    assert len(list(one.parameters())) == 4
    assert torch.equal(none.reach("user"), none.user)
    assert torch.equal(apart.reach("item"), apart.item_layer(apart.item))


def test_a_learnt_scale_starts_small_and_a_raw_logit_has_none() -> None:
    raw, scaled = signed(), signed(logits="scaled")
    assert raw.scale is None
    assert torch.allclose(scaled(USER, ITEM, 1.0, generator(1)) * 8**0.5, raw(USER, ITEM, 1.0, generator(1)))


def test_a_linear_layer_is_drawn_from_the_given_draws_within_its_bound() -> None:
    torch.manual_seed(1)
    first = linear(16, generator(3))
    torch.manual_seed(2)
    second = linear(16, generator(3))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert 0.2 < first.weight.abs().max().item() <= 0.25
