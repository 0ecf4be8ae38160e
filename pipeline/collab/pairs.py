"""The shared fitting loop of models that learn from pairs (user, item, label), and its core for others.

    model + loss of a batch + judge of the model -> fit_pairs -> the weights of the best epoch

The loop knows neither the model nor its loss: both are functions that it is given. All of an epoch's
randomness (the order of rows, and whatever the loss draws) comes from one generator seeded by (seed, epoch),
so a checkpoint needs no generator state: weights, Adam's moments and the epoch say all, and a run that was
killed goes on to the same bits. It runs on one thread of the processor, on purpose: with more threads sums
are split and the last bits differ from machine to machine, and steps this small gain nothing.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from pipeline.collab.labelled import Labelled
from pipeline.progress import meter
from pipeline.store import sync, sync_folder
from pipeline.threads import one_thread

Tensors = dict[str, Tensor]


class Batch(NamedTuple):
    """Rows of labelled pairs: users (n,) int64, items (n,) int64, labels (n,) float32."""

    user: Tensor
    item: Tensor
    label: Tensor


Loss = Callable[[Batch, int, Generator], Tensor]  # batch, epoch from 0, draws -> mean loss of the batch
Judge = Callable[[], float]  # the higher the better
Losses = Callable[[int], Iterator[tuple[Tensor, int]]]  # epoch from 0 -> its batches' mean losses and rows


@dataclass(frozen=True)
class Fitting:
    """How to fit. Stops after `patience` epochs without a better judgement, or after `epochs`.

    judged_by: what the judge measures, for the curve; averaged: as of `Average`.
    """

    seed: int
    lr: float
    weight_decay: float
    batch: int
    epochs: int
    patience: int
    judged_by: str = "valid_auc"
    averaged: int = 0


@dataclass(frozen=True)
class Saving:
    """Where a fit's checkpoint is kept, and how often at most it is written."""

    file: Path
    seconds: float = 5.0


@dataclass
class Fit:
    """How far a fit has come. `curve` holds (epochs done, name, value)."""

    epochs: int = 0
    best: float = float("-inf")
    best_epochs: int = 0
    curve: list[tuple[int, str, float]] = field(default_factory=list)


class Average:
    """A running mean of the model's weights over about the last `steps` steps; 0: none is kept.

    Steps go on from the weights as they are; the mean, which the noise of single steps moves less, is judged
    and kept (Polyak and Juditsky, 1992, https://doi.org/10.1137/0330046). The n-th weights enter with
    10 / (9 + n) as long as that is more than 1 / steps, so that the first ones are soon forgotten.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model, self.steps = model, steps
        self.held = copy(model) if steps else {}

    def take(self, optimiser: torch.optim.Adam) -> None:
        """Let the weights in after a step of the optimiser."""
        if not self.steps:
            return
        done = int(next(iter(optimiser.state.values()))["step"])
        weight = max(10 / (9 + done), 1 / self.steps)
        for name, tensor in self.model.state_dict().items():
            self.held[name].lerp_(tensor, weight)

    @contextmanager
    def worn(self) -> Iterator[None]:
        """The model has the mean as its weights inside, and its own again outside."""
        if not self.steps:
            yield
            return
        own = copy(self.model)
        self.model.load_state_dict(self.held)
        try:
            yield
        finally:
            self.model.load_state_dict(own)


def fit_pairs(
    model: nn.Module, train: Batch, loss: Loss, judge: Judge, how: Fitting, saving: Saving | None = None
) -> Fit:
    """Fit with Adam and leave the model with the weights of the epoch that `judge` liked best.

    Weight decay is Adam's L2 term, as in the papers' code; parameters without dimensions (scales, offsets)
    are spared. Raises FloatingPointError where the loss is no number.
    """

    def losses(epoch: int) -> Iterator[tuple[Tensor, int]]:
        draws = generator(how.seed, epoch)
        for rows in torch.randperm(len(train.label), generator=draws).split(how.batch):
            yield loss(Batch(*(column.index_select(0, rows) for column in train)), epoch, draws), len(rows)

    return fit_epochs(model, losses, judge, how, saving)


def fit_epochs(
    model: nn.Module, losses: Losses, judge: Judge, how: Fitting, saving: Saving | None = None
) -> Fit:
    """`fit_pairs` whatever the batches are: judge each epoch, keep the best, write checkpoints, stop."""
    model.train()
    optimiser, average = adam(model, how), Average(model, how.averaged)
    fit, best = Fit(), copy(model)
    if saving is not None and saving.file.exists():
        fit, best, average.held = restore(saving.file, model, optimiser)
    written = time.monotonic()
    with one_thread(), meter("epochs", how.epochs) as counting:
        counting.advance(fit.epochs)
        while not finished(fit, how):
            loss = descend(losses(fit.epochs), optimiser, average, fit.epochs)
            with average.worn():
                if advance(fit, loss, judge(), how.judged_by):
                    best = copy(model)
            if saving is not None and (finished(fit, how) or time.monotonic() - written >= saving.seconds):
                save(saving.file, optimiser, fit, {"now": copy(model), "best": best, "mean": average.held})
                written = time.monotonic()
            counting.advance(1, f"best {fit.best:.4f}")
    model.load_state_dict(best)
    return fit


def curve_table(trials: Mapping[str, Fit]) -> pl.DataFrame:
    """Loss and judgement of every trial's epochs as a `curve` table; the phase is the candidate."""
    rows = [(phase, *point) for phase, fit in trials.items() for point in fit.curve]
    return pl.DataFrame(rows, schema=["phase", "step", "metric", "value"], orient="row")


def search_table(method: str, trials: Mapping[str, Fit]) -> pl.DataFrame:
    """The trials as a `search` table; the first of the best is chosen."""
    kept = max(trials, key=lambda candidate: trials[candidate].best)
    rows = [
        (method, candidate, fit.best, fit.best_epochs, candidate == kept) for candidate, fit in trials.items()
    ]
    return pl.DataFrame(rows, schema=["method", "candidate", "valid_auc", "epochs", "chosen"], orient="row")


def adam(model: nn.Module, how: Fitting) -> torch.optim.Adam:
    tables = [p for p in model.parameters() if p.ndim]
    scalars = [p for p in model.parameters() if not p.ndim]
    groups = [{"params": tables}, {"params": scalars, "weight_decay": 0.0}]
    return torch.optim.Adam(
        [g for g in groups if g["params"]], lr=how.lr, weight_decay=how.weight_decay, fused=True
    )


def descend(
    losses: Iterator[tuple[Tensor, int]], optimiser: torch.optim.Adam, average: Average, epoch: int
) -> float:
    """A step down each batch's loss, asked for after the step before it. Returns the mean loss of all rows.

    Raises FloatingPointError where the sum is no number.
    """
    total, n = 0.0, 0
    for value, rows in losses:
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        average.take(optimiser)
        total, n = total + value.item() * rows, n + rows
    if not np.isfinite(total):
        raise FloatingPointError(f"the loss is {total} after epoch {epoch + 1}; a lower `lr` may help")
    return total / n


def advance(fit: Fit, loss: float, judgement: float, judged_by: str) -> bool:
    """Record an epoch. Returns whether it is the best so far."""
    fit.epochs += 1
    fit.curve += [(fit.epochs, "train_loss", loss), (fit.epochs, judged_by, judgement)]
    if judgement <= fit.best:
        return False
    fit.best, fit.best_epochs = judgement, fit.epochs
    return True


def finished(fit: Fit, how: Fitting) -> bool:
    return fit.epochs >= how.epochs or fit.epochs - fit.best_epochs >= how.patience


def to_batch(rows: Labelled) -> Batch:
    """Arrays as tensors; labels become float32, as the loss wants them."""
    user, item, label = (torch.from_numpy(np.array(column)) for column in rows)
    return Batch(user, item, label.float())


def rows_a_step(batch: int | None, n: int) -> int:
    """The batch that is set, or a hundredth of the n training rows, between 2048 and 8192."""
    return batch or min(max(n // 100, 2048), 8192)


def generator(seed: int, *path: int) -> Generator:
    """Random numbers of their own for each (seed, path), on the processor."""
    (state,) = np.random.SeedSequence((seed, *path)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def copy(model: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def save(file: Path, optimiser: torch.optim.Adam, fit: Fit, weights: Mapping[str, Tensors]) -> None:
    """Write the checkpoint beside and rename, so that a kill leaves the old one or the new one."""
    held = {f"{kind}.{name}": tensor for kind, own in weights.items() for name, tensor in own.items()}
    for parameter, moments in optimiser.state_dict()["state"].items():
        held |= {f"adam.{parameter}.{name}": tensor for name, tensor in moments.items()}
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    save_file(held, beside, metadata={"fit": json.dumps(asdict(fit))})
    sync(beside)
    os.replace(beside, file)
    sync_folder(file.parent)


def restore(file: Path, model: nn.Module, optimiser: torch.optim.Adam) -> tuple[Fit, Tensors, Tensors]:
    """Put model and optimiser back where the checkpoint left them. Returns fit, best weights, mean."""
    with safe_open(file, framework="pt") as held:
        facts = json.loads(held.metadata()["fit"])
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    model.load_state_dict(under("now.", tensors))
    moments: dict[int, Tensors] = {}
    for name, tensor in under("adam.", tensors).items():
        parameter, moment = name.split(".")
        moments.setdefault(int(parameter), {})[moment] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    curve = [(epochs, name, value) for epochs, name, value in facts.pop("curve")]
    return Fit(**facts, curve=curve), under("best.", tensors), under("mean.", tensors)


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
