"""Tuning: only the logits that the loss reads, checkpoints, exact resume.

    task -> (seed, epoch) order -> steps -> micro-batches of like lengths -> AdamW -> best step

What is tuned are low-rank weights in the model, a projector of soft tokens, or both. Base weights stay frozen,
in bfloat16 where the processor has it; the low-rank weights are float32. The order of examples is a function of
seed and epoch, the rate of the step and dropout of seed, step and batch, so an interrupted run that resumes
from its checkpoint ends in the same bits as an unbroken one, on any number of threads. The step with the best
figure on validation rows (the task says which) is kept, and nothing else is ever looked at to choose it.
"""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.llm.load import choose_dtype, is_quantised
from pipeline.llm.reader import Reader, reader
from pipeline.llm.settings import Tuning
from pipeline.llm.soft_tokens import Soft, soft_weights
from pipeline.llm.targets import lora_targets, transposed
from pipeline.llm.tasks import Task
from pipeline.llm.yes_no import even_batches
from pipeline.progress import meter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKPOINT = "tuning.safetensors"
LORA_FILES = ("adapter_model.safetensors", "adapter_config.json")


@dataclass
class Progress:
    """All of a run that is not a tensor; goes into the checkpoint as JSON."""

    step: int = 0
    tokens: int = 0
    best_step: int = 0
    best: float = -math.inf
    best_loss: float = math.inf
    since_best: int = 0
    stopped: bool = False
    recent: list[float] = field(default_factory=list)
    curve: list[tuple[int, str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Tuned:
    """Best weights, and how the run went. `seconds` is of this process only."""

    weights: dict[str, Tensor]
    progress: Progress
    seconds: float
    tokens_here: int


def tune(
    model: "PreTrainedModel",
    task: Task,
    settings: Tuning,
    seed: int,
    checkpoints: Path,
    label: str = "tune",
    soft: Soft | None = None,
) -> Tuned:
    """Tune the low-rank weights already in `model` (see `add_adapter`) and what of `soft` is trainable, from
    the last checkpoint on.

    Raises FloatingPointError where the loss is no longer a number.
    """
    weights = trainable(model) | soft_weights(soft)
    optimizer = make_optimizer(weights, settings)
    total = count_steps(settings, len(task))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        reading = reader(model, choose_dtype(settings.dtype), soft, settings.checkpointing)
        run = Run(reading, task, settings, seed, total, weights, optimizer, checkpoints / CHECKPOINT)
        run.resume()
        with meter(label, total) as shown:
            shown.advance(run.progress.step)
            started, before = perf_counter(), run.progress.tokens
            for _ in run.steps():
                shown.advance(1, run.note())
            seconds = perf_counter() - started
    return Tuned(run.best, run.progress, seconds, run.progress.tokens - before)


@dataclass
class Run:
    """One tuning run in memory."""

    reader: Reader
    task: Task
    settings: Tuning
    seed: int
    total: int
    weights: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    file: Path
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Tensor] = field(default_factory=dict)

    def steps(self) -> Iterator[int]:
        """Take the steps that are left, judging and saving on the way; yields after each."""
        if not self.best:
            self.judge()
        while self.progress.step < self.total and not self.progress.stopped:
            self.take_step()
            if self.progress.step % self.settings.evaluate_every == 0 or self.progress.step == self.total:
                self.judge()
                self.save()
            yield self.progress.step

    def take_step(self) -> None:
        """One optimiser step over `examples_per_step` examples, in as many passes as the token budget asks."""
        rows = step_rows(len(self.task), self.progress.step, self.settings.examples_per_step, self.seed)
        set_rate(self.optimizer, rate(self.progress.step, self.total, self.settings))
        loss = self.descend(rows)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {self.progress.step}; lower learning_rate")
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.settings.clip)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.recent.append(loss)

    def descend(self, rows: Sequence[int]) -> float:
        """The loss of the step's examples; leaves its gradients with the weights, summed batch by batch."""
        at = (self.progress.step, self.total)
        lengths = self.task.lengths(rows, *at)
        units = self.task.units(rows, *at)
        cut = even_batches(lengths, self.settings.batch_tokens)

        def slope(batch: int) -> tuple[float, tuple[Tensor, ...]]:
            draws = np.random.SeedSequence((self.seed, self.progress.step, batch)).generate_state(1)[0]
            part = self.task.loss(self.reader, [rows[i] for i in cut[batch]], *at, int(draws)) / units
            return part.item(), gradients_of(part, list(self.weights.values()))

        loss = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for part, gradients in self.reader.each(slope, range(len(cut))):
            loss += part
            for weight, gradient in zip(self.weights.values(), gradients, strict=True):
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        self.progress.tokens += sum(lengths)
        return loss

    def judge(self) -> None:
        """Measure the validation rows and keep the weights where their figure is the best so far; the latest
        where nothing can be told, as there are no such rows."""
        found = self.task.measure(self.reader)
        state, value = self.progress, found[self.task.chooses]
        if state.recent:
            state.curve.append((state.step, "train_loss", float(np.mean(state.recent))))
        state.curve += [(state.step, f"valid_{name}", figure) for name, figure in found.items()]
        state.recent = []
        told = math.isfinite(value) or math.isfinite(found["loss"])
        better = value > state.best or (math.isnan(value) and found["loss"] < state.best_loss)
        if better or not told or not self.best:
            self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}
            state.best_step, state.best_loss, state.since_best = state.step, found["loss"], 0
            state.best = -math.inf if math.isnan(value) else value
        else:
            state.since_best += 1
            state.stopped = state.since_best >= self.settings.patience

    def note(self) -> str:
        return f"valid {self.task.chooses} {self.progress.best:.3f} at step {self.progress.best_step}"

    def save(self) -> None:
        """Write weights, moments, random state and progress as one file that is there whole or not at all."""
        tensors = {f"now.{name}": weight.detach() for name, weight in self.weights.items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        for name, weight in self.weights.items():
            tensors |= {f"moment.{key}.{name}": value for key, value in self.optimizer.state[weight].items()}
        beside = self.file.with_suffix(".part")
        facts = json.dumps({"identity": self.identity(), "progress": asdict(self.progress)})
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, beside, {"run": facts})
        with beside.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(beside, self.file)

    def resume(self) -> None:
        """Go on from the checkpoint where there is one of this very run."""
        if not self.file.exists():
            return
        with safe_open(self.file, "pt") as saved:
            facts = json.loads(saved.metadata()["run"])
            if facts["identity"] != self.identity():
                return
            held = {key: saved.get_tensor(key) for key in saved.keys()}  # noqa: SIM118
        self.progress = Progress(**facts["progress"])
        self.progress.curve = [(step, name, value) for step, name, value in self.progress.curve]
        self.best = {n: held[f"best.{n}"].to(w.device) for n, w in self.weights.items()}
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(held[f"now.{name}"])
        self.optimizer.load_state_dict(self.moments(held))

    def moments(self, held: Mapping[str, Tensor]) -> dict[str, Any]:
        """The optimiser's state in its own layout: by position of the weight in its groups."""
        state = self.optimizer.state_dict()
        names = {id(weight): name for name, weight in self.weights.items()}
        flat = [names[id(weight)] for group in self.optimizer.param_groups for weight in group["params"]]
        keys = ("step", "exp_avg", "exp_avg_sq")
        state["state"] = {i: {key: held[f"moment.{key}.{n}"] for key in keys} for i, n in enumerate(flat)}
        return state

    def identity(self) -> str:
        """Hash of what decides the run, so that a checkpoint of another is not gone on from."""
        facts = [self.settings.model_dump(mode="json"), self.seed, self.total, self.task.identity()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# --- what a step is made of --------------------------------------------------------------------------------


def count_steps(settings: Tuning, rows: int) -> int:
    """Optimiser steps of the whole run: `steps`, or enough for `epochs` passes."""
    if settings.steps is not None:
        return settings.steps
    return math.ceil(settings.epochs * rows / settings.examples_per_step)


def step_rows(rows: int, step: int, size: int, seed: int) -> list[int]:
    """Examples of one step: the next `size` of an endless run of shuffled passes."""
    first = step * size
    epochs = range(first // rows, (first + size - 1) // rows + 1)
    order = np.concatenate([np.random.default_rng([seed, epoch]).permutation(rows) for epoch in epochs])
    at = first - epochs[0] * rows
    return order[at : at + size].tolist()


def rate(step: int, total: int, settings: Tuning) -> float:
    """Learning rate of a step: a linear warm-up over `warm_up` steps of the whole run, then the schedule."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / (settings.warm_up + 1)
    done = (step - settings.warm_up) / max(1, total - settings.warm_up)
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return settings.learning_rate * left[settings.schedule]


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def make_optimizer(weights: Mapping[str, Tensor], settings: Tuning) -> torch.optim.Optimizer:
    """AdamW; matrices decay, the projector's biases do not."""
    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    biases = [weight for weight in weights.values() if weight.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": settings.weight_decay}]
    groups += [{"params": biases, "weight_decay": 0.0}] if biases else []
    return torch.optim.AdamW(groups, lr=settings.learning_rate, foreach=True)


def gradients_of(loss: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of every weight; zeros for one that this loss does not meet."""
    return torch.autograd.grad(loss, weights, materialize_grads=True)


# --- the adapter -------------------------------------------------------------------------------------------


def add_adapter(model: "PreTrainedModel", settings: Tuning, seed: int, start: Path | None = None) -> Any:
    """Put low-rank weights into `model` in place: fresh ones by seed, or those of the folder `start`.

    Returns peft's model around it, which knows how to save them. Only they are trainable, in float32. Raises
    ValueError where the settings' targets are no layers of this model.
    """
    from peft import LoraConfig, get_peft_model

    targets = lora_targets(model, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=transposed(model, targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), old_names_of_transformers():
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    if start is not None:
        take_weights(model, read_adapter(start))
    return wrapped


@contextmanager
def old_names_of_transformers() -> Iterator[None]:
    """Keep still about peft 0.21 asking transformers 5.23 for a property under its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def trainable(model: "PreTrainedModel") -> dict[str, Tensor]:
    """Trainable weights by their name in peft's files."""
    return {
        f"base_model.model.{name}".replace(".default", ""): weight
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def take_weights(model: "PreTrainedModel", found: Mapping[str, Tensor]) -> None:
    """Copy adapter weights into the model. Raises ValueError where names or shapes differ."""
    weights = trainable(model)
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in found.items()}:
        raise ValueError(
            "the adapter to start from has other low-rank weights; use the same rank and targets in both phases"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(found[name])


def read_adapter(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def write_adapter(wrapped: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the low-rank weights among these as peft does: adapter_model.safetensors and
    adapter_config.json."""
    config = wrapped.peft_config["default"]
    config.base_model_name_or_path = None  # a path of this machine has no place in an artefact
    config.inference_mode = True
    facts = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    (folder / "adapter_config.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    save_file(
        {n: w.detach().cpu().contiguous() for n, w in weights.items() if not n.startswith("soft.")},
        folder / "adapter_model.safetensors",
    )


def merge_adapter(model: "PreTrainedModel", folder: Path) -> Any:
    """Add a saved adapter's product to the weights it adapts, in float32; beside weights of few bits it stays
    a product of its own, since adding it would round it away."""
    from peft import PeftModel

    with old_names_of_transformers():
        wrapped: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    return wrapped.get_base_model() if is_quantised(model) else wrapped.merge_and_unload()
