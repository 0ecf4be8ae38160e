"""Losses of models that foretell the next item from a state: all items, sampled ones, or one.

    states (n, d), item vectors (m, d), targets (n,) -> mean loss of the targets

| name | against what | source |
| --- | --- | --- |
| cross_entropy | all items, exactly | - |
| sampled_softmax | `negatives` items that all targets of a step share, counted up to stand for all others | - |
| bce | one drawn item for each target | SASRec, Kang and McAuley, 2018 |
| gbce | items that a step shares, each a question; positive calibrated | gSASRec, Petrov and Macdonald, 2023 |

gSASRec's authors draw negatives for each target; here the targets of a step share them, which makes one matrix
product of it. An item that happens to be a target's own does not count as its negative.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn.functional import embedding, softplus

if TYPE_CHECKING:
    from pipeline.collab.readers import ReaderSettings

CELLS = 1 << 18  # scores in memory at once (1 MB): the passes over them stay in the processor's cache,
LEAST = 64  # but so many states at once: each block reads all items and writes all their gradients
TINY = torch.finfo(torch.float32).tiny

ItemLoss = Callable[[Tensor, Tensor, Tensor, Generator], Tensor]  # states, vectors, targets, draws -> mean loss


class FullSoftmax(torch.autograd.Function):
    """Cross-entropy of the targets among all items, with its gradients, a block of states at a time.

    The scores of all states and items never stand in memory together: each block's are made, turned to
    probabilities in place and used for both gradients at once. A single loss is at most -log(TINY) = 87.
    """

    @staticmethod
    def forward(ctx, states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        n, rows = len(states), max(LEAST, CELLS // len(items))
        to_states, to_items = torch.empty_like(states), torch.zeros_like(items)
        total = torch.zeros((), dtype=torch.float64)
        room = states.new_empty(
            min(rows, n), len(items)
        )  # of every block: new memory costs as much as a product
        for some, own, back in zip(*(t.split(rows) for t in (states, targets, to_states)), strict=True):
            p = torch.mm(some, items.T, out=room[: len(some)])
            torch.softmax(p, 1, out=p)
            held = p.gather(1, own[:, None])
            total -= held.clamp_min(TINY).log().sum(dtype=torch.float64)
            p.scatter_(1, own[:, None], held - 1)
            torch.mm(p, items, out=back)
            to_items.addmm_(p.T, some)
        ctx.save_for_backward(to_states.div_(n), to_items.div_(n))
        return (total / n).to(states.dtype)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        to_states, to_items = ctx.saved_tensors
        return to_states * gradients[0], to_items * gradients[0], None


def cross_entropy(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """-log P(target), P the softmax of all items' scores."""
    found = FullSoftmax.apply(states, items, targets)
    assert isinstance(found, Tensor)
    return found


def own_scores(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Score (n,) of each state's own item."""
    return (states * embedding(targets, items)).sum(1)


def shared_scores(states: Tensor, items: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
    """Scores (n, k) of the drawn items (k,), -inf where one is the state's own target."""
    return (states @ items[drawn].T).masked_fill(drawn == targets[:, None], -torch.inf)


def sampled_softmax(states: Tensor, items: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
    """Cross-entropy with drawn items (k,) in place of all others, each counted (m - 1) / k times."""
    own = own_scores(states, items, targets)
    others = shared_scores(states, items, targets, drawn) + math.log((len(items) - 1) / len(drawn))
    return (torch.cat([own[:, None], others], 1).logsumexp(1) - own).mean()


def bce(states: Tensor, items: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
    """Binary cross-entropy: the target is 1, the state's one drawn item (n,) is 0."""
    return (softplus(-own_scores(states, items, targets)) + softplus(own_scores(states, items, drawn))).mean()


def gbce(states: Tensor, items: Tensor, targets: Tensor, drawn: Tensor, calibration: float) -> Tensor:
    """Binary cross-entropy with P(target) raised to beta, which undoes the overconfidence of few negatives.

    beta = 1 - t (1 - a) with a the share of other items drawn and t the calibration: at 0 it is bce with many
    negatives, at 1 the scores are those of a softmax over all items.
    """
    beta = 1 - calibration * (1 - len(drawn) / (len(items) - 1))
    own = softplus(-own_scores(states, items, targets))
    others = softplus(shared_scores(states, items, targets, drawn)).sum(1)
    return ((beta * own + others) / (len(drawn) + 1)).mean()


def others_than(targets: Tensor, n_items: int, draws: Generator) -> Tensor:
    """One item (n,) for each target, drawn evenly from all but it."""
    drawn = torch.randint(n_items - 1, targets.shape, generator=draws)
    return drawn + (drawn >= targets)


def item_loss(settings: "ReaderSettings") -> ItemLoss:
    """The loss that the settings name."""

    def shared(items: Tensor, draws: Generator) -> Tensor:
        return torch.randint(len(items), (min(settings.negatives, len(items) - 1),), generator=draws)

    losses: dict[str, ItemLoss] = {
        "cross_entropy": lambda s, v, t, draws: cross_entropy(s, v, t),
        "sampled_softmax": lambda s, v, t, draws: sampled_softmax(s, v, t, shared(v, draws)),
        "bce": lambda s, v, t, draws: bce(s, v, t, others_than(t, len(v), draws)),
        "gbce": lambda s, v, t, draws: gbce(s, v, t, shared(v, draws), settings.calibration),
    }
    return losses[settings.loss]
