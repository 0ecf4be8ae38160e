"""The one door by which dense vectors join a click-through model: experts that turn them into fields.

    vectors (n, width) of users, of items -> HybridExperts -> fields (n, dim); or read from a stored table

Xi et al., RecSys 2024, https://arxiv.org/abs/2306.10933 (KAR): experts that both kinds of vectors share and
experts of one kind alone, each two layers with ReLU after both; a kind's vector is the sum of its experts'
outputs, weighed by a softmax of the raw vector.

A batch asks for few different users and items, so experts read each of them once, whatever the rows
(`Adaptor`). Once learnt, every vector is adapted and stored (`Stored`), and neither text, encoder nor experts
are needed to score. Who has no vector has one that is learnt, `missing`, one of each kind, from zeros.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, relu

from pipeline.collab.factors import table
from pipeline.ctr.layers import Affine

USER, ITEM = 0, 1
KINDS = ("user", "item")


class Experts(Protocol):
    """Settings that say what the adaptor is made of."""

    @property
    def shared(self) -> int: ...
    @property
    def dedicated(self) -> int: ...
    @property
    def hidden(self) -> int: ...


class Fieldwise(Protocol):
    """Whatever gives the fields (n, dim) of rows (n,) of the vectors of a kind."""

    def read(self, kind: int, rows: Tensor) -> Tensor: ...


class HybridExperts(nn.Module):
    """Shared and dedicated experts, and a gate for each kind.

    Experts stand in the order [users' own, shared, items' own], so that those of a kind are one slice.
    """

    def __init__(self, width: int, to: int, shape: Experts, draws: Generator) -> None:
        super().__init__()
        all_experts, own = shape.shared + 2 * shape.dedicated, shape.dedicated
        self.slices = (slice(0, own + shape.shared), slice(own, all_experts))
        self.first = drawn(all_experts, width, shape.hidden, draws)
        self.second = drawn(all_experts, shape.hidden, to, draws)
        self.first_bias = nn.Parameter(torch.zeros(all_experts, 1, shape.hidden))
        self.second_bias = nn.Parameter(torch.zeros(all_experts, 1, to))
        self.gates = nn.ModuleList(Affine(width, own + shape.shared, draws) for _ in KINDS)

    def forward(self, kind: int, x: Tensor) -> Tensor:
        """Vectors (n, width) of a kind to (n, to)."""
        some = self.slices[kind]
        many = x.expand(some.stop - some.start, *x.shape)
        inner = relu(torch.baddbmm(self.first_bias[some], many, self.first[some]))
        outer = relu(torch.baddbmm(self.second_bias[some], inner, self.second[some]))
        return torch.einsum("ne,end->nd", self.weights(kind, x), outer)

    def weights(self, kind: int, x: Tensor) -> Tensor:
        """What each of the kind's experts counts for, (n, experts), in sum 1."""
        return self.gates[kind](x).softmax(1)


def drawn(experts: int, width: int, to: int, draws: Generator) -> nn.Parameter:
    """Weights (experts, width, to) from N(0, 2 / width), as ReLU takes half of what comes out."""
    return nn.Parameter(table(experts * width, to, (2 / width) ** 0.5, draws).detach().view(experts, width, to))


class Adaptor(nn.Module):
    """Experts over the vectors of the users and of the items, learnt with the model that reads them.

    The vectors are not part of the state: they are the input's, and may be far larger than what is learnt.
    """

    def __init__(
        self,
        vectors: tuple[Tensor, Tensor],
        to: int,
        shape: Experts,
        draws: Generator,
        kinds: tuple[int, ...] = (USER, ITEM),
    ) -> None:
        super().__init__()
        self.vectors, self.kinds = vectors, kinds
        self.experts = HybridExperts(vectors[0].shape[1], to, shape, draws)
        self.missing = nn.Parameter(torch.zeros(len(KINDS), to))

    def read(self, kind: int, rows: Tensor) -> Tensor:
        """Fields (n, to) of rows (n,); a row that is one beyond the last vector has `missing`."""
        asked, place = distinct(rows, len(self.vectors[kind]) + 1)
        return embedding(place, self.adapted(kind, asked[asked < len(self.vectors[kind])]))

    def adapted(self, kind: int, rows: Tensor) -> Tensor:
        """Fields of these vectors, and `missing` behind them, (n + 1, to)."""
        raw = self.vectors[kind].index_select(0, rows).float()
        return torch.cat([self.experts(kind, raw), self.missing[kind][None]])

    @torch.no_grad()
    def stored(self) -> "Stored":
        """All vectors, adapted once."""
        return Stored(*(self.adapted(k, torch.arange(len(rows))) for k, rows in enumerate(self.vectors)))


def distinct(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The different numbers below `count` among rows (n,), in order, and the place of each row's among them."""
    there = torch.zeros(count, dtype=torch.bool).index_fill_(0, rows, True)
    return there.nonzero().squeeze(1), (there.cumsum(0) - 1)[rows]


class Stored(NamedTuple):
    """Adapted vectors of users (n_users + 1, to) and items (n_items + 1, to); the last is `missing`."""

    user: Tensor
    item: Tensor

    def read(self, kind: int, rows: Tensor) -> Tensor:
        return embedding(rows, self[kind])
