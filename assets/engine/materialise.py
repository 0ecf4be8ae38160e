"""What happens when an asset is materialised: its cells are found or made, the head is set, readers are told.

study -> planned cells -> artefacts -> head -> warehouse -> MaterializeResult
"""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.engine.declare import Asset
from assets.engine.planner import Planner
from assets.engine.shown import check_results, describe
from assets.engine.warehouse import KEY
from pipeline.graph import Planned, identity
from pipeline.stage import StageFailed, flat, hash_file, run
from pipeline.store import Artefact, Store
from pipeline.study import Study, StudyError
from resources.chat import reach
from resources.child import run_in_child
from resources.project import Project
from resources.warehouse import publish

MOMENT = 2.0  # seconds that readers of the catalogue may be behind a run


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
        catch_up(planner.project)
        raise dg.Failure(str(error), allow_retries=False) from error
    record(one, study, made, planner.project, will_publish(context) and not blocks(made))
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
    away = study.budget.place == "process" and planned.stage.heavy
    artefact, hit = (
        run_in_child(planned.spec, context) if away else run(planned.spec, reach(Path(planned.spec.root)))
    )
    return Made(planned, artefact, hit)


def will_publish(context: dg.AssetExecutionContext) -> bool:
    """Whether the warehouse's own asset is in this run, which ends it."""
    chosen = context.run.asset_selection
    return chosen is None or dg.AssetKey(KEY) in chosen


def blocks(made: Sequence[Made]) -> bool:
    """Whether a blocking check failed, so that nothing downstream runs."""
    verdicts = [verdict for m in made for verdict in m.artefact.manifest["checks"].values()]
    return any(v["blocking"] and not v["passed"] for v in verdicts)


def record(one: Asset, study: Study, made: Sequence[Made], project: Project, soon_again: bool) -> None:
    """Set the study's head, and republish what people read where something is new.

    soon_again: the catalogue is published at the end of the run in any case, so one a moment old will do.
    """
    store, name = project.store, one.stage.name
    head = [{"cell": dict(m.planned.cell), "fingerprint": m.artefact.fingerprint} for m in made]
    if (store.head(study.name, name) or []) != head:
        store.set_head(study.name, name, head)
    if older(project.catalogue, store.head_file(study.name, name)) and not (
        soon_again and age(project.catalogue) < MOMENT
    ):
        publish(project.store_root, project.catalogue)
    if one.page and made:
        show_page(made[0].artefact, one.page, study.name, project)


def catch_up(project: Project) -> None:
    """Republish where any head is newer than the catalogue: a run may have ended before its last asset."""
    if any(older(project.catalogue, head) for head in (project.store_root / "heads").glob("*/*.json")):
        publish(project.store_root, project.catalogue)


def age(file: Path) -> float:
    """Seconds since the file was written; endless where it is not there."""
    return time.time() - file.stat().st_mtime if file.exists() else math.inf


def older(file: Path, than: Path) -> bool:
    """True where `file` is not there, or was written before `than`: a kill may have come between the two."""
    if not than.exists():
        return not file.exists()
    return not file.exists() or file.stat().st_mtime_ns < than.stat().st_mtime_ns


def show_page(artefact: Artefact, page: str, study: str, project: Project) -> None:
    """Copy a page that people open to where they look for it, in one step."""
    target = project.page(study, page)
    if not target.exists() or hash_file(target) != hash_file(artefact.file(page)):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.new")
        shutil.copyfile(artefact.file(page), beside)
        beside.replace(target)
