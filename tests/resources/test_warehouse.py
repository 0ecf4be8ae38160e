"""The catalogue is built from the heads, swapped in one move, and read by anybody while that happens."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest

from pipeline.schema import Codes, Pairs
from pipeline.stage import Settings, stage
from pipeline.store import Store
from resources import warehouse
from resources.warehouse import identifier, in_order, literal_path, publish, query, quoted, read_view, values
from tests.toy import STAGES, study
from tests.warehouse.synthetic import materialise

ROOT = Path(__file__).resolve().parents[2]


class Words(Settings):
    """No settings."""


@stage("remarks", settings=Words, section="data", version=1, tables={"remarks": Codes})
def remarks(settings: Words, out) -> None:
    """Write a table that the pipeline's schema does not declare."""
    out.table(
        "remarks", pl.DataFrame({"entity": "user", "id": [7], "bits": "1", "dotted": "1", "trained": True})
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Store:
    """A toy study in a folder with a name that SQL and globs stumble over."""
    made = Store(tmp_path_factory.mktemp("toy") / "it's [a] *store?* a=1")
    materialise(made, study(seeds=(1, 2)), STAGES)
    return made


@pytest.fixture(scope="module")
def steady(toy, tmp_path_factory) -> Path:
    """The toy's catalogue, for tests that only read."""
    return publish(toy.root, tmp_path_factory.mktemp("steady") / "interlingua.duckdb")


@pytest.fixture
def store(toy, tmp_path) -> Store:
    """The toy's store, to change."""
    shutil.copytree(toy.root, tmp_path / toy.root.name)
    return Store(tmp_path / toy.root.name)


@pytest.fixture
def catalogue(store, tmp_path) -> Path:
    return publish(store.root, tmp_path / "interlingua.duckdb")


def test_table_is_read_over_all_artefacts_that_heads_name(steady):
    pairs = query(steady, "select seed, row, score, study, stage from raw.pairs order by seed, row")
    assert pairs.rows() == [
        (1, 0, 16.0, "toy", "guess/scores"),
        (1, 1, 16.5, "toy", "guess/scores"),
        (2, 0, 32.0, "toy", "guess/scores"),
        (2, 1, 32.5, "toy", "guess/scores"),
    ]


def test_cell_comes_from_the_manifest_where_the_table_has_none(steady, toy):
    codes = query(steady, "select distinct study, stage, variant, seed, fingerprint from raw.codes")
    assert codes.rows() == [("toy", "numbers", "default", 0, toy.heads()["toy"]["numbers"][0].fingerprint)]


def test_own_columns_of_a_table_win_over_the_cell(steady):
    assert query(steady, "select distinct variant from raw.pairs").item() == "plain"


def test_columns_have_their_declared_types(steady):
    found = query(steady, "select * from raw.pairs")
    declared = Pairs.create_empty().schema
    assert {column: found.schema[column] for column in declared} == dict(declared)


def test_superseded_artefact_leaves_the_view(catalogue, store):
    materialise(store, study(seeds=(1,), data={"numbers": {"count": 5}}), STAGES)
    publish(store.root, catalogue)
    assert query(catalogue, "select count(*) from raw.codes").item() == 5
    assert query(catalogue, "select distinct seed from raw.pairs").to_series().to_list() == [1]


def test_artefact_shared_by_two_studies_stands_in_both(catalogue, store):
    materialise(store, study(name="twin", seeds=(1,)), STAGES)
    publish(store.root, catalogue)
    rows = query(catalogue, "select study, count(*) as n from raw.codes group by all order by study")
    assert rows.rows() == [("toy", 3), ("twin", 3)]


def test_table_that_the_schema_does_not_declare_is_published_too(catalogue, store):
    materialise(store, study(seeds=(1,), methods={}), (remarks,))
    publish(store.root, catalogue)
    assert query(catalogue, "select study, stage, seed, id from raw.remarks").rows() == [
        ("toy", "remarks", 0, 7)
    ]


def test_column_that_an_older_artefact_lacks_is_null(catalogue, store):
    for artefact in store.heads()["toy"]["guess/scores"][:1]:
        file = artefact.file("pairs.parquet")
        pl.read_parquet(file, glob=False).drop("probability").write_parquet(file)
        rewrite(artefact, lambda m: m["tables"]["pairs"]["columns"].remove("probability"))
    publish(store.root, catalogue)
    found = query(catalogue, "select * from staging.pairs")
    assert found.height == 4
    assert found.schema["probability"] == pl.Float64


def rewrite(artefact, change) -> None:
    """Change a manifest, and let it agree with the files as they are now."""
    import json

    manifest = json.loads(artefact.file("manifest.json").read_text())
    change(manifest)
    for name, facts in manifest["files"].items():
        facts["bytes"] = artefact.file(name).stat().st_size
    artefact.file("manifest.json").write_text(json.dumps(manifest))


def test_manifests_become_rows(steady):
    artefact = query(steady, "from raw.artefacts where stage = 'numbers'").row(0, named=True)
    assert (artefact["study"], artefact["section"], artefact["version"], artefact["rows"]) == (
        "toy",
        "data",
        1,
        3,
    )
    assert artefact["seconds"] >= 0
    assert artefact["peak_memory_mb"] > 0
    assert artefact["device"] == "cpu"
    assert abs(artefact["created"].timestamp() - time.time()) < 86_400 * 2
    assert (
        query(steady, "select settings ->> 'count' from staging.artefacts where stage = 'numbers'").item()
        == "3"
    )


def test_metrics_are_numbers_and_texts(steady):
    found = query(steady, "select kind, metric, value, text from raw.metrics where stage = 'numbers'")
    rows = {row[1]: row for row in found.rows()}
    assert rows["count"] == ("metric", "count", 3.0, None)
    assert rows["device"] == ("measured", "device", None, "cpu")


def test_checks_and_lineage_become_rows(steady):
    checks = query(steady, "select name, passed, blocking, description from raw.checks")
    assert checks.rows() == [("some_rows", True, True, "3 rows")]
    parents = query(steady, "select distinct stage, parent_stage from raw.lineage order by all")
    assert parents.rows() == [("board", "guess/scores"), ("doubled", "numbers"), ("guess/scores", "doubled")]


def test_columns_are_explained(steady):
    sql = """select description from raw.columns where "table" = 'pairs' and "column" = 'probability'"""
    assert query(steady, sql).item() == "P(label = 1), null where a method gives only an order"


def test_catalogue_holds_views_only(steady):
    assert query(steady, "select count(*) from duckdb_tables()").item() == 0
    assert query(steady, "select count(*) from duckdb_views() where not internal").item() > 40


def test_published_figures_are_read_from_their_file(tmp_path, monkeypatch):
    file = tmp_path / "published.csv"
    file.write_text("method,variant,data,track,split,metric,value,source\nmf,default,d,ctr,test,auc,0.5,A\n")
    monkeypatch.setattr(warehouse, "PUBLISHED", file)
    catalogue = publish(tmp_path / "store", tmp_path / "c.duckdb")
    assert query(catalogue, "select method, value, note from staging.published").rows() == [("mf", 0.5, None)]


def test_published_file_may_be_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(warehouse, "PUBLISHED", tmp_path / "absent.csv")
    catalogue = publish(tmp_path / "store", tmp_path / "c.duckdb")
    assert query(catalogue, "from staging.published").height == 0


def test_reader_cannot_write(steady):
    with pytest.raises(duckdb.InvalidInputException, match="read-only"):
        query(steady, "create table mine as select 1")


def test_publishing_twice_gives_the_same_views(catalogue, store):
    sql = "select schema_name, view_name, sql from duckdb_views() where not internal order by all"
    before = query(catalogue, sql)
    publish(store.root, catalogue)
    assert query(catalogue, sql).equals(before)


def test_nothing_is_left_beside_the_catalogue(catalogue):
    assert sorted(file.name for file in catalogue.parent.glob("*.duckdb*")) == [
        catalogue.name,
        f"{catalogue.name}.lock",
    ]


def test_open_reader_keeps_its_catalogue_through_a_swap(catalogue, store):
    with duckdb.connect(str(catalogue), read_only=True) as reader:
        publish(store.root, catalogue)
        assert reader.sql("select count(*) from raw.pairs").pl().item() == 4


READER = """
import sys, pathlib
sys.path.insert(0, sys.argv[3])
from resources.warehouse import query
catalogue, stop = sys.argv[1], pathlib.Path(sys.argv[2])
done = 0
print("ready", flush=True)
while not stop.exists():
    assert query(catalogue, "select count(*) from raw.pairs").item() == 4
    assert query(catalogue, "from leaderboard").height == 0
    done += 1
print(done, flush=True)
"""


def reader(catalogue: Path, stop: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(READER), str(catalogue), str(stop), str(ROOT)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_readers_never_fail_while_the_catalogue_is_swapped(catalogue, store, tmp_path):
    stop = tmp_path / "stop"
    readers = [reader(catalogue, stop) for _ in range(2)]
    try:
        assert [one.stdout.readline() for one in readers if one.stdout] == ["ready\n", "ready\n"]
        for _ in range(6):
            publish(store.root, catalogue)
    finally:
        stop.touch()
        ended = [one.communicate(timeout=60) for one in readers]
    assert [one.returncode for one in readers] == [0, 0], ended
    assert all(int(out) > 0 for out, _ in ended)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from resources import warehouse
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
warehouse.publish(sys.argv[1], sys.argv[2])
"""


def test_killed_publisher_leaves_the_old_catalogue(catalogue, store):
    materialise(store, study(seeds=(1,)), STAGES)
    command = [sys.executable, "-c", KILLED, str(store.root), str(catalogue), str(ROOT)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert list(catalogue.parent.glob("*.building-*"))
    assert query(catalogue, "select count(*) from raw.pairs").item() == 4
    publish(store.root, catalogue)
    assert query(catalogue, "select count(*) from raw.pairs").item() == 2
    assert not list(catalogue.parent.glob("*.building-*"))


def test_publisher_that_fails_leaves_the_old_catalogue(catalogue, store, monkeypatch):
    monkeypatch.setattr(warehouse, "sync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        publish(store.root, catalogue)
    assert query(catalogue, "select count(*) from raw.pairs").item() == 4
    assert not list(catalogue.parent.glob("*.building-*"))


def test_late_publisher_does_not_bring_old_heads_back(catalogue, store, monkeypatch):
    """The heads are read under the lock, so whoever swaps last has seen the newest."""
    build, entered, go_on = warehouse.build, threading.Event(), threading.Event()

    def slow(file, of):
        build(file, of)
        entered.set()
        go_on.wait(10)

    monkeypatch.setattr(warehouse, "build", slow)
    early = threading.Thread(target=publish, args=(store.root, catalogue))
    early.start()
    entered.wait(10)
    monkeypatch.setattr(warehouse, "build", build)
    materialise(store, study(seeds=(1,)), STAGES)
    late = threading.Thread(target=publish, args=(store.root, catalogue))
    late.start()
    late.join(1)
    assert late.is_alive()  # it waits for the lock
    go_on.set()
    early.join()
    late.join()
    assert query(catalogue, "select count(*) from raw.pairs").item() == 2


# ---- SQL text


def test_quotes_are_doubled():
    assert quoted("it's") == "'it''s'"
    assert identifier('a"b') == '"a""b"'


@pytest.mark.parametrize("name", ["plain", "a*b", "a?b", "a[b]c", "a{b}c"])
def test_path_with_pattern_characters_means_itself(tmp_path, name):
    file = tmp_path / f"{name}.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(file)
    (tmp_path / "aXb.parquet").write_bytes(file.read_bytes())
    with duckdb.connect() as con:
        found = con.sql(
            f"select filename from read_parquet({quoted(literal_path(str(file)))}, filename = true)"
        )
        assert found.pl().to_series().to_list() == [str(file)]


def test_values_keep_types_nulls_and_text():
    columns = {"name": "VARCHAR", "n": "BIGINT", "x": "DOUBLE", "yes": "BOOLEAN"}
    with duckdb.connect() as con:
        found = con.sql(values(columns, [("it's\n\"", 2**40, None, True), (None, None, 0.1, False)])).pl()
        none = con.sql(values(columns, [])).pl()
    assert found.rows() == [("it's\n\"", 2**40, None, True), (None, None, 0.1, False)]
    assert none.schema == found.schema
    assert none.height == 0


def test_view_file_must_say_its_grain(tmp_path):
    file = tmp_path / "view.sql"
    file.write_text("select 1 as x\n")
    with pytest.raises(warehouse.ViewError, match=r"view\.sql: the first line"):
        read_view(file)


def test_view_is_made_after_the_views_it_reads(tmp_path):
    (tmp_path / "a.sql").write_text("-- one\nselect * from b")
    (tmp_path / "b.sql").write_text("-- one\nselect * from raw.a inner join c using (x)")
    (tmp_path / "c.sql").write_text("-- one\nselect * from staging.b")
    assert [file.stem for file in in_order(tmp_path)] == ["c", "b", "a"]


def test_every_declared_table_is_published(steady):
    found = set(query(steady, "select view_name from duckdb_views() where schema_name = 'raw'").to_series())
    assert {"interactions", "user_vectors", "pairs", "user_metrics"} <= set(warehouse.declared()) <= found


def test_old_client_can_read_the_file(catalogue):
    with duckdb.connect(str(catalogue), read_only=True) as con:
        tags = con.sql("select tags from duckdb_databases() where not internal").pl().item()
    assert "v1.2.0" in str(tags)
    assert os.path.getsize(catalogue) < 2**20
