"""Declarations -> Dagster assets, one per stage, partitioned by study."""

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence

import dagster as dg

from assets.engine.declare import Asset
from assets.engine.materialise import materialise
from assets.engine.planner import Planner
from assets.engine.runs import own
from assets.engine.shown import check_specs, definition
from assets.engine.warehouse import build_warehouse
from pipeline import study as studies
from pipeline.graph import Graph
from pipeline.stage import Stage, decided
from pipeline.study import Study, StudyError
from resources.project import Project

log = logging.getLogger("interlingua")
OWNER = "team:interlingua"


def build(project: Project, declared: Sequence[Asset]) -> list[dg.AssetsDefinition]:
    """All assets of a project. A study that cannot be read fails its own runs, not the rest."""
    planner = Planner(project, Graph(one.stage for one in declared))
    partitions = partitions_of(project)
    versions = code_versions(planner.graph, list(readable_studies(project)))
    stages = [build_one(one, planner, partitions, versions[one.stage.name]) for one in declared]
    return [*stages, build_warehouse(project, partitions, planner.graph.stages)]


def partitions_of(project: Project) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(studies.names(project.root))


def readable_studies(project: Project) -> Iterator[Study]:
    for name in studies.names(project.root):
        try:
            yield studies.load(studies.find(project.root, name))
        except StudyError as error:
            log.warning("study %s is left out of stale marks: %s", name, error)


def code_versions(graph: Graph, known: Sequence[Study]) -> dict[str, str]:
    """Stage -> what makes Dagster mark its asset stale: version, settings, cells, threads, and its parents'.

    Parents count because a fingerprint follows them too: what the store calls stale, Dagster marks at once.
    Dagster holds one code version per asset, so a setting changed in one study marks the asset in the
    others too, until their next run finds everything in the store.
    """
    versions: dict[str, str] = {}
    for stage in graph.order:
        wants = {study.name: wanted(stage, graph, study) for study in known}
        parents = [versions[name] for name in graph.parents(stage)]
        text = json.dumps([stage.version, wants, parents], sort_keys=True, default=str)
        versions[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return versions


def wanted(stage: Stage, graph: Graph, study: Study) -> list[object]:
    try:
        settings = decided(stage, graph.settings(stage, study))
        return [settings, graph.cells(stage, study), graph.threads(stage, study)]
    except StudyError as error:
        return [str(error)]


def describe(stage: Stage) -> str:
    """What the stage does, then the head of its module: idea, paper with its link, choices made."""
    module = sys.modules[stage.function.__module__].__doc__ or ""
    return f"{stage.doc}\n\n{module.strip()}"


def build_one(
    one: Asset, planner: Planner, partitions: dg.StaticPartitionsDefinition, version: str
) -> dg.AssetsDefinition:
    @dg.asset(
        key=one.key,
        deps=[dg.AssetKey(name.split("/")) for name in planner.graph.parents(one.stage)],
        partitions_def=partitions,
        group_name=one.group,
        kinds=set(one.kinds),
        description=describe(one.stage),
        owners=[OWNER],
        tags={"needs": one.stage.needs, "section": one.stage.section},
        metadata=definition(one.stage),
        code_version=version,
        check_specs=check_specs(one.stage, one.key),
        pool=None if one.stage.needs == "light" else one.stage.needs,
    )
    def stage_asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        own(context)
        return materialise(context, one, planner)

    return stage_asset
