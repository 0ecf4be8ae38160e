"""The torch module of LLM-Rec's recommender: users are learnt vectors, items what layers make of their
texts."""

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, linear, relu

from pipeline.collab.factors import table
from pipeline.collab.negatives import Scored, squared
from pipeline.collab.vectors import Vectors


class TextTower(nn.Module):
    """Text vectors (n_items, width) -> two layers with ReLU -> item vectors; their product with a user's is the
    logit.

    No item has anything of its own: what the layers know of an item, they know from its text.
    """

    texts: Tensor

    def __init__(
        self, n_users: int, texts: Tensor, dim: int, hidden: int, spread: float, draws: Generator
    ) -> None:
        super().__init__()
        width = texts.shape[1]
        self.register_buffer("texts", texts, persistent=False)
        self.user = table(n_users, dim, spread, draws)
        self.first = table(hidden, width, width**-0.5, draws)
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.second = table(hidden, hidden, hidden**-0.5, draws)
        self.second_bias = nn.Parameter(torch.zeros(hidden))
        self.last = table(dim, hidden, hidden**-0.5, draws)

    def items(self) -> Tensor:
        """Vectors (n_items, dim) of all items."""
        inner = relu(linear(self.texts, self.first, self.first_bias))
        return linear(relu(linear(inner, self.second, self.second_bias)), self.last)

    def score(self, user: Tensor, items: Tensor) -> Scored:
        """Logits (n, m) of users (n,) and their items (n, m)."""
        users, found = embedding(user, self.user), embedding(items, self.items())
        return Scored((users[:, None] * found).sum(2), squared(users, found))

    @torch.no_grad()
    def read(self) -> Vectors:
        """The vectors whose inner products are the logits."""
        return Vectors(self.user.numpy().copy(), self.items().numpy())
