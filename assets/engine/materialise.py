"""What happens when an asset is materialised: its cells are found or made, the head is set, readers are told.

study -> planned cells -> artefacts -> head -> warehouse -> MaterializeResult
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from assets.engine.declare import Asset
from assets.engine.planner import Planner
from assets.engine.shown import check_results, describe
from pipeline.graph import Planned, identity
from pipeline.stage import StageFailed, flat, run
from pipeline.store import Artefact, Store
from pipeline.study import Study, StudyError
from resources.child import run_in_child
from resources.project import Project
from resources.warehouse import publish


@dataclass(frozen=True)
class Made:
    """One cell of this materialisation."""

    planned: Planned
    artefact: Artefact
    hit: bool


def materialise(context: dg.AssetExecutionContext, one: Asset, planner: Planner) -> dg.MaterializeResult:
    """Bring one asset of one study up to date. Raises dg.Failure with a message a person can act on."""
    started = time.perf_counter()
    try:
        study, cells = planner.cells(context.partition_key, one.stage.name)
        refuse(cells, planner.project.store)
        made = [make(planned, study, context) for planned in cells]
    except (StudyError, RuntimeError, OSError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    record(one, study, made, planner.project)
    seconds = time.perf_counter() - started
    return dg.MaterializeResult(
        data_version=dg.DataVersion(identity(cells)),
        metadata=describe([m.artefact for m in made], [m.hit for m in made], seconds, one.stage),
        check_results=check_results(one.stage, [m.artefact for m in made]),
    )


def refuse(cells: Sequence[Planned], store: Store) -> None:
    """Raise StageFailed where an input is missing or failed a blocking check."""
    for planned in cells:
        for source in flat(planned.spec.inputs):
            artefact = store.find(source.stage, source.fingerprint)
            who = f"{planned.stage.name} of study {planned.spec.study}"
            if artefact is None:
                raise StageFailed(
                    f"{who} reads {source.stage}, which is not up to date: materialise {source.stage} first, "
                    f"or run `interlingua run {planned.spec.study} --select {planned.stage.name}`"
                )
            failed = [
                name for name, c in artefact.manifest["checks"].items() if c["blocking"] and not c["passed"]
            ]
            if failed:
                raise StageFailed(f"{who} reads {source.stage}, which failed its check {', '.join(failed)}")


def make(planned: Planned, study: Study, context: dg.AssetExecutionContext) -> Made:
    away = study.budget.place == "process" and planned.stage.needs == "gpu"
    artefact, hit = run_in_child(planned.spec, context) if away else run(planned.spec)
    return Made(planned, artefact, hit)


def record(one: Asset, study: Study, made: Sequence[Made], project: Project) -> None:
    """Set the study's head, and republish what people read where something is new."""
    store, name = project.store, one.stage.name
    head = [{"cell": dict(m.planned.cell), "fingerprint": m.artefact.fingerprint} for m in made]
    new = (store.head(study.name, name) or []) != head
    if new:
        store.set_head(study.name, name, head)
    if new or not project.catalogue.exists():
        publish(project.store_root, project.catalogue)
    if one.page and made:
        show_page(made[0].artefact, one.page, study.name, project, new)


def show_page(artefact: Artefact, page: str, study: str, project: Project, new: bool) -> None:
    """Copy a page that people open to where they look for it, in one step."""
    target = project.page(study, page)
    if new or not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.new")
        shutil.copyfile(artefact.file(page), beside)
        beside.replace(target)
