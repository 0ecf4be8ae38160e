"""A project in a temporary folder whose data stages tests run for real."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline import stage, study
from pipeline.data.candidates import candidates
from pipeline.data.dataset import dataset
from pipeline.data.next_item import next_split
from pipeline.data.sources import source
from pipeline.data.splits import split
from pipeline.graph import Graph
from pipeline.stage import Spec
from pipeline.store import Artefact, Store

STAGES = {one.name: one for one in (source, dataset, split, next_split, candidates)}


@dataclass
class Project:
    """Files and one study; `make` runs its data stages up to the named one."""

    root: Path
    made: dict[str, Artefact] = field(default_factory=dict)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def plan(self, until: str = "ctr/split", **data: Any) -> list[Spec]:
        file = self.write(
            "studies/my-study.yaml",
            yaml.safe_dump({"title": "My study", "tracks": ["ctr", "next_item", "rerank"], "data": data}),
        )
        whole, names = Graph(STAGES.values()), {until}
        for one in reversed(whole.order):
            names |= set(whole.parents(one)) if one.name in names else set()
        graph = Graph([one for one in whole.order if one.name in names])
        planned = graph.plan(study.load(file), Store(self.root / "store"), self.root)
        return [one.spec for one in planned]

    def make(self, until: str = "ctr/split", **data: Any) -> Artefact:
        for spec in self.plan(until, **data):
            self.made[spec.stage], _ = stage.run(spec)
        return self.made[until]
