"""LightGCN's module: links by hand, propagation against dense algebra, gradients against differences."""

import numpy as np
import pytest
import torch

from pipeline.collab.events import Trained
from pipeline.collab.pairs import generator
from pipeline.collab.propagated import LightGCN, Neighbours, links

ROWS = Trained(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 2]), 3, 4)


def test_links_are_divided_by_the_roots_of_both_degrees_and_stand_once() -> None:
    graph = links(ROWS)
    a, b = 1 / np.sqrt(2), 1 / 2
    assert graph.user_item.to_dense().numpy() == pytest.approx(np.array([[a, b, 0, 0], [0, b, a, 0], [0] * 4]))
    assert graph.item_user.to_dense().equal(graph.user_item.to_dense().T)


def test_vectors_are_means_over_the_steps() -> None:
    model = LightGCN(links(ROWS), dim=5, layers=2, spread=1.0, draws=generator(1))
    dense = links(ROWS).user_item.to_dense()
    whole = torch.zeros(7, 7)
    whole[:3, 3:], whole[3:, :3] = dense, dense.T
    first = torch.cat([model.user, model.item])
    wanted = (first + whole @ first + whole @ whole @ first) / 3
    found = model()
    assert torch.allclose(torch.cat([found["user"], found["item"]]), wanted, atol=1e-6)


def test_gradients_pass_through_the_links() -> None:
    forth, back = (matrix.double() for matrix in links(ROWS))
    x = torch.randn(4, 2, dtype=torch.float64, generator=generator(2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda held: Neighbours.apply(forth, back, held), (x,))


def test_only_the_vectors_are_learnt_and_saved() -> None:
    model = LightGCN(links(ROWS), dim=5, layers=2, spread=1.0, draws=generator(1))
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == {"user": (3, 5), "item": (4, 5)}
    assert len(list(model.parameters())) == 2
