"""The quickstart study's artefacts up to the prompts, for benchmarks that want its real texts and model."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from assets.engine.declare import graph
from pipeline import study
from pipeline.stage import Artefact, run
from pipeline.store import Store

ROOT = Path(__file__).parents[1]


def make(store: Path, *wanted: str, **changes: Any) -> dict[str, Artefact]:
    """Run the quickstart up to the named stages (variant `titles`), or find them made: stage -> artefact.

    changes: settings of TALLRec's prompts that are not the quickstart's.
    """
    stages = graph()
    needed = set(wanted)
    for stage in reversed(stages.order):
        if stage.name in needed:
            needed |= set(stages.parents(stage))
    asked = study.load(study.find(ROOT, "quickstart"))
    tallrec = {**(asked.methods["tallrec"] or {}), "variants": ["titles"]}
    tallrec["prompts"] = {**tallrec["prompts"], **changes}
    asked = asked.model_copy(update={"methods": {"tallrec": tallrec}})
    plan = stages.plan(asked, Store(store), ROOT)
    return {planned.stage.name: run(planned.spec)[0] for planned in plan if planned.stage.name in needed}


@dataclass
class Contest:
    """Ways of doing one thing, timed in turn so that all meet the same machine.

    The least of several times counts: what a neighbour on the machine takes is not the way's. `ratios` are of
    the rounds, each way against the first in the same round.
    """

    ways: dict[str, Callable[[], Any]]
    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            for name, way in self.ways.items():
                wall, cpu = time.perf_counter(), time.process_time()
                self.results[name] = way()
                self.keep(name, time.perf_counter() - wall, time.process_time() - cpu)

    def keep(self, name: str, wall: float, cpu: float) -> None:
        self.wall[name] = min(wall, self.wall.get(name, wall))
        self.cpu[name] = min(cpu, self.cpu.get(name, cpu))
        self.rounds.setdefault(name, []).append(wall)

    def ratios(self, name: str) -> tuple[float, float, float]:
        """How often as fast as the first way, in one round: least, median, most."""
        first = self.rounds[next(iter(self.ways))]
        found = sorted(one / other for one, other in zip(first, self.rounds[name], strict=True))
        return found[0], median(found), found[-1]
