"""What is known of a run before it starts: memory and seconds of each stage that foretells them.

statuses of a plan + store + machine -> one line an asset
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipeline.graph import Planned, Status
from pipeline.machine import Forecast, Machine
from pipeline.stage import Input, Source
from pipeline.store import Artefact, Store


@dataclass(frozen=True)
class Told:
    """One asset that is to run. forecasts: of its cells, those that could be told; refused: why it cannot."""

    asset: str
    cells: int
    forecasts: tuple[Forecast, ...]
    refused: str

    @property
    def memory(self) -> int:
        """Bytes of the cell that takes most."""
        return max((one.memory for one in self.forecasts), default=0)

    @property
    def seconds(self) -> float | None:
        """Of all cells, one after another; None where those of any are unknown."""
        known = [one.seconds for one in self.forecasts if one.seconds is not None]
        return sum(known) if len(known) == self.cells else None

    @property
    def paced_by(self) -> str:
        return next((one.paced_by for one in self.forecasts if one.paced_by), "")


def foretell(statuses: Iterable[Status], store: Store, machine: Machine) -> list[Told]:
    """What every asset takes that foretells it and is not fresh, in the order of the plan; those that have
    nothing to do are left out."""
    behind = [s.planned for s in statuses if s.state != "fresh" and s.planned.stage.settings.foretells]
    found = [told(name, list(cells), store, machine) for name, cells in groupby(behind, lambda p: p.stage.name)]
    return [one for one in found if one.memory or one.refused or len(one.forecasts) < one.cells]


def told(asset: str, cells: Sequence[Planned], store: Store, machine: Machine) -> Told:
    """One asset's cells together. Settings are the same in all of them, so one that is unfit makes all so."""
    settings = cells[0].stage.settings.model_validate(dict(cells[0].spec.settings))
    found = [settings.forecast(known_inputs(one, store), machine, store.root) for one in cells]
    forecasts = tuple(one for one in found if one is not None)
    largest = max(forecasts, key=lambda one: one.memory, default=None)
    why = settings.unfit(machine)
    if not why and largest is not None and cells[0].spec.fit == "refuse":
        why = largest.too_much(machine)
    return Told(asset, len(cells), forecasts, why)


def known_inputs(planned: Planned, store: Store) -> Mapping[str, Input]:
    """The inputs that are there; for one that is to be made anew its predecessor, which is much alike."""
    held: dict[str, Input] = {}
    for name, source in planned.spec.inputs.items():
        if isinstance(source, Source):
            artefact = store.find(source.stage, source.fingerprint)
            found = artefact or next(earlier(source.stage, planned, store), None)
            held |= {name: found} if found else {}
    return held


def earlier(stage: str, planned: Planned, store: Store) -> Iterator[Artefact]:
    """What the study's asset stands for now, of the same seed and variant where it has them."""
    for one in store.head(planned.spec.study, stage) or []:
        cell: Mapping[str, Any] = one["cell"]
        if all(planned.cell.get(axis, value) == value for axis, value in cell.items()):
            artefact = store.find(stage, one["fingerprint"])
            if artefact is not None:
                yield artefact
