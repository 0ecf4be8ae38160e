"""The torch module of LightGCN: vectors averaged over the graph of users and items."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from pipeline.collab.events import Trained
from pipeline.collab.factors import Entity, table


class Links(NamedTuple):
    """Who used what, divided by the roots of both degrees, sparse: (n_users, n_items) and transposed."""

    user_item: Tensor
    item_user: Tensor


def links(rows: Trained) -> Links:
    """The graph of the training pairs, each once."""
    user, item = np.divmod(np.unique(rows.user * rows.n_items + rows.item), rows.n_items)
    degree = [np.bincount(ids, minlength=n) for ids, n in ((user, rows.n_users), (item, rows.n_items))]
    weight = torch.from_numpy((degree[0][user] * degree[1][item]) ** -0.5).float()
    where = torch.from_numpy(np.stack([user, item]))
    shape = (rows.n_users, rows.n_items)
    with torch.sparse.check_sparse_tensor_invariants():
        forth = torch.sparse_coo_tensor(where, weight, shape).coalesce()
        back = torch.sparse_coo_tensor(where.flip(0), weight, shape[::-1]).coalesce()
    return Links(forth, back)


class Neighbours(torch.autograd.Function):
    """matrix @ x for a sparse matrix whose transpose is at hand: backwards it multiplies the gradient."""

    @staticmethod
    def forward(ctx, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return torch.sparse.mm(matrix, x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, torch.sparse.mm(ctx.transposed, gradients[0])


class LightGCN(nn.Module):
    """Learnt vectors; what is read of an id is the mean of its own and of `layers` steps over the links."""

    def __init__(self, graph: Links, dim: int, layers: int, spread: float, draws: Generator) -> None:
        super().__init__()
        self.graph, self.layers = graph, layers
        self.user = table(graph.user_item.shape[0], dim, spread, draws)
        self.item = table(graph.user_item.shape[1], dim, spread, draws)

    def forward(self) -> dict[Entity, Tensor]:
        """Vectors of all users (n_users, dim) and items (n_items, dim)."""
        user, item = self.user, self.item
        users, items = user, item
        for _ in range(self.layers):
            user, item = (
                Neighbours.apply(self.graph.user_item, self.graph.item_user, item),
                Neighbours.apply(self.graph.item_user, self.graph.user_item, user),
            )
            users, items = users + user, items + item
        return {"user": users / (self.layers + 1), "item": items / (self.layers + 1)}
