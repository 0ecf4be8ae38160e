"""How a network learns to write the id of the next item, and the scores that it then gives to items.

    samples -> `pipeline.llm.tune`'s steps (AdamW, exact resume, the best step kept) -> T5 -> beam -> Scores

A step's samples are cut into passes of like lengths, read side by side, and their gradients are summed in one
order, so the bits do not hang on the number of threads. Validation is by the very beam that recommends, on some
users.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.codes.beam import Writer, Written, beam, exact
from pipeline.codes.prefixes import Samples, Tokens, asked, batch, lengths
from pipeline.codes.t5 import T5
from pipeline.collab.ranked import Block, Scores
from pipeline.llm.tune import Run, make_optimizer, set_rate
from pipeline.progress import meter
from pipeline.threads import side_by_side

Job = TypeVar("Job")
Result = TypeVar("Result")
ROWS = 32  # histories decoded at once on a processor; more on an accelerator
ROWS_ON_GPU = 512


class Pupil(NamedTuple):
    """A network, and the type of its products while it learns."""

    network: T5
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        return self.network.tokens.device

    def each(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Results of jobs in their order."""
        return side_by_side(work, jobs, self.device)

    def loss(self, inputs: Tensor, outputs: Tensor, draws: int | None) -> Tensor:
        """Cross-entropy of outputs (b, places) given inputs (b, s), summed; draws: seed of dropout."""
        inputs, outputs = inputs.to(self.device), outputs.to(self.device)
        random = torch.Generator(self.device).manual_seed(draws) if draws is not None else None
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(inputs, outputs, random)
        return cross_entropy(logits.flatten(0, 1).float(), outputs.flatten(), reduction="sum")


@dataclass(frozen=True)
class NextIds:
    """The task that `pipeline.llm.tune` gives to a `Pupil`: samples to learn from, others for the loss, and a
    judge that ranks validation users by what the network writes."""

    train: Samples
    valid: Samples
    tokens: Tokens
    judge: Callable[[], float]
    chooses: str = "ndcg_10"

    def __len__(self) -> int:
        return len(self.train)

    def lengths(self, rows: Sequence[int], step: int, steps: int) -> list[int]:
        return lengths(self.train, self.tokens, np.array(rows)).tolist()

    def units(self, rows: Sequence[int], step: int, steps: int) -> int:
        return len(rows) * self.tokens.items.shape[1]

    def loss(self, pupil: Pupil, rows: Sequence[int], step: int, steps: int, draws: int | None) -> Tensor:
        return pupil.loss(*batch(self.train, self.tokens, np.array(rows)), draws)

    @torch.no_grad()
    def measure(self, pupil: Pupil) -> Mapping[str, float]:
        def summed(rows: np.ndarray) -> float:
            return pupil.loss(*batch(self.valid, self.tokens, rows), None).item()

        many = len(self.valid)
        parts = np.array_split(np.arange(many), -(-many // ROWS))
        total = sum(pupil.each(summed, parts)) if many else math.nan
        return {"loss": total / max(1, self.units(range(many), 0, 0)), "ndcg_10": self.judge()}

    def identity(self) -> Any:
        held = hashlib.sha256(self.train.items.tobytes() + self.tokens.items.tobytes())
        return [held.hexdigest(), len(self)]


class Learning(Protocol):
    """How to learn: settings of `pipeline.llm.settings.Tuning` that are not of low-rank weights."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warm_up(self) -> int: ...
    @property
    def schedule(self) -> Literal["cosine", "linear", "constant", "inverse_root"]: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Any: ...


@dataclass
class Slowing(Run):
    """A run whose rate stands still for the warm-up, then falls with the root of the step: T5's own."""

    def descend(self, rows: Sequence[int]) -> float:
        at = max(self.progress.step + 1, self.settings.warm_up, 1)
        set_rate(self.optimizer, self.settings.learning_rate * math.sqrt(max(self.settings.warm_up, 1) / at))
        return super().descend(rows)


def teach(pupil: Pupil, task: NextIds, settings: Learning, seed: int, checkpoint: Path, label: str) -> Run:
    """Take all steps, from the checkpoint on where there is one; the network is left with its best weights."""
    weights: dict[str, Any] = dict(pupil.network.named_parameters())
    kind: type[Run] = Slowing if settings.schedule == "inverse_root" else Run
    told: Any = settings.model_copy(update={"schedule": "constant"}) if kind is Slowing else settings
    reader, lesson = cast(Any, pupil), cast(Any, task)  # a run asks no more of a reader than `each`
    optimizer = make_optimizer(weights, told)
    run = kind(reader, lesson, told, seed, settings.steps, weights, optimizer, checkpoint)
    run.resume()
    with meter(label, settings.steps) as shown:
        shown.advance(run.progress.step)
        for _ in run.steps():
            shown.advance(1, run.note())
    pupil.network.load_state_dict(run.best)
    return run


# --- scores ------------------------------------------------------------------------------------------------


class Decoding(NamedTuple):
    """How ids are written: by so many beams, or None for exact scores; from the last `history` items."""

    beams: int | None
    history: int


@dataclass
class Tally:
    """Ids written, and how many of them are of items, looked up in the table of ids and not in the trie."""

    known: set[bytes]
    written: int = 0
    valid: int = 0

    def count(self, found: Written) -> None:
        rows = found.codes[found.scores > -torch.inf].to("cpu", torch.int32).numpy()
        self.written += len(rows)
        self.valid += sum(row.tobytes() in self.known for row in rows)


def tally(codes: np.ndarray) -> Tally:
    """A tally against these ids (n, places)."""
    return Tally({row.tobytes() for row in codes.astype(np.int32)})


def written_scores(
    writer: Writer, tokens: Tokens, how: Decoding, *, masked: bool, counting: Tally | None = None
) -> Scores:
    """Scores of all items: the log-probability of an id that is written, -inf of the others.

    masked: no item of the history is written, so that a beam brings as many new ones as it has places.
    """

    def decode(inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Written | None]:
        n_items = len(tokens.items)
        if how.beams is None:
            return exact(writer, inputs, n_items), None
        found = beam(writer, inputs, how.beams, hidden)
        spread = torch.full((len(inputs), n_items), -torch.inf, device=inputs.device)
        return spread.scatter_reduce(1, found.items, found.scores, "amax"), found

    def scores(block: Block) -> Tensor:
        device = writer.network.tokens.device
        users, items, offsets = (part.numpy() for part in block)

        def work(rows: np.ndarray) -> tuple[Tensor, Written | None]:
            begins = offsets[rows[0] : rows[-1] + 2]
            own, begins = items[begins[0] : begins[-1]], begins - begins[0]
            inputs = asked(own, begins, users[rows], tokens, how.history).to(device)
            hidden = None
            if masked and how.beams is not None:
                hidden = torch.zeros(len(rows), len(tokens.items), dtype=torch.bool)
                hidden[np.repeat(np.arange(len(rows)), np.diff(begins)), own] = True
                hidden = hidden.to(device)
            return decode(inputs, hidden)

        size = ROWS if device.type == "cpu" else ROWS_ON_GPU
        parts = np.array_split(np.arange(len(users)), max(1, -(-len(users) // size)))
        found = []
        for part, written in side_by_side(work, parts, device):
            found.append(part.cpu())
            if counting is not None and written is not None:
                counting.count(written)
        return torch.cat(found)

    return scores
