"""Drive Dagster from this process on the persistent instance, so the UI shows the same runs.

study, assets -> a run of the global asset job -> events as they happen -> one line each
"""

import os
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import dagster as dg
import psutil
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.instance import InstanceRef
from dagster._core.loader import LoadingContext
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from sqlalchemy import event
from sqlalchemy.engine import Engine

from resources.project import Project

LOCATION = "interlingua"  # the code location's name in every workspace of this project
REPOSITORY = "__repository__"  # what Dagster calls the unnamed repository of a code location
OWNER_TAG = ".dagster/interlingua"  # a prefix that the UI hides
SAME_START = 5.0  # seconds: a start time moves a little with the clock; a process id comes round later
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}


@dataclass(frozen=True)
class Happening:
    """One thing that happened in a run, for a person to read."""

    kind: Literal["started", "made", "failed", "skipped", "check"]
    asset: str
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def instance(project: Project, *, capture: bool = True) -> dg.DagsterInstance:
    """The project's Dagster instance. Without capture, what stages print goes to the terminal, not to a log."""
    os.environ.update(project.variables())  # `dagster.yaml` names its folders by them
    project.state.mkdir(parents=True, exist_ok=True)
    overrides = {} if capture else {"compute_logs": NO_CAPTURE}
    if not event.contains(Engine, "connect", relax):
        event.listen(Engine, "connect", relax)
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(project.home), overrides=overrides))


def relax(connection: object, _: object) -> None:
    """Let Dagster's SQLite commit without waiting for the disk.

    It writes ahead: a killed process loses nothing, a power cut may lose the last events and breaks nothing.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("pragma synchronous = normal")


class Loads(LoadingContext):
    """What Dagster wants to read through, for one question."""

    def __init__(self, on: dg.DagsterInstance) -> None:
        self._instance = on
        self._loaders: dict[type, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[type, Any]:
        return self._loaders


def unsynced(
    definitions: dg.Definitions, on: dg.DagsterInstance, study: str, names: Sequence[str]
) -> list[str]:
    """Those of the named assets that Dagster itself marks as missing or stale for the study."""
    resolver = CachingStaleStatusResolver(on, definitions.resolve_asset_graph(), Loads(on))
    status = {name: resolver.get_status(dg.AssetKey(name.split("/")), study) for name in names}
    return [name for name in names if status[name] != StaleStatus.FRESH]


def drive(
    definitions: dg.Definitions, on: dg.DagsterInstance, study: str, names: Sequence[str]
) -> Iterator[Happening]:
    """Materialise the named assets of one study here and yield what happens.

    Raises KeyboardInterrupt after the run was ended by one.
    """
    job = definitions.resolve_implicit_global_asset_job_def()
    run = on.create_run_for_job(
        job,
        run_config=QUIET,
        tags={"dagster/partition": study, OWNER_TAG: this_process()},
        asset_selection=frozenset(dg.AssetKey(name.split("/")) for name in names),
        remote_job_origin=RemoteJobOrigin(
            RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), REPOSITORY), job.name
        ),
    )
    interrupted = False  # Dagster swallows Ctrl-C and ends the run itself: let it, then go on ending
    for happened in execute_run_iterator(InMemoryJob(job), run, on):
        if happened.is_step_failure and happened.step_failure_data.error_source == ErrorSource.INTERRUPT:
            interrupted = True
            continue
        happening = told(happened)
        if happening is not None:
            yield happening
    if interrupted:
        raise KeyboardInterrupt


def told(happened: dg.DagsterEvent) -> Happening | None:
    """An event in words, or None for what only Dagster needs."""
    name = (happened.step_key or "").replace("__", "/")
    if happened.is_step_start:
        return Happening("started", name)
    if happened.is_step_materialization:
        materialization = happened.step_materialization_data.materialization
        facts = {key: value.value for key, value in materialization.metadata.items()}
        return Happening("made", materialization.asset_key.to_user_string(), facts=facts)
    if happened.is_step_failure:
        return Happening("failed", name, why(happened))
    if happened.is_step_skipped:
        return Happening("skipped", name)
    if happened.event_type_value == "ASSET_CHECK_EVALUATION":
        check = happened.asset_check_evaluation_data
        if not check.passed:
            return Happening(
                "check",
                check.asset_key.to_user_string(),
                f"{check.check_name}: {check.description}",
                {"blocking": check.severity == dg.AssetCheckSeverity.ERROR},
            )
    return None


def why(happened: dg.DagsterEvent) -> str:
    """The reason of a failed step: the message of the Failure raised, or the first cause."""
    data = happened.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else "failed"


def this_process() -> str:
    """Host, process id and start: names one process for ever."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"


def alive(owner: str) -> bool:
    """Whether the process so named still runs; yes where it is another machine's."""
    host, pid, started = owner.split(" ")
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < SAME_START
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def own(context: dg.AssetExecutionContext) -> None:
    """Write on the run whose process it is, wherever it was launched from, and mend the dead ones."""
    if OWNER_TAG not in context.run.tags:
        context.instance.add_run_tags(context.run.run_id, {OWNER_TAG: this_process()})
        bury(context.instance)


def bury(on: dg.DagsterInstance) -> list[str]:
    """End the runs whose process died without a word, and free the pool slots they held for ever.

    Dagster's own monitoring does not ask whether a local process is still there. Returns their ids.
    """
    dead = [
        run
        for run in on.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
        if OWNER_TAG in run.tags and not alive(run.tags[OWNER_TAG])
    ]
    for run in dead:
        on.report_run_failed(run, "The process of this run is gone (killed or machine restarted).")
        on.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]
