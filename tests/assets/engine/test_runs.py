"""Runs driven from the command line: on the persistent instance, as the UI shows them; dead ones buried."""

import os
import subprocess
import sys

import dagster as dg
import psutil
import pytest

from assets.engine import runs
from resources.warehouse import query
from tests.assets.projects import Workshop

DEAD = "{host} {pid} 1"


@pytest.fixture
def dead_owner() -> str:
    """The name of a process of this machine that is no more."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return f"{runs.this_process().split(' ')[0]} {gone.pid} 1"


def test_a_run_stands_on_the_persistent_instance_as_the_ui_needs_it(lasting: Workshop) -> None:
    lasting.run(names=["numbers"])
    with runs.instance(lasting.project) as on:
        [run] = on.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.tags["dagster/partition"] == "toy"
        assert run.tags["dagster/code_location"] == runs.LOCATION
        assert {key.to_user_string() for key in run.asset_selection} == {"numbers"}
        assert run.remote_job_origin.repository_origin.repository_name == runs.REPOSITORY
        assert on.get_materialized_partitions(dg.AssetKey("numbers")) == {"toy"}
    assert query(lasting.project.catalogue, "select count(*) as n from staging.codes")["n"].to_list() == [3]


def test_dagster_writes_into_its_state_folder_only(lasting: Workshop) -> None:
    lasting.run(names=["numbers"])
    found = {path.name for path in lasting.project.root.iterdir()}
    assert found == {"dagster.yaml", "studies", "store", "warehouse", ".dagster"}


def test_the_repository_is_named_as_dagster_names_it(workshop: Workshop) -> None:
    assert workshop.definitions.get_repository_def().name == runs.REPOSITORY


def test_this_process_is_alive_and_a_reused_process_id_is_not(dead_owner: str) -> None:
    host, pid, _ = runs.this_process().split(" ")
    assert int(pid) == os.getpid()
    assert runs.alive(runs.this_process())
    assert not runs.alive(f"{host} {pid} 1")
    assert not runs.alive(dead_owner)


def test_a_start_that_moves_with_the_clock_is_the_same_start() -> None:
    host, pid, started = runs.this_process().split(" ")
    for shift, same in ((-1.0, True), (0.6, True), (-60.0, False), (60.0, False)):
        assert runs.alive(f"{host} {pid} {float(started) + shift:.2f}") == same


def test_a_process_that_ended_and_was_not_fetched_by_its_parent_is_not_alive() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(ended.pid)
    owner = f"{runs.this_process().split(' ')[0]} {ended.pid} {process.create_time():.2f}"
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert process.status() == psutil.STATUS_ZOMBIE
    assert not runs.alive(owner)
    ended.wait()


def test_a_process_of_another_machine_is_taken_for_alive() -> None:
    assert runs.alive("elsewhere 1 1")


def left_behind(on: dg.DagsterInstance, workshop: Workshop, owner: str) -> dg.DagsterRun:
    """A run whose process was killed while it held the only slot of the pool."""
    job = workshop.definitions.resolve_implicit_global_asset_job_def()
    run = on.create_run_for_job(
        job, tags={runs.OWNER_TAG: owner, "dagster/partition": "toy"}, status=dg.DagsterRunStatus.STARTED
    )
    on.event_log_storage.set_concurrency_slots("gpu", 1)
    on.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "heavy")
    return run


def test_a_dead_run_is_marked_failed_and_gives_its_slot_back(workshop: Workshop, dead_owner: str) -> None:
    on = workshop.on
    run = left_behind(on, workshop, dead_owner)
    claim = on.event_log_storage.claim_concurrency_slot("gpu", "another", "heavy")
    assert not claim.is_claimed  # the fault: without a burial this waits for ever
    assert runs.bury(on) == [run.run_id]
    assert on.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert on.event_log_storage.claim_concurrency_slot("gpu", "another", "heavy").is_claimed
    assert runs.bury(on) == []


@pytest.mark.parametrize("owner", [None, "elsewhere 1 1"])
def test_a_run_that_may_be_alive_is_left_alone(workshop: Workshop, owner: str | None) -> None:
    run = left_behind(workshop.on, workshop, owner or runs.this_process())
    assert runs.bury(workshop.on) == []
    assert workshop.on.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED


@pytest.mark.usefixtures("no_warehouse")
def test_an_asset_run_launched_elsewhere_names_its_process_and_buries_the_dead(
    workshop: Workshop, dead_owner: str
) -> None:
    dead = left_behind(workshop.on, workshop, dead_owner)
    job = workshop.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=workshop.on, partition_key="toy", asset_selection=[dg.AssetKey("numbers")]
    )
    assert workshop.on.get_run_by_id(result.run_id).tags[runs.OWNER_TAG] == runs.this_process()
    assert workshop.on.get_run_by_id(dead.run_id).status == dg.DagsterRunStatus.FAILURE
