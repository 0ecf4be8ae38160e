"""The torch modules of matrix factorisation: real vectors, and vectors read through their signs."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding

Entity = Literal["user", "item"]
Slope = Literal["tanh", "identity"]


def table(rows: int, width: int, spread: float, draws: Generator) -> nn.Parameter:
    """A learnt row of `width` numbers for every id, drawn from N(0, spread^2)."""
    return nn.Parameter(torch.randn(rows, width, generator=draws) * spread)


class Factors(nn.Module):
    """Matrix factorisation with biases: logit = offset + user bias + item bias + <user, item>."""

    def __init__(self, n_users: int, n_items: int, dim: int, spread: float, draws: Generator) -> None:
        super().__init__()
        self.user = table(n_users, dim, spread, draws)
        self.item = table(n_items, dim, spread, draws)
        self.user_bias = nn.Parameter(torch.zeros(n_users, 1))
        self.item_bias = nn.Parameter(torch.zeros(n_items, 1))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits (n,) of pairs: users (n,) and items (n,)."""
        product = (embedding(user, self.user) * embedding(item, self.item)).sum(1, keepdim=True)
        biases = embedding(user, self.user_bias) + embedding(item, self.item_bias)
        return (product + biases).squeeze(1) + self.offset

    @torch.no_grad()
    def vectors(self) -> dict[Entity, Tensor]:
        """Users [user, bias, 1] and items [item, 1, bias], (rows, dim + 2).

        Their inner product plus the offset is the logit: the vectors carry all that was learnt of an id.
        """
        users = torch.cat([self.user, self.user_bias, torch.ones_like(self.user_bias)], dim=1)
        items = torch.cat([self.item, torch.ones_like(self.item_bias), self.item_bias], dim=1)
        return {"user": users, "item": items}


class Sign(torch.autograd.Function):
    """-1 below zero and +1 from zero on; backwards the gradient passes unchanged (straight-through)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.where(x < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return gradients[0]


def signs(x: Tensor, slope: Slope) -> Tensor:
    """Signs of x in {-1, +1}, 0 giving +1.

    Gradient: of tanh where `slope` is tanh (the authors sign tanh(x) and pass the sign's gradient on
    unchanged), 1 where it is identity, so that bits far from zero still move.
    """
    signed = Sign.apply(torch.tanh(x) if slope == "tanh" else x)
    assert isinstance(signed, Tensor)
    return signed


@dataclass(frozen=True)
class SignedForm:
    """What signed factors are made of; the words are explained where a study sets them."""

    width: int
    spread: float
    layer: Literal["separate", "shared", "none"]
    slope: Slope
    logits: Literal["raw", "scaled"]


class SignedFactors(nn.Module):
    """BinLLM's binarised factorisation: id -> row -> linear layer -> tanh -> sign; logit = <user, item>."""

    def __init__(self, n_users: int, n_items: int, form: SignedForm, draws: Generator) -> None:
        super().__init__()
        self.slope: Slope = form.slope
        self.user, self.item = (table(n, form.width, form.spread, draws) for n in (n_users, n_items))
        self.user_layer = nn.Identity() if form.layer == "none" else linear(form.width, draws)
        self.item_layer = linear(form.width, draws) if form.layer == "separate" else self.user_layer
        scaled = form.logits == "scaled"
        self.scale = nn.Parameter(torch.tensor(form.width**-0.5)) if scaled else None
        self.offset = nn.Parameter(torch.zeros(())) if scaled else None

    def reach(self, entity: Entity, ids: Tensor | None = None) -> Tensor:
        """What is signed, before tanh, (n, width): of the ids (n,), or of all."""
        rows = getattr(self, entity)
        return getattr(self, f"{entity}_layer")(rows if ids is None else embedding(ids, rows))

    def forward(self, user: Tensor, item: Tensor, share: float, draws: Generator) -> Tensor:
        """Logits (n,) of pairs in training: each bit is signed with probability `share`, else tanh.

        One draw decides for the user's bit and the item's, as in the authors' code.
        """
        x, y = self.reach("user", user), self.reach("item", item)
        if share >= 1:
            return self.logits(self.signed(x, y).sum(1))
        product = torch.tanh(x) * torch.tanh(y)
        if share > 0:
            chosen = torch.rand(product.shape, generator=draws) < share
            product = torch.where(chosen, self.signed(x, y), product)
        return self.logits(product.sum(1))

    def signed(self, x: Tensor, y: Tensor) -> Tensor:
        """Products of signs, bit by bit (n, width)."""
        return signs(x, self.slope) * signs(y, self.slope)

    def logits(self, product: Tensor) -> Tensor:
        """Inner products (n,) as they are, or on the learnt scale."""
        return product if self.scale is None or self.offset is None else self.scale * product + self.offset


def linear(width: int, draws: Generator) -> nn.Linear:
    """torch's own initialisation of a square layer, from our draws: uniform within 1/sqrt(width)."""
    layer, bound = nn.Linear(width, width), width**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=draws)
    return layer
