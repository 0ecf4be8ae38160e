"""The shared fitting loop of models that read histories, and how a fitted one scores them.

    histories -> windows -> batches by length -> model's states -> loss of all positions -> fit_sequences

The loop knows neither the model nor its loss: both are functions that it is given. A history is cut into
windows of at most `length` inputs, counted from its end, and every position of a window is trained in one pass:
the state after some items foretells the next one. Rows are padded on the right, where no state that counts
can see the padding, and batches hold windows of like length, so padding costs little.

Each batch is cut into `LANES` parts, which stand on threads of their own, one thread each: their gradients are
added in order, so the bits are the same however many threads there are. All randomness (the order of windows,
dropout, negatives) comes from generators seeded by (seed, epoch) and by (seed, epoch, batch, lane), so a
checkpoint needs no generator state, as in `pipeline.collab.pairs`; a run that was killed goes on to the same
bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from pipeline.collab.pairs import Fit, Fitting, Judge, Saving, fit_epochs, generator
from pipeline.collab.ranked import Block, Scores
from pipeline.threads import Mapper, one_thread, workers

LANES = 2  # parts of a batch; more would be parts too small to be worth a thread
BUCKET = 8  # lengths are rounded up to a multiple of it before windows are put together
READ = 2048  # positions read at once when scoring, with padding: histories of like length stand together


class Histories(NamedTuple):
    """Items one after another (m,) int64, oldest first; history i is items[offsets[i]:offsets[i + 1]]."""

    items: Tensor
    offsets: Tensor


class Windows(NamedTuple):
    """Where windows begin and end (w,) int64 in the items of histories; the last item is a target only."""

    start: Tensor
    stop: Tensor

    @property
    def inputs(self) -> Tensor:
        """How many inputs each window has (w,)."""
        return self.stop - self.start - 1


class Steps(NamedTuple):
    """Inputs (b, l) int64 padded on the right, which are real (b, l), and the targets (n,) of the real."""

    inputs: Tensor
    real: Tensor
    targets: Tensor

    @property
    def lengths(self) -> Tensor:
        """How many inputs of each row are real (b,)."""
        return self.real.sum(1)


class Reader(nn.Module):
    """A model of histories: a state for each position, a vector for each item; their product is the score."""

    def forward(self, inputs: Tensor, draws: Generator | None = None, lengths: Tensor | None = None) -> Tensor:
        """States (b, l, d) of inputs (b, l); state t has seen inputs 0 to t.

        Draws: dropout, in training; lengths (b,): how many inputs are no padding, None for all.
        """
        raise NotImplementedError

    def vectors(self) -> Tensor:
        """Item vectors (n_items, d)."""
        raise NotImplementedError


Loss = Callable[[Steps, Generator], Tensor]  # steps, draws -> mean loss of the targets


@dataclass(frozen=True)
class Reading(Fitting):
    """How to fit; `batch` counts positions (with padding) a step, `length` the inputs of a window at most."""

    length: int = 50
    judged_by: str = "valid_ndcg_10"


def fit_sequences(
    model: Reader, train: Histories, loss: Loss, judge: Judge, how: Reading, saving: Saving | None = None
) -> Fit:
    """Fit with Adam and leave the model with the weights of the epoch that `judge` liked best.

    Raises ValueError where no history holds two items, FloatingPointError where the loss is no number.
    """
    cut = windows(train, how.length)
    if not len(cut.start):
        raise ValueError("no user has two training events, so there is no next item to learn from")

    def losses(epoch: int) -> Iterator[tuple[Tensor, int]]:
        for nth, rows in enumerate(batches(cut.inputs, how.batch, generator(how.seed, epoch))):
            parts = [
                (steps(train, cut, part), generator(how.seed, epoch, nth, lane))
                for lane, part in enumerate(rows.tensor_split(min(LANES, len(rows))))
            ]
            yield mean_in_lanes(model, loss, parts, at_once), int(cut.inputs[rows].sum())

    with workers(LANES) as at_once:
        return fit_epochs(model, losses, judge, how, saving)


class InLanes(torch.autograd.Function):
    """The mean loss of a batch in parts; forward finds each part's gradient too, beside the others."""

    @staticmethod
    def forward(
        ctx, loss: Loss, parts: Sequence[tuple[Steps, Generator]], at_once: Mapper, *weights: Tensor
    ) -> Tensor:
        total = sum(len(these.targets) for these, _ in parts)

        def share(part: tuple[Steps, Generator]) -> tuple[Tensor, Sequence[Tensor]]:
            with torch.enable_grad():
                value = loss(*part) * (len(part[0].targets) / total)
                return value.detach(), torch.autograd.grad(value, weights)

        values, gradients = zip(*at_once(share, parts), strict=True)
        ctx.save_for_backward(*(reduce(torch.add, one) for one in zip(*gradients, strict=True)))
        return reduce(torch.add, values)

    @staticmethod
    def backward(ctx, *given: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(held * given[0] for held in ctx.saved_tensors)


def mean_in_lanes(
    model: nn.Module, loss: Loss, parts: Sequence[tuple[Steps, Generator]], at_once: Mapper
) -> Tensor:
    """The mean loss of all targets of the parts, and a way back from it."""
    found = InLanes.apply(loss, parts, at_once, *model.parameters())
    assert isinstance(found, Tensor)
    return found


def windows(histories: Histories, length: int) -> Windows:
    """Cut each history into windows of at most `length` inputs, from its end; one of one item has none."""
    begin, end = histories.offsets[:-1].numpy(), histories.offsets[1:].numpy()
    pieces = -(-np.maximum(end - begin - 1, 0) // length)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    stop = end[owner] - nth * length
    start = np.maximum(begin[owner], stop - length - 1)
    return Windows(torch.from_numpy(start), torch.from_numpy(stop))


def batches(inputs: Tensor, positions: int, draws: Generator) -> Iterator[Tensor]:
    """Windows (k,) of like length, as many as fill `positions` with padding and at least one, in drawn order.

    inputs: how many each window has (w,). Each window comes once.
    """
    mixed = torch.randperm(len(inputs), generator=draws)
    widths = -(-inputs[mixed] // BUCKET) * BUCKET
    widths, order = widths.sort(stable=True)
    groups = torch.tensor_split(mixed[order], cuts(widths.tolist(), positions))
    for one in torch.randperm(len(groups), generator=draws).tolist():
        yield groups[one]


def cuts(widths: list[int], positions: int) -> list[int]:
    """Where new batches begin in windows of widths that never fall, so that the newest is the batch's width."""
    found, first = [], 0
    for nth, width in enumerate(widths):
        if nth > first and (nth + 1 - first) * width > positions:
            found.append(nth)
            first = nth
    return found


def rectangle(start: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Places (b, l) of runs of so many (b,) items from `start` (b,), l the longest; and which are real (b, l).

    What is not real is the run's first place.
    """
    column = torch.arange(int(lengths.max()))
    real = column < lengths[:, None]
    return start[:, None] + torch.where(real, column, 0), real


def steps(histories: Histories, cut: Windows, rows: Tensor) -> Steps:
    """The windows of a batch as a rectangle as wide as its longest."""
    place, real = rectangle(cut.start[rows], cut.inputs[rows])
    return Steps(histories.items[place], real, histories.items[place[real] + 1])


# --- scores ------------------------------------------------------------------------------------------------


def known_only(items: Tensor, offsets: Tensor, place: Tensor) -> Histories:
    """Histories of dense items as places (n_items,) among the learnt; items of place -1 are left out."""
    found = place[items]
    kept = found >= 0
    before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
    return Histories(found[kept], before[offsets])


@one_thread()
@torch.no_grad()
def last_states(model: Reader, histories: Histories, length: int) -> Tensor:
    """The state (n, d) after the last `length` items of each history; NaN where it is empty."""
    stop = histories.offsets[1:]
    start = torch.maximum(histories.offsets[:-1], stop - length)
    lengths = stop - start
    found = torch.full((len(stop), model.vectors().shape[1]), torch.nan)
    order = lengths.argsort(stable=True)[int((lengths == 0).sum()) :]
    for rows in order.tensor_split(cuts(lengths[order].tolist(), READ)):
        place, _ = rectangle(start[rows], lengths[rows])
        states = model(histories.items[place], lengths=lengths[rows])
        found[rows] = states[torch.arange(len(rows)), lengths[rows] - 1]
    return found


def reader_scores(model: Reader, place: Tensor, train: Histories, length: int) -> Scores:
    """Scores of all dense items: -inf for those of place (n_items,) -1, which were never learnt.

    A history of nothing known has the mean of the states that the training histories end in.
    """
    never = (place < 0).nonzero()[:, 0]
    usual: list[Tensor] = []  # made where it is first needed

    @one_thread()
    def scores(block: Block) -> Tensor:
        states = last_states(model, known_only(block.items, block.offsets, place), length)
        nothing = states.isnan().any(1)
        if nothing.any():
            usual[:] = usual or [last_states(model, train, length).nanmean(0)]
            states[nothing] = usual[0]
        found = states @ model.vectors().detach()[place.clamp_min(0)].T
        return found.index_fill_(1, never, -torch.inf)

    return scores
