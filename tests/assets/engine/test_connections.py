"""Connections held open: fewer of them, the same events, nothing left open or changed afterwards."""

import sqlite3

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from sqlalchemy import event
from sqlalchemy.engine import Engine

from assets.engine import runs
from assets.engine.connections import held
from tests.assets.projects import Workshop

pytestmark = pytest.mark.usefixtures("no_warehouse")


@pytest.fixture
def opened():
    """Connections to SQLite that were opened."""
    found: list[sqlite3.Connection] = []

    def note(connection, _) -> None:
        found.append(connection)

    event.listen(Engine, "connect", note)
    yield found
    event.remove(Engine, "connect", note)


def events(workshop: Workshop, on: dg.DagsterInstance) -> list[str]:
    list(runs.drive(workshop.definitions, on, "toy", ["numbers", "doubled"]))
    [run, *_] = on.get_runs(limit=1)
    told = [entry.dagster_event for entry in on.all_logs(run.run_id)]
    return sorted(one.event_type_value for one in told if one)


def test_a_run_opens_few_connections_and_writes_the_same_events(lasting: Workshop, opened: list) -> None:
    with runs.instance(lasting.project, capture=False) as on:
        plain = events(lasting, on)
        many = len(opened)
        with held(on):
            assert events(lasting, on) == plain
        few = len(opened) - many
        assert few < many / 2  # what is left belongs to the storage of runs
        assert "_connect" not in vars(on.event_log_storage)
        assert on.get_materialized_partitions(dg.AssetKey("doubled")) == {"toy"}
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("select 1")


def test_another_process_reads_and_writes_meanwhile(lasting: Workshop) -> None:
    with runs.instance(lasting.project, capture=False) as on, held(on):
        first = events(lasting, on)
        with runs.instance(lasting.project, capture=False) as other:
            assert len(events(lasting, other)) == len(first)
            assert len(other.get_runs()) == 2
        assert len(events(lasting, on)) == len(first)
        assert len(on.get_runs()) == 3


def test_other_storages_are_left_alone(memory: dg.DagsterInstance) -> None:
    log = memory.event_log_storage
    assert not isinstance(log, SqliteEventLogStorage)
    with held(memory):
        assert "_connect" not in vars(log)
