"""The adaptor: experts by the formula, gates that sum to one, and vectors read once whatever the rows."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import linear, relu

from pipeline.collab.pairs import generator
from pipeline.ctr.adaptor import ITEM, USER, Adaptor, HybridExperts, distinct


@dataclass
class Shape:
    shared: int = 2
    dedicated: int = 1
    hidden: int = 6


def adaptor(shape: Shape | None = None) -> Adaptor:
    draws = generator(1)
    vectors = (torch.randn(4, 5, generator=draws), torch.randn(3, 5, generator=draws))
    made = Adaptor(vectors, 2, shape or Shape(), draws)
    with torch.no_grad():
        made.missing.copy_(torch.tensor([[9.0, 8.0], [7.0, 6.0]]))
    return made


def test_one_expert_of_its_own_is_two_layers_with_relu_after_both() -> None:
    experts, x = HybridExperts(5, 2, Shape(shared=0), generator(1)), torch.randn(7, 5)
    for kind in (USER, ITEM):
        inner = relu(linear(x, experts.first[kind].T, experts.first_bias[kind, 0]))
        outer = relu(linear(inner, experts.second[kind].T, experts.second_bias[kind, 0]))
        assert torch.allclose(experts(kind, x), outer, atol=1e-6)


def test_the_output_is_the_experts_weighed_by_gates_that_sum_to_one() -> None:
    experts, x = HybridExperts(5, 2, Shape(shared=1, dedicated=2), generator(1)), torch.randn(7, 5)
    weights = experts.weights(ITEM, x)
    assert weights.shape == (7, 3)
    assert torch.allclose(weights.sum(1), torch.ones(7))
    each = [relu(relu(x @ experts.first[e]) @ experts.second[e]) for e in (2, 3, 4)]  # shared, then items' own
    due = sum(weights[:, [n]] * one for n, one in enumerate(each))
    assert torch.allclose(experts(ITEM, x), due, atol=1e-6)


@pytest.mark.parametrize(("expert", "moved"), [(0, (True, False)), (1, (True, True)), (3, (False, True))])
def test_kinds_share_the_shared_experts_only(expert: int, moved: tuple[bool, bool]) -> None:
    experts, x = HybridExperts(5, 2, Shape(), generator(1)), torch.randn(7, 5)
    before = [experts(kind, x).detach() for kind in (USER, ITEM)]
    with torch.no_grad():
        experts.second_bias[expert] += 1
    assert tuple(not torch.equal(experts(k, x), before[k]) for k in (USER, ITEM)) == moved


def test_rows_read_their_owners_vectors_and_those_beyond_the_last_are_missing() -> None:
    made, rows = adaptor(), torch.tensor([2, 0, 4, 2])
    found = made.read(USER, rows)
    assert torch.allclose(found[:2], made.experts(USER, made.vectors[USER][[2, 0]]))
    assert found[2].tolist() == [9, 8]
    assert torch.equal(found[0], found[3])
    assert made.read(ITEM, torch.tensor([3, 3])).tolist() == [[7, 6], [7, 6]]


def test_experts_read_each_different_vector_of_a_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, read = adaptor(), []
    inside = made.experts.forward
    monkeypatch.setattr(made.experts, "forward", lambda kind, x: read.append(len(x)) or inside(kind, x))
    made.read(USER, torch.tensor([2, 0, 4, 2, 2, 0]))
    assert read == [2]


@given(st.lists(st.integers(0, 9), min_size=1))
def test_the_different_rows_are_those_of_unique(rows: list[int]) -> None:
    asked, place = distinct(torch.tensor(rows), 10)
    assert asked.tolist() == sorted(set(rows))
    assert asked[place].tolist() == rows


def test_gradients_reach_experts_gates_and_missing() -> None:
    made = adaptor()
    (made.read(USER, torch.tensor([0, 4])).sum() + made.read(ITEM, torch.tensor([1])).square().sum()).backward()
    assert made.experts.first.grad is not None
    assert made.experts.first.grad.abs().sum((1, 2)).gt(0).sum() >= 3
    assert made.missing.grad is not None
    assert made.missing.grad.tolist() == [[1, 1], [0, 0]]


def test_stored_vectors_are_what_the_experts_give() -> None:
    made = adaptor()
    stored, rows = made.stored(), torch.tensor([3, 4, 1])
    assert [len(one) for one in stored] == [5, 4]
    assert torch.allclose(stored.read(USER, rows), made.read(USER, rows), atol=1e-6)


def test_the_vectors_are_no_part_of_what_is_saved() -> None:
    experts = {"first", "second", "first_bias", "second_bias"}
    gates = {f"gates.{kind}.{part}" for kind in (USER, ITEM) for part in ("weight", "bias")}
    assert set(adaptor().state_dict()) == {"missing", *(f"experts.{name}" for name in experts | gates)}
