"""Fields under backbones: the contract of every backbone, and each one's arithmetic by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.collab.pairs import generator
from pipeline.ctr.adaptor import ITEM, USER, Adaptor
from pipeline.ctr.autoint import Interaction
from pipeline.ctr.dcnv2 import DCNv2
from pipeline.ctr.deepfm import pairs
from pipeline.ctr.fibinet import FiBiNET
from pipeline.ctr.layers import Layers
from pipeline.ctr.network import BACKBONES, Asked, FieldVectors, Network
from tests.pipeline.ctr.test_adaptor import Shape
from tests.toy_ctr_models import QUICK, held

every_backbone = pytest.mark.parametrize("backbone", BACKBONES)
SETTINGS = QUICK.model_copy(update={"dropout": 0.0, "layers": (32, 16)})


def network(backbone: str, with_dense: bool = True) -> tuple[Network, Asked]:
    material = held(with_dense)
    draws = generator(3)
    made = None
    if material.dense:
        vectors = (torch.from_numpy(material.dense[0].rows), torch.from_numpy(material.dense[1].rows))
        made = Adaptor(vectors, SETTINGS.dim, Shape(), draws)
    model = Network(backbone, material.fields, SETTINGS, made, draws)
    return model, material.asked(slice(100, 140))


# --- what holds of every backbone --------------------------------------------------------------------------


@every_backbone
@pytest.mark.parametrize("kind", [USER, ITEM])
def test_the_logit_moves_when_a_users_or_an_items_knowledge_does(backbone: str, kind: int) -> None:
    model, asked = network(backbone)
    before = model(asked)
    assert model.adaptor is not None
    model.adaptor.vectors[kind].mul_(-3)
    moved = (model(asked) - before).abs() > 1e-5
    assert moved.float().mean() > 0.9


@every_backbone
@pytest.mark.parametrize("kind", [USER, ITEM])
def test_the_gradient_reaches_either_knowledge_vector(backbone: str, kind: int) -> None:
    model, asked = network(backbone)
    assert model.adaptor is not None
    raw = model.adaptor.vectors[kind].requires_grad_()
    model(asked).square().sum().backward()
    read = asked.dense[:, kind].unique()
    assert raw.grad is not None
    assert raw.grad[read[read < len(raw)]].abs().sum(1).gt(0).float().mean() > 0.9


@every_backbone
def test_the_logit_depends_on_ids_attributes_and_history(backbone: str) -> None:
    model, asked = network(backbone, with_dense=False)
    before = model(asked)
    assert before.shape == (40,)
    for other in (
        asked._replace(user=(asked.user + 1) % 29),
        asked._replace(item=(asked.item + 1) % 23),
        asked._replace(past=asked.past.roll(1, 0), liked=asked.liked.roll(1, 0)),
        asked._replace(liked=(asked.past >= 0) & ~asked.liked),
    ):
        assert ((model(other) - before).abs() > 1e-6).float().mean() > 0.5


@every_backbone
def test_a_row_has_the_same_logit_whoever_else_is_asked(backbone: str) -> None:
    model, asked = network(backbone)
    some = Asked(*(column[7:9] for column in asked))
    assert torch.allclose(model(some), model(asked)[7:9], atol=1e-5)


@every_backbone
def test_stored_vectors_score_as_the_experts_do(backbone: str) -> None:
    model, asked = network(backbone)
    assert model.adaptor is not None
    assert torch.allclose(model(asked, model.adaptor.stored()), model(asked), atol=1e-5)


@every_backbone
def test_dropout_is_of_training_and_of_the_draws(backbone: str) -> None:
    model, asked = network(backbone)
    for layer in model.modules():
        if hasattr(layer, "dropout"):
            layer.dropout = 0.5
    assert torch.equal(model(asked), model(asked))
    assert torch.equal(model(asked, draws=generator(1)), model(asked, draws=generator(1)))
    assert not torch.equal(model(asked, draws=generator(1)), model(asked, draws=generator(2)))


def test_an_adaptor_of_one_kind_reads_the_other_kinds_vectors_not_at_all() -> None:
    model, asked = network("dcnv2")
    assert model.adaptor is not None
    draws = generator(3)
    only = Network(
        "dcnv2", held().fields, SETTINGS, Adaptor(model.adaptor.vectors, 4, Shape(), draws, (ITEM,)), draws
    )
    before = only(asked)
    model.adaptor.vectors[USER].mul_(-3)
    assert torch.equal(only(asked), before)
    model.adaptor.vectors[ITEM].mul_(-3)
    assert not torch.equal(only(asked), before)


# --- fields ------------------------------------------------------------------------------------------------


def test_a_history_is_the_mean_of_what_was_liked_and_the_mean_of_what_was_not() -> None:
    material = held()
    vectors = FieldVectors(material.fields, 4, 0.3, generator(1))
    past, liked = torch.tensor([[3, 5, 7, -1], [-1, -1, -1, -1]]), torch.tensor([[1, 0, 1, 0], [0] * 4]).bool()
    found = vectors(Asked(torch.tensor([0, 1]), torch.tensor([2, 2]), past, liked, torch.zeros(2, 2).long()))
    item = vectors.weight[vectors.codes(1)[:, 0]]
    assert torch.allclose(found[0, -2], (item[3] + item[7]) / 2)
    assert torch.allclose(found[0, -1], item[5])
    assert not found[1, -2:].any()
    assert torch.equal(found[:, 1], item[[2, 2]])


def test_an_item_of_two_categories_has_their_mean() -> None:
    material = held()
    names = [one.name for one in material.fields.attributes]
    assert names == ["user", "item", "categories", "year", "age", "gender"]
    vectors = FieldVectors(material.fields, 4, 0.3, generator(1))
    rows = vectors.codes(2)
    assert rows[1, 1] == 0
    assert torch.allclose(vectors.mean_of(rows)[0], vectors.weight[rows[0]].mean(0))
    assert torch.equal(vectors.mean_of(rows)[1], vectors.weight[rows[1, 0]])


def test_cold_users_and_items_have_the_mean_of_the_learnt() -> None:
    material = held()
    vectors = FieldVectors(material.fields, 4, 0.3, generator(1))
    vectors.settle()
    for number, cold in ((0, 29), (1, 23)):
        start, end = vectors.blocks[number]
        assert vectors.codes(number)[cold, 0] == start
        assert torch.allclose(vectors.weight[start], vectors.weight[start + 1 : end].mean(0))
    assert not vectors.weight[0].any()


# --- each by hand ------------------------------------------------------------------------------------------


def hand(*rows: list[float]) -> Tensor:
    return torch.tensor([list(rows)])


def test_pairs_of_fields_are_summed_by_inner_product() -> None:
    assert pairs(hand([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])).tolist() == [11 + 17 + 39]


def test_a_cross_layer_multiplies_the_first_input_by_a_map_and_adds() -> None:
    model = DCNv2(1, SETTINGS.model_copy(update={"dim": 2, "depth": 1}), generator(1))
    with torch.no_grad():
        model.crosses[0].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        model.crosses[0].bias.copy_(torch.tensor([1.0, 0.0]))
        model.out.weight.copy_(torch.tensor([[1.0, 10.0, *[0.0] * 16]]))
    assert model(hand([2.0, 3.0]), None, None).tolist() == [2 * (3 + 1) + 2 + 10 * (3 * 2 + 3)]


def test_bilinear_products_are_of_every_pair_in_order() -> None:
    model = FiBiNET(3, SETTINGS.model_copy(update={"dim": 2}), generator(1))
    with torch.no_grad():
        model.plain.weight.copy_(2 * torch.eye(2))
    found = model.pairs(model.plain, hand([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]))
    assert found.tolist() == [[6, 16, 10, 24, 30, 48]]


def test_fields_attend_to_each_other_whatever_their_order() -> None:
    layer, x = Interaction(4, 8, 0.0, generator(1)), torch.randn(2, 5, 4)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(layer(x[:, order], None), layer(x, None)[:, order], atol=1e-6)
    alone = torch.relu(layer.value(x[:, :1]) + layer.kept(x[:, :1]))
    assert torch.allclose(layer(x[:, :1], None), alone, atol=1e-6)


def test_layers_are_relu_of_linear_maps() -> None:
    layers, x = Layers((3, 5, 2), 0.0, generator(1)), torch.randn(4, 3)
    by_hand = np.maximum(x.numpy() @ layers.maps[0].weight.detach().numpy().T, 0)
    by_hand = np.maximum(by_hand @ layers.maps[1].weight.detach().numpy().T, 0)
    assert layers(x, None).detach().numpy() == pytest.approx(by_hand, abs=1e-6)
