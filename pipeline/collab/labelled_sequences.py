"""Training rows as questions to a model that reads histories: after what a user liked, would they like this?

    train rows -> questions -> windows of liked items, each with its rows -> fit_labelled

Rows of one user share their past: what was liked before a row begins what was liked before a later one. So a
user's liked items are read once, window by window, and a row takes the state after the last item liked strictly
earlier than it. A window holds at most `length` items and begins where the one before it ends, so a state in
training has read 1 to `length` items. A row with nothing liked before it is not learnt from.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Generator, Tensor

from pipeline.collab.pairs import Fit, Fitting, Judge, Saving, fit_epochs, generator
from pipeline.collab.pasts import PAD, Items, lengths
from pipeline.collab.sequences import Histories, Reader, batches, rectangle
from pipeline.data import histories


class Windows(NamedTuple):
    """Where windows begin in the liked items (w,), how many they hold (w,); their first row, how many (w,)."""

    start: Tensor
    length: Tensor
    first: Tensor
    rows: Tensor


class Questions(NamedTuple):
    """liked: what each user liked. Of row i: it is asked after item after[i] of its window, of target[i].

    after, target int64 and label float32 are (n,), in the order of the windows.
    """

    liked: Histories
    windows: Windows
    after: Tensor
    target: Tensor
    label: Tensor


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # states (n, d), targets (n,), labels (n,) -> mean loss


def questions(train: pl.DataFrame, length: int) -> Questions:
    """Training rows (user, item, label, at, row) as questions. Raises ValueError where none can be asked."""
    liked = train.filter(pl.col("label") > 0)
    past = histories.Histories(train, liked, longest=liked.height)
    asked = np.flatnonzero(past.lengths)
    if not len(asked):
        raise ValueError(
            "no user has a liked training row before another, so there is no history to learn from"
        )
    nth = past.lengths[asked] - 1
    begin = past.start[asked] + nth // length * length
    order = np.argsort(begin, kind="stable")
    start, rows = np.unique(begin, return_counts=True)
    after, first = (nth % length)[order], np.cumsum(rows) - rows
    held = np.maximum.reduceat(after, first) + 1
    item, label = (train[name].to_numpy()[asked][order] for name in ("item", "label"))
    users = np.bincount(liked["user"].to_numpy(), minlength=1)
    return Questions(
        Histories(whole(past.items), whole(np.concatenate([[0], np.cumsum(users[users > 0])]))),
        Windows(*(whole(a) for a in (start, held, first, rows))),
        whole(after),
        whole(item),
        whole(label).float(),
    )


def whole(numbers: np.ndarray) -> Tensor:
    """Whole numbers as int64."""
    return torch.from_numpy(numbers.astype(np.int64))


def fit_labelled(
    model: Reader, asked: Questions, loss: Loss, judge: Judge, how: Fitting, saving: Saving | None = None
) -> Fit:
    """Fit with Adam and leave the model with the weights of the epoch that `judge` liked best.

    A step reads as many windows as fill `how.batch` positions. Raises FloatingPointError where the loss is no
    number.
    """

    def losses(epoch: int) -> Iterator[tuple[Tensor, int]]:
        draws = generator(how.seed, epoch)
        for some in batches(asked.windows.length, how.batch, draws):
            states, rows = states_of(model, asked, some, draws)
            yield loss(states, asked.target[rows], asked.label[rows]), len(rows)

    return fit_epochs(model, losses, judge, how, saving)


def states_of(model: Reader, asked: Questions, some: Tensor, draws: Generator | None) -> tuple[Tensor, Tensor]:
    """States (n, d) that the rows (n,) of these windows (b,) are asked after; and which rows they are."""
    cut = asked.windows
    place, _ = rectangle(cut.start[some], cut.length[some])
    rows, real = rectangle(cut.first[some], cut.rows[some])
    owner = torch.arange(len(some))[:, None].expand_as(rows)[real]
    states = model(asked.liked.items[place], draws)
    return states[owner, asked.after[rows[real]]], rows[real]


def as_histories(pasts: Items) -> Histories:
    """Pasts (n, longest) one after another."""
    ends = np.concatenate([[0], np.cumsum(lengths(pasts))])
    return Histories(whole(pasts[pasts != PAD]), whole(ends))
