"""Dagster's SQLite event log with connections that stay open while a run is driven.

It opens its database anew for every event, a dozen times per asset, which took longer than writing them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy.engine import Connection, Engine


@contextmanager
def held(on: dg.DagsterInstance) -> Iterator[None]:
    """Keep the event log's connections open in the body; other kinds of storage are left as they are."""
    log = on.event_log_storage
    if not isinstance(log, SqliteEventLogStorage):
        yield
        return
    engines: dict[str, Engine] = {}
    anew = log._connect

    @contextmanager
    def connect(shard: str) -> Iterator[Connection]:
        if shard not in engines:
            with anew(shard):  # makes the tables of a new database
                engines[shard] = open_engine(log, shard)
        with log._db_lock, engines[shard].connect() as connection, connection.begin():
            yield connection

    log._connect = connect
    try:
        yield
    finally:
        del log._connect
        for engine in engines.values():
            engine.dispose()


def open_engine(log: SqliteEventLogStorage, shard: str) -> Engine:
    """An engine on one database of the log, as Dagster makes it but with a pool of connections."""
    address = log.conn_string_for_shard(shard)
    return create_engine(address, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
