"""Which assets a run of a study takes: what was asked for, and what that needs and is not up to date.

words -> names ;  names + status -> names with stale parents
"""

from collections.abc import Iterable, Sequence

from pipeline.graph import Graph, Status
from pipeline.store import Store
from pipeline.study import StudyError, nearest


def named(words: Iterable[str], graph: Graph) -> set[str]:
    """Assets behind words: `mf`, `binllm` (all of a method), `binllm/prompts+` (and all that depends on it)."""
    found: set[str] = set()
    for word in words:
        stem = word.removesuffix("+")
        hits = {name for name in graph.stages if name == stem or name.startswith(f"{stem}/")}
        if not hits:
            raise StudyError(f"no asset {stem!r}{nearest(stem, graph.stages)}")
        found |= graph.children(hits) if word.endswith("+") else hits
    return found


def needed(asked: set[str], graph: Graph, statuses: Sequence[Status]) -> list[str]:
    """The asked assets and those above them that are not fresh, parents first."""
    behind = {status.planned.stage.name for status in statuses if status.state != "fresh"}
    taken = set(asked)
    above = set(asked)
    for stage in reversed(graph.order):
        if stage.name in above:
            above |= set(graph.parents(stage))
            if stage.name in behind:
                taken.add(stage.name)
    return [stage.name for stage in graph.order if stage.name in taken]


def due(statuses: Iterable[Status], store: Store) -> set[str]:
    """Assets that have to run: not fresh, or with a failed check that has to be told again."""
    return {s.planned.stage.name for s in statuses if s.state != "fresh" or failed(s, store)}


def failed(status: Status, store: Store) -> bool:
    artefact = store.find(status.planned.stage.name, status.planned.spec.fingerprint)
    return artefact is not None and not all(v["passed"] for v in artefact.manifest["checks"].values())


def choose(words: Sequence[str], graph: Graph, statuses: Sequence[Status]) -> list[str]:
    """What a run takes: all assets where nothing is asked for by name."""
    return needed(named(words, graph), graph, statuses) if words else [stage.name for stage in graph.order]
