"""The warehouse: one DuckDB file of views over the store's Parquet files, for anybody who reads SQL.

    Store.heads() -> raw.* ; warehouse/staging/*.sql -> staging.* ; warehouse/marts/*.sql -> main

Parquet is the truth and the catalogue holds no data, so it can be built anew in milliseconds after every stage.
It is built beside and moved into place by one rename: a reader keeps the file it opened, the next reader
gets the new one, and nobody ever waits for a lock or sees a half.
"""

import json
import os
import re
import secrets
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from filelock import FileLock

from pipeline import schema
from pipeline.knowledge.answers import COLUMNS
from pipeline.store import Artefact, Store, sync, sync_folder

SQL = Path(__file__).resolve().parents[1] / "warehouse"
PUBLISHED = SQL / "published.csv"
STORAGE = "v1.2.0"  # so that DuckDB clients older than ours read the file too
SCHEMAS = {"staging": "staging", "marts": "main"}  # folder of SQL files -> schema of their views
SHOWN = 1000  # rows that an assertion reports at most
Head = tuple[str, Artefact]  # a study and an artefact that it stands for now

CELL = {
    "study": "VARCHAR",
    "stage": "VARCHAR",
    "variant": "VARCHAR",
    "seed": "UINTEGER",
    "fingerprint": "VARCHAR",
}
FACTS: dict[str, tuple[str, dict[str, str]]] = {
    "heads": ("one artefact that a study stands for now", {**CELL, "path": "VARCHAR"}),
    "artefacts": (
        "one artefact that a study stands for now, with what it took to make it",
        {
            **CELL,
            "section": "VARCHAR",
            "is_control": "BOOLEAN",
            "version": "INTEGER",
            "seconds": "DOUBLE",
            "cpu_seconds": "DOUBLE",
            "peak_memory_mb": "DOUBLE",
            "peak_gpu_memory_mb": "DOUBLE",
            "device": "VARCHAR",
            "rows": "BIGINT",
            "bytes": "BIGINT",
            "created": "TIMESTAMP",
            "cell": "VARCHAR",
            "settings": "VARCHAR",
            "path": "VARCHAR",
        },
    ),
    "metrics": (
        "one number of an artefact; kind: metric (the same for the same inputs) or measured (of one run)",
        {**CELL, "kind": "VARCHAR", "metric": "VARCHAR", "value": "DOUBLE", "text": "VARCHAR"},
    ),
    "checks": (
        "one check of an artefact",
        {
            **CELL,
            "name": "VARCHAR",
            "passed": "BOOLEAN",
            "blocking": "BOOLEAN",
            "description": "VARCHAR",
            "facts": "VARCHAR",
        },
    ),
    "columns": (
        "one column of a table that the pipeline declares",
        {"table": "VARCHAR", "column": "VARCHAR", "description": "VARCHAR"},
    ),
    "lineage": (
        "one artefact and one artefact that it was made from",
        {**CELL, "parent_stage": "VARCHAR", "parent_fingerprint": "VARCHAR"},
    ),
}
DUCK: dict[Any, str] = {pl.String: "VARCHAR", pl.Int64: "BIGINT", pl.Float64: "DOUBLE"}
PUBLISHED_COLUMNS: dict[str, str] = dict.fromkeys(
    ("method", "variant", "data", "track", "split", "metric", "value", "source", "note"), "VARCHAR"
)


class ViewError(ValueError):
    """An SQL file that is not one SELECT, or does not say its grain in the first line."""


def publish(store_root: Path | str, catalogue: Path | str) -> Path:
    """Build the catalogue from the store's heads and swap it in. Returns its path.

    Publishers wait for each other, so the last to finish has seen the newest heads. Readers wait for nobody.
    """
    catalogue = Path(catalogue).absolute()
    catalogue.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{catalogue}.lock"):
        for left in catalogue.parent.glob(f"{catalogue.name}.building-*"):  # of a killed publisher
            left.unlink()
        beside = catalogue.with_name(f"{catalogue.name}.building-{secrets.token_hex(8)}")
        try:
            build(beside, Store(store_root))
            sync(beside)
            os.replace(beside, catalogue)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(catalogue.parent)
    return catalogue


def build(file: Path, store: Store) -> None:
    """Write a new catalogue file with every view."""
    heads = [
        (study, artefact)
        for study, stages in store.heads().items()
        for artefacts in stages.values()
        for artefact in artefacts
    ]
    with duckdb.connect() as con:
        con.execute(f"attach {quoted(str(file))} as building (storage_version {quoted(STORAGE)})")
        con.execute("use building; begin; create schema raw; create schema staging")
        for name, columns in types().items():  # empty at first: a view on a view would open all files again
            create(con, f"raw.{name}", declared()[name].grain, nothing({**cell_columns(columns), **columns}))
        for name, (grain, columns) in FACTS.items():
            create(con, f"raw.{name}", grain, values(columns, ROWS[name](heads)))
        published(con)
        answers(con, store.answers / "segments")
        for folder, into in SCHEMAS.items():
            for view in in_order(SQL / folder):
                create(con, f"{into}.{view.stem}", *read_view(view))
        for name in sorted({name for _, artefact in heads for name in artefact.manifest["tables"]}):
            fill(con, name, types().get(name, {}), heads)
        con.execute("commit; use memory; detach building")


def create(con: duckdb.DuckDBPyConnection, name: str, grain: str, select: str) -> None:
    """Make a view; `name` is `schema.view`."""
    view = ".".join(identifier(part) for part in name.split(".", 1))
    con.execute(f"create or replace view {view} as {select}")
    con.execute(f"comment on view {view} is {quoted(grain)}")


# ---- what manifests say, as rows


def cell(head: Head) -> tuple[Any, ...]:
    study, artefact = head
    return study, artefact.stage, artefact.variant, artefact.seed, artefact.fingerprint


def head_rows(heads: Iterable[Head]) -> list[tuple[Any, ...]]:
    return [(*cell(head), str(head[1].path)) for head in heads]


def artefact_rows(heads: Iterable[Head]) -> list[tuple[Any, ...]]:
    return [(*cell(head), *artefact_facts(head[1])) for head in heads]


def artefact_facts(artefact: Artefact) -> tuple[Any, ...]:
    manifest, measured = artefact.manifest, artefact.measured
    ended = measured["started"] + measured["seconds"]
    return (
        manifest["section"],
        artefact.variant in manifest["controls"],
        manifest["version"],
        *(
            measured.get(k)
            for k in ("seconds", "cpu_seconds", "peak_memory_mb", "peak_gpu_memory_mb", "device")
        ),
        sum(shape["rows"] for shape in manifest["tables"].values()),
        sum(facts["bytes"] for facts in manifest["files"].values()),
        datetime.fromtimestamp(ended, UTC).replace(tzinfo=None).isoformat(sep=" "),
        json.dumps(manifest["cell"], sort_keys=True),
        json.dumps(manifest["settings"], sort_keys=True),
        str(artefact.path),
    )


def metric_rows(heads: Iterable[Head]) -> list[tuple[Any, ...]]:
    return [
        (*cell(head), kind, name, value if is_number(value) else None, None if is_number(value) else value)
        for head in heads
        for kind, numbers in (("metric", head[1].metrics), ("measured", head[1].measured))
        for name, value in numbers.items()
    ]


def check_rows(heads: Iterable[Head]) -> list[tuple[Any, ...]]:
    return [
        (
            *cell(head),
            name,
            found["passed"],
            found["blocking"],
            found["description"],
            json.dumps(found["facts"]),
        )
        for head in heads
        for name, found in head[1].manifest["checks"].items()
    ]


def lineage_rows(heads: Iterable[Head]) -> list[tuple[Any, ...]]:
    return [
        (*cell(head), parent["stage"], parent["fingerprint"])
        for head in heads
        for parent in head[1].manifest["made_from"]
    ]


def column_rows(heads: Iterable[Head]) -> list[tuple[Any, ...]]:
    return [
        (name, column, facts.description)
        for name, known in declared().items()
        for column, facts in known.columns().items()
    ]


ROWS = {
    "heads": head_rows,
    "artefacts": artefact_rows,
    "metrics": metric_rows,
    "checks": check_rows,
    "columns": column_rows,
    "lineage": lineage_rows,
}


# ---- the tables of the artefacts


def declared() -> dict[str, type[schema.Table]]:
    """Table name -> schema, of all that `pipeline.schema` declares: `UserVectors` is `user_vectors`."""
    found = [t for t in vars(schema).values() if isinstance(t, type) and issubclass(t, schema.Table)]
    return {re.sub(r"(?<!^)(?=[A-Z])", "_", t.__name__).lower(): t for t in found if t is not schema.Table}


def fill(con: duckdb.DuckDBPyConnection, name: str, typed: Mapping[str, str], heads: Sequence[Head]) -> None:
    """View of one table over all artefacts that hold it, its declared columns with their declared types.

    The columns of the cell come from the manifest, unless the table has them itself. An artefact of an
    older schema may lack a column: it is null there.
    """
    holders = {str(a.path / f"{name}.parquet"): a for _, a in heads if name in a.manifest["tables"]}
    shapes = {tuple(a.manifest["tables"][name]["columns"]) for a in holders.values()}
    held = list(dict.fromkeys(column for shape in shapes for column in shape))
    columns = [f"heads.{column}" for column in cell_columns({*typed, *held})]
    for column, kind in {**typed, **{c: "" for c in held if c not in typed}}.items():
        source = f"rows.{identifier(column)}" if column in held else "null"
        columns.append(f"{source}{kind and '::'}{kind} as {identifier(column)}")
    known = declared().get(name)
    listed = ", ".join(quoted(literal_path(path)) for path in sorted(holders))
    select = (
        f"select {', '.join(columns)} from read_parquet([{listed}], filename = true, "
        f"union_by_name = {len(shapes) > 1}, hive_partitioning = false) as rows "
        f"inner join raw.heads as heads on rows.filename = heads.path || {quoted(f'/{name}.parquet')}"
    )
    create(con, f"raw.{name}", known.grain if known else name, select)


def cell_columns(own: Container[str]) -> dict[str, str]:
    """Columns that a table of these own columns takes from its artefact's manifest."""
    return {column: kind for column, kind in CELL.items() if column not in own}


@cache
def types() -> dict[str, dict[str, str]]:
    """Declared table -> column -> DuckDB type."""
    with duckdb.connect() as con:
        empty = {name: con.from_arrow(schema.empty(known).to_arrow()) for name, known in declared().items()}
        return {name: dict(zip(r.columns, map(str, r.types), strict=True)) for name, r in empty.items()}


def published(con: duckdb.DuckDBPyConnection) -> None:
    """View of the figures that papers published, as text."""
    parts = [nothing(PUBLISHED_COLUMNS)]
    if PUBLISHED.exists():
        path = quoted(literal_path(str(PUBLISHED)))
        parts.append(f"select * from read_csv({path}, header = true, all_varchar = true)")
    create(con, "raw.published", "one figure that a paper published", " union all by name ".join(parts))


def answers(con: duckdb.DuckDBPyConnection, segments: Path) -> None:
    """View of the recorded answers of chat models, of all studies; a torn record is left out."""
    columns = {name: DUCK[kind] for name, kind in COLUMNS.items()}
    select = nothing(columns)
    if any(segments.glob("*.jsonl")):
        typed = ", ".join(f"{identifier(name)}: {quoted(kind)}" for name, kind in columns.items())
        files = quoted(f"{literal_path(str(segments))}/*.jsonl")
        lines = f"format = 'newline_delimited', ignore_errors = true, columns = {{{typed}}}"
        select = f"select * from read_json({files}, {lines}) where answer is not null"
    create(con, "raw.answers", "one record of a chat model's answer, of a request asked again several", select)


# ---- SQL text


def values(columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> str:
    """SELECT of rows written out, with exact types; one JSON text binds 20 times faster than VALUES."""
    written = json.dumps([dict(zip(columns, row, strict=True)) for row in rows])
    return f"select unnest(from_json({quoted(written)}, {quoted(json.dumps([columns]))}), max_depth := 2)"


def nothing(columns: Mapping[str, str]) -> str:
    """SELECT of no rows with these columns and types."""
    return f"select {', '.join(f'null::{kind} as {identifier(c)}' for c, kind in columns.items())} where false"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal_path(path: str) -> str:
    """A path in which DuckDB finds no pattern."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_view(file: Path) -> tuple[str, str]:
    """Grain and SELECT of an SQL file."""
    first, _, select = file.read_text().partition("\n")
    if not first.startswith("-- "):
        raise ViewError(f"{file.name}: the first line must be a comment that says its grain")
    return first.removeprefix("-- "), select.strip().rstrip(";")


def in_order(folder: Path) -> list[Path]:
    """The folder's SQL files, a view that another reads before its reader."""
    files = {file.stem: file for file in sorted(folder.glob("*.sql"))}
    reads = {
        name: {word for word in re.findall(r"(?:from|join)\s+(\w+)\b(?!\.)", file.read_text()) if word in files}
        for name, file in files.items()
    }
    return [files[name] for name in TopologicalSorter({n: r - {n} for n, r in reads.items()}).static_order()]


# ---- readers


def query(catalogue: Path | str, sql: str) -> pl.DataFrame:
    """Run one SELECT on the catalogue, read-only, and return all its rows."""
    with duckdb.connect(str(catalogue), read_only=True) as con:
        return con.sql(sql).pl()


def assertions(catalogue: Path | str, study: str | None = None) -> dict[str, pl.DataFrame]:
    """Assertion -> the rows that break it, at most a thousand; every frame is empty on good data.

    study: only rows of this study; each assertion has a column of that name.
    """
    of_study = f"where study = {quoted(study)}" if study else ""
    with duckdb.connect(str(catalogue), read_only=True) as con:
        return {
            file.stem: con.sql(f"select * from ({read_view(file)[1]}) {of_study} limit {SHOWN}").pl()
            for file in sorted((SQL / "assertions").glob("*.sql"))
        }
