"""More toy stages: one with a check that can fail, one with a bug, one heavy, one that kills its process."""

import os
import signal
from typing import ClassVar

from pydantic import Field

from pipeline.machine import GIB, Forecast
from pipeline.stage import Check, Settings, Verdict, stage
from tests import toy


def too_many(draft, inputs, settings) -> Verdict:
    """Never more than five."""
    return Verdict(settings.count <= 5, f"{settings.count} of 5", {"count": settings.count})


@stage("numbers", settings=toy.Numbers, section="data", version=1, checks=(Check(too_many),))
def guarded(settings: toy.Numbers, out) -> None:
    """Write some numbers, not too many."""
    out.metric(count=settings.count)


@stage("numbers", settings=toy.Numbers, section="data", version=2, checks=(Check(too_many, blocking=False),))
def advised(settings: toy.Numbers, out) -> None:
    """Write some numbers, better not too many."""
    out.metric(count=settings.count)


class Greedy(Settings):
    foretells: ClassVar[bool] = True

    gib: int = Field(4096, description="memory that it takes")

    def forecast(self, inputs, machine, store) -> Forecast:
        return Forecast(self.gib * GIB, {"all of it": self.gib * GIB}, 200.0, "a guess", {"gib: 1": GIB})


@stage("greedy", settings=Greedy, section="evaluate", version=1, inputs={"numbers": "numbers"}, needs="gpu")
def greedy(numbers, settings, out) -> None:
    """A stage that takes more memory than there is."""
    out.metric(read=numbers.metrics["count"])


@stage("reader", settings=toy.Board, section="evaluate", version=1, inputs={"numbers": "numbers"})
def reader(numbers, settings, out) -> None:
    """Read what the numbers are."""
    out.metric(read=numbers.metrics["count"])


@stage("raises", settings=toy.Board, section="evaluate", version=1, inputs={"numbers": "numbers"})
def raises(numbers, settings, out) -> None:
    """A stage with a bug."""
    raise ValueError("the bug")


class Heavy(Settings):
    size: int = Field(64, description="numbers drawn")
    end: str = Field("well", description="how its process ends: well, raise, segfault, kill, exit")


@stage("heavy", settings=Heavy, section="models", version=1, needs="gpu", seeded=True, predicts="pairs")
def heavy(settings: Heavy, out) -> None:
    """Draw numbers with torch, and end as told."""
    if settings.end == "raise":
        raise ValueError("told to raise")
    if settings.end in ENDS:
        ENDS[settings.end]()
    import torch

    drawn = torch.randn(settings.size, generator=torch.Generator().manual_seed(out.seed))
    out.tensors("drawn", {"drawn": drawn})
    out.measure(process=os.getpid())


ENDS = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
}
