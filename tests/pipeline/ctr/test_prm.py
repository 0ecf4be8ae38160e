"""PRM's network: it sees the whole list and nothing beyond it, and both kinds of knowledge move it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline.collab.pairs import generator
from pipeline.collab.pasts import PAD
from pipeline.ctr.adaptor import ITEM, USER, Adaptor
from pipeline.ctr.prm import PRM, Listed
from tests.pipeline.ctr.test_adaptor import Shape as Experts
from tests.toy_ctr_models import held

SHAPE: Any = SimpleNamespace(dim=4, width=8, heads=2, layers=(8, 4), dropout=0.0, spread=0.3)
VECTORS = 12
LISTS = Listed(
    user=torch.tensor([0, 1, 2]),
    items=torch.tensor([[3, 5, 7, 9], [4, 6, 8, PAD], [2, 3, 4, 5]]),
    initial=torch.tensor([[3.0, 2.0, 1.0, 0.5], [2.0, 1.0, 0.5, 0.0], [4.0, 3.0, 2.0, 1.0]]),
    past=torch.tensor([[1, 2], [3, PAD], [PAD, PAD]]),
    dense=torch.tensor([[[u, i] for i in range(u, u + 4)] for u in range(3)]),
    target=torch.tensor([1, 0, 3]),
)


def network(kinds: tuple[int, ...] | None = (USER, ITEM)) -> PRM:
    draws = generator(4)
    vectors = (torch.randn(VECTORS, 5, generator=draws), torch.randn(VECTORS, 5, generator=draws))
    made = Adaptor(vectors, SHAPE.dim, Experts(), draws, kinds) if kinds is not None else None
    return PRM(held().fields, 4, SHAPE, made, draws)


@pytest.mark.parametrize("kind", [USER, ITEM])
def test_output_and_gradient_move_when_a_vector_of_either_kind_moves(kind: int) -> None:
    model = network()
    assert model.adaptor is not None
    for vectors in model.adaptor.vectors:
        vectors.requires_grad_()
    scores = model(LISTS)
    cross_entropy(scores, LISTS.target).backward()
    gradient = model.adaptor.vectors[kind].grad
    assert gradient is not None
    read = LISTS.dense[:, :, kind][LISTS.items != PAD].unique()
    assert (gradient[read].abs().sum(1) > 0).all()
    with torch.no_grad():
        model.adaptor.vectors[kind][0] += 3.0  # read by the first list alone
        moved = (model(LISTS) - scores).abs()
    assert (moved[0] > 1e-6).all()  # each item of the list, as it attends to the one that moved
    assert (moved[2][LISTS.items[2] != PAD] < 1e-6).all()


@pytest.mark.parametrize(("kinds", "unread"), [((USER,), ITEM), ((ITEM,), USER), (None, None)])
def test_a_vector_that_no_field_reads_moves_nothing(kinds: Any, unread: int | None) -> None:
    model = network(kinds)
    scores = model(LISTS)
    other = LISTS.dense.clone()
    other[:, :, [unread] if unread is not None else [USER, ITEM]] = 11
    assert torch.equal(model(LISTS._replace(dense=other)), scores)


def test_stored_vectors_score_the_same() -> None:
    model = network()
    assert model.adaptor is not None
    assert torch.allclose(model(LISTS, model.adaptor.stored()), model(LISTS), atol=1e-6)


def test_a_score_hangs_on_the_whole_list_but_not_on_other_lists_or_what_pads() -> None:
    model = network()
    scores = model(LISTS)
    assert torch.isneginf(scores[1, 3])
    changed = LISTS.items.clone()
    changed[0, 3] = 10
    moved = model(LISTS._replace(items=changed))
    assert not torch.isclose(moved[0, 0], scores[0, 0])
    assert torch.equal(moved[1:], scores[1:])
    noise = LISTS.initial.clone()
    noise[1, 3] = 99.0
    assert torch.allclose(model(LISTS._replace(initial=noise))[1, :3], scores[1, :3])
    short = Listed(*(column[1:2] for column in LISTS))._replace(
        items=LISTS.items[1:2, :3], initial=LISTS.initial[1:2, :3], dense=LISTS.dense[1:2, :3]
    )
    assert torch.allclose(model(short), scores[1:2, :3], atol=1e-6)


def test_places_first_scores_and_the_user_are_read() -> None:
    model = network(None)
    scores = model(LISTS)
    for changed in (
        LISTS._replace(user=LISTS.user + 5),
        LISTS._replace(past=LISTS.past.roll(1, 0)),
        LISTS._replace(initial=LISTS.initial + 1),
    ):
        assert not torch.allclose(model(changed)[0], scores[0])
    turned = LISTS._replace(items=LISTS.items.flip(1), initial=LISTS.initial.flip(1))
    assert not torch.allclose(model(turned)[0].flip(0), scores[0])
