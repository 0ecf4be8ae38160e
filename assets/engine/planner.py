"""Plans of studies, made once per process and again when the study's file changes."""

from dataclasses import dataclass, field

from pipeline import study as studies
from pipeline.graph import Graph, Planned
from pipeline.study import Study
from resources.project import Project


@dataclass
class Planner:
    """Study and plan by the study's name."""

    project: Project
    graph: Graph
    known: dict[tuple[str, int], tuple[Study, list[Planned]]] = field(default_factory=dict)

    def plan(self, name: str) -> tuple[Study, list[Planned]]:
        """The study and every artefact it wants. Raises StudyError."""
        file = studies.find(self.project.root, name)
        key = (name, file.stat().st_mtime_ns)
        if key not in self.known:
            study = studies.load(file)
            plan = self.graph.plan(study, self.project.store, self.project.root)
            self.known[key] = study, plan
        return self.known[key]

    def cells(self, name: str, stage: str) -> tuple[Study, list[Planned]]:
        """The study and the artefacts it wants of one stage; none where it does not ask for the stage."""
        study, plan = self.plan(name)
        return study, [planned for planned in plan if planned.stage.name == stage]
