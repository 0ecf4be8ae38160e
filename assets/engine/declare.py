"""Declarations: a stage and what Dagster shows of it, in one line; found without any list of modules.

    prompts = asset(tallrec.prompts, group="tallrec", kinds={"text"})

No Dagster here, so `interlingua status` answers without loading it.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import assets
from pipeline.graph import Graph
from pipeline.stage import Stage

NOT_STAGES = ("assets.engine", "assets.cli", "assets.definitions", "assets.schedules")


@dataclass(frozen=True)
class Asset:
    """A stage as the graph in the UI shows it."""

    stage: Stage
    group: str
    kinds: frozenset[str]
    page: str | None = None

    @property
    def key(self) -> list[str]:
        return self.stage.name.split("/")


def asset(stage: Stage, *, group: str, kinds: Iterable[str], page: str | None = None) -> Asset:
    """Declare a stage as an asset.

    group: the box it stands in; kinds: icons, at most three; page: a file of the artefact that people open,
    copied to the project's `reports/`.
    """
    return Asset(stage, group, frozenset(kinds), page)


def discover() -> list[Asset]:
    """Every declaration in every module of this package."""
    found = {one.stage.name: one for module in modules() for one in declarations(module)}
    return [found[name] for name in sorted(found)]


def modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(assets.__path__, "assets."):
        if not module.name.startswith(NOT_STAGES):
            yield module.name


def declarations(module: str) -> list[Asset]:
    return [one for one in vars(importlib.import_module(module)).values() if isinstance(one, Asset)]


def graph() -> Graph:
    """The graph of all declared stages."""
    return Graph(one.stage for one in discover())
