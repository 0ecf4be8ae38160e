"""Networks that read histories: no state sees what comes later."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pipeline.collab.caser import CaserSettings
from pipeline.collab.convolutions import Convolutions
from pipeline.collab.gru4rec import GRU4RecSettings
from pipeline.collab.pairs import generator
from pipeline.collab.recurrent import Recurrent
from pipeline.collab.sasrec import SASRecSettings, build
from pipeline.collab.sequences import Reader
from pipeline.collab.transformer import Layer, Transformer

SMALL = {"dim": 8, "length": 9, "dropout": 0.5, "spread": 0.5}


def networks() -> dict[str, Reader]:
    return {
        "sasrec": build(12, SASRecSettings.model_validate(SMALL), generator(1)),
        "gru4rec": Recurrent(12, GRU4RecSettings.model_validate(SMALL | {"hidden": 6}), generator(1)),
        "caser": Convolutions(12, CaserSettings.model_validate(SMALL | {"reach": 3}), generator(1)),
    }


NAMES = pytest.mark.parametrize("name", ["sasrec", "gru4rec", "caser"])


@NAMES
def test_no_state_sees_what_comes_later(name: str) -> None:
    net = networks()[name]
    one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 7, 8]])
    first, second = net(one), net(other)
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.isclose(first[:, 3:], second[:, 3:]).all(2).any()


@NAMES
def test_every_state_sees_the_item_it_stands_on_and_the_one_before(name: str) -> None:
    net = networks()[name]
    states = net(torch.tensor([[1, 2, 3], [1, 2, 4], [1, 5, 3]]))[:, 2]
    assert not torch.allclose(states[0], states[1])
    assert not torch.allclose(states[0], states[2])


@NAMES
def test_a_shorter_row_has_the_states_of_the_longer_one(name: str) -> None:
    net, two = networks()[name], torch.tensor([2])
    longer = net(torch.tensor([[1, 2, 3, 4]]), lengths=two)[:, :2]
    assert torch.allclose(net(torch.tensor([[1, 2]]), lengths=two), longer, atol=1e-6)


def test_places_are_counted_from_the_last_item_or_from_the_first() -> None:
    for places, expected in (("last", [[3, 4], [4, 4]]), ("first", [[0, 1], [0, 1]])):
        settings = SASRecSettings.model_validate(SMALL | {"length": 5, "places": places})
        net = build(12, settings, generator(1))
        assert isinstance(net, Transformer)
        with torch.no_grad():
            net.place.copy_(torch.arange(5.0)[:, None].expand_as(net.place))
        found = net.placed(2, torch.tensor([2, 1])).expand(2, 2, -1)[..., 0]
        assert found.tolist() == expected
        assert net.placed(2, None)[:, 0].tolist() == expected[0]


@NAMES
def test_only_draws_make_states_random_and_the_same_draws_the_same_states(name: str) -> None:
    net, inputs = networks()[name], torch.tensor([[1, 2, 3]])
    assert torch.equal(net(inputs), net(inputs))
    assert torch.equal(net(inputs, generator(5)), net(inputs, generator(5)))
    assert not torch.equal(net(inputs, generator(5)), net(inputs, generator(6)))


@NAMES
def test_the_first_weights_come_from_the_draws_alone_and_all_learn(name: str) -> None:
    net, again = networks()[name], networks()[name]
    for (key, one), (_, other) in zip(net.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), key
    (net(torch.tensor([[1, 2, 3, 4, 5]])) @ net.vectors().T).square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_each_head_attends_on_its_own_part_of_the_vector() -> None:
    layer, x = (
        Layer(SASRecSettings.model_validate(SMALL), generator(3)),
        torch.randn(2, 5, 8, generator=generator(4)),
    )
    query, key, value = (x @ part.T for part in layer.attend.chunk(3))

    def head(t: Tensor, nth: int) -> Tensor:
        return t[..., 4 * nth : 4 * nth + 4]

    seen = [
        scaled_dot_product_attention(head(query, n), head(key, n), head(value, n), is_causal=True)
        for n in (0, 1)
    ]
    assert torch.allclose(layer.attention(x), torch.cat(seen, -1) @ layer.join.T, atol=1e-6)
