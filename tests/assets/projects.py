"""A project of the toy graph in a temporary folder, as the tests of `assets/` run it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import yaml

from assets.definitions import define
from assets.engine import runs
from assets.engine.declare import Asset, asset
from pipeline.stage import Stage
from resources.project import Project
from tests import toy

SOURCE_TREE = Path(__file__).resolve().parents[2]


def declared(stages: Sequence[Stage] = toy.STAGES) -> list[Asset]:
    return [asset(stage, group="toy", kinds={"python"}) for stage in stages]


@dataclass
class Workshop:
    """A project, its definitions as they are read anew from disk, and its Dagster instance."""

    project: Project
    declared: list[Asset]
    on: dg.DagsterInstance | None = None  # in memory, for tests that do not look at the persistent one

    @classmethod
    def at(
        cls, root: Path, stages: Sequence[Stage] = toy.STAGES, on: dg.DagsterInstance | None = None
    ) -> "Workshop":
        shutil.copy(SOURCE_TREE / "dagster.yaml", root)
        made = cls(Project.here({"INTERLINGUA_ROOT": str(root)}), declared(stages), on)
        made.write("toy")
        return made

    def write(self, study: str, **sections) -> None:
        """Write a study file; the method is switched on unless told otherwise."""
        file = self.project.root / "studies" / f"{study}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump({"title": study.title(), "methods": {"guess": {}}, **sections}))

    @property
    def definitions(self) -> dg.Definitions:
        return define(self.project, self.declared)

    def run(self, study: str = "toy", names: Sequence[str] = ()) -> list[runs.Happening]:
        """Materialise assets, all of them unless named."""
        chosen = list(names) or [one.stage.name for one in self.declared]
        if self.on:
            return list(runs.drive(self.definitions, self.on, study, chosen))
        with runs.instance(self.project, capture=False) as on:
            return list(runs.drive(self.definitions, on, study, chosen))

    def computed(self, study: str = "toy", names: Sequence[str] = ()) -> list[str]:
        """Assets of which something was computed in a run that has to go well."""
        happenings = self.run(study, names)
        assert [h.text for h in happenings if h.kind == "failed"] == [], happenings
        return [h.asset for h in happenings if h.kind == "made" and h.facts["computed"]]
