"""Any table of interactions, items, users or reviews: CSV, Parquet or JSON lines, with a mapping of columns.

    file -> scan (columns as they come, numbered rows) -> map (our columns, as text beside as parsed)

Text is parsed here and judged in `pipeline.data.contract`: a value that cannot be parsed becomes null beside
the text it came from, so that one bad row never stops a file. Only what is wrong with a whole file (not there,
a column missing, not its format) is an error.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from pipeline.data.importers.columns import UNITS, TableFile
from pipeline.study import StudyError, nearest

SURPLUS = "surplus fields"  # of a CSV line longer than its header
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".dat": "csv",
    ".inter": "csv",
    ".item": "csv",
    ".user": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
ISO = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
ISO_OFFSET = "%Y-%m-%d %H:%M:%S%.f%z"


class TableError(StudyError):
    """A file that cannot be read as the study says; the message names the file, the column and the nearest."""


# --- files as they come ------------------------------------------------------------------------------------


def find(pattern: str, files: Mapping[str, Path]) -> dict[str, Path]:
    """The source's files that a table names, by whole path or by its end. Raises TableError for none."""
    found = {name: path for name, path in files.items() if PurePosixPath(name).match(pattern)}
    if not found:
        ends = {PurePosixPath(name).name for name in files}
        raise TableError(f"the source has no file {pattern!r}{nearest(pattern, ends)}")
    return found


def kind_of(path: Path, name: str, table: TableFile) -> str:
    plain = path.with_suffix("") if path.suffix.lower() in (".gz", ".zst") else path
    kind = table.format or ENDINGS.get(plain.suffix.lower())
    if kind is None:
        raise TableError(f"{name}: unknown ending {path.suffix!r}; give `format`: csv, parquet or jsonl")
    return kind


def scan(path: Path, kind: str, table: TableFile) -> pl.LazyFrame:
    """The file's own columns and `source_row` from 1; for CSV also the text that a line has too much."""
    readers = {"csv": scan_csv, "jsonl": scan_lines, "parquet": scan_parquet}
    constants = {column: pl.lit(value) for column, value in table.constants.items()}
    return readers[kind](path, table).with_columns(**constants)


def scan_parquet(path: Path, table: TableFile) -> pl.LazyFrame:
    return pl.scan_parquet(path).with_row_index("source_row", offset=1)


def unreadable(name: str, kind: str, error: Exception) -> TableError:
    said = " ".join(str(error).split())[:200]
    advice = {
        "csv": "Is its `separator`, `encoding` (latin-1?) or `quote` (null for none) another one?",
        "jsonl": "Is its `encoding` another one?",
        "parquet": "Is it a Parquet file?",
    }
    return TableError(f"{name}: cannot be read as {kind}: {said}. {advice[kind]}")


def scan_csv(path: Path, table: TableFile) -> pl.LazyFrame:
    """Every field as text. A longer line keeps its surplus, a shorter one has nulls, a blank one is dropped."""
    separator = table.separator or ("\t" if path.suffix.lower() == ".tsv" else ",")
    source: Path | io.BytesIO = path
    if len(separator.encode()) > 1 or not utf8(table.encoding):
        text = path.read_bytes().decode(table.encoding)
        source = io.BytesIO(text.replace(separator, "\x1f").encode())
        separator = "\x1f"
    written: dict[str, Any] = {"separator": separator, "quote_char": table.quote}
    names = (
        table.header or pl.scan_csv(source, infer_schema=False, n_rows=0, **written).collect_schema().names()
    )
    return pl.scan_csv(
        source,
        has_header=False,
        skip_rows=0 if table.header else 1,
        schema={name.removeprefix("\ufeff"): pl.String for name in (*names, SURPLUS)},
        missing_columns="insert",
        truncate_ragged_lines=True,
        row_index_name="source_row",
        row_index_offset=1,
        **written,
    ).filter(~pl.all_horizontal(pl.exclude("source_row").is_null()))


def utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") in ("utf8", "ascii")


def scan_lines(path: Path, table: TableFile) -> pl.LazyFrame:
    """JSON lines as text, one column `line`; `pick` takes fields from it."""
    source = path if utf8(table.encoding) else io.BytesIO(path.read_bytes().decode(table.encoding).encode())
    return pl.scan_csv(
        source,
        has_header=False,
        separator="\x01",
        quote_char=None,
        schema={"line": pl.String},
        row_index_name="source_row",
        row_index_offset=1,
    ).filter(pl.col("line").str.strip_chars() != "")


# --- our columns -------------------------------------------------------------------------------------------


class Reading:
    """One file under a table's settings: gives any of its columns as text, number or time.

    Raises TableError for a column that is not there, naming the setting that asks for it.
    """

    def __init__(self, path: Path, name: str, table: TableFile) -> None:
        self.name, self.table, self.kind = name, table, kind_of(path, name, table)
        with self.reading():
            self.frame = scan(path, self.kind, table)
            self.types = dict(self.frame.collect_schema())
        if self.json:
            self.take_fields()
        self.select_rows()

    def take_fields(self) -> None:
        """Turn JSON lines into columns: the fields of the first thousand lines."""
        with self.reading():
            sample = self.frame.select("line").head(1000).collect()["line"]
        fields = sample.str.extract_all(r'"([^"\\]+)"\s*:').explode().drop_nulls().unique().sort()
        names = [name for name in fields.str.extract(r'^"(.*)"', 1) if name not in self.types]
        self.frame = self.frame.with_columns(
            pl.col("line").str.json_path_match(f"$['{name}']").alias(name) for name in names if "'" not in name
        )
        self.types = {name: pl.String() for name in names} | self.types

    def select_rows(self) -> None:
        for column, values in self.table.keep.items():
            wanted = [str(value) for value in values]
            self.frame = self.frame.filter(self.text(column, f"keep.{column}").is_in(wanted))

    @property
    def json(self) -> bool:
        return "line" in self.types

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around whatever reads the rows: faults of the whole file become TableErrors."""
        try:
            yield
        except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, LookupError) as error:
            raise unreadable(self.name, self.kind, error) from error

    @property
    def torn(self) -> pl.Expr:
        """What is wrong with the row as a whole, as the text at fault; null for a sound row."""
        if self.json:
            sound = pl.col("line").str.json_path_match("$").is_not_null()
            return pl.when(~sound).then(pl.col("line").str.slice(0, 200))
        return pl.col(SURPLUS) if SURPLUS in self.types else pl.lit(None, dtype=pl.String)

    def column(self, column: str, setting: str) -> pl.Expr:
        if column not in self.types:
            known = [name for name in self.types if name not in ("source_row", "line", SURPLUS)]
            close = get_close_matches(column, known, n=3, cutoff=0.4)
            near = f"; nearest: {', '.join(map(repr, close))}" if close else ""
            raise TableError(
                f"{self.name}: no column {column!r}, which `{setting}` asks for{near}; "
                f"it has: {', '.join(known[:30])}"
            )
        return pl.col(column)

    def text(self, column: str, setting: str) -> pl.Expr:
        """As text without blanks around, null where nothing is left; 17850.0 is 17850."""
        found, kind = self.column(column, setting), self.types[column]
        if kind.is_float():
            whole = found.cast(pl.Int64, strict=False)
            found = pl.when(whole == found).then(whole.cast(pl.String)).otherwise(found.cast(pl.String))
        elif isinstance(kind, (pl.List, pl.Array)):
            found = found.cast(pl.List(pl.String)).list.join(", ")
        return found.cast(pl.String).str.strip_chars().replace("", None)

    def number(self, column: str, setting: str) -> pl.Expr:
        return self.text(column, setting).cast(pl.Float64, strict=False)

    def whole(self, column: str, setting: str) -> pl.Expr:
        number = self.number(column, setting)
        return pl.when(number == number.floor()).then(number.cast(pl.Int64, strict=False))

    def time(self, column: str, setting: str, form: str) -> pl.Expr:
        """Unix seconds, rounded down."""
        found, kind = self.column(column, setting), self.types[column]
        if kind.is_temporal():
            return found.cast(pl.Datetime("us")).dt.epoch("us") // 1_000_000
        text = self.text(column, setting)
        number = text.cast(pl.Float64, strict=False)
        if form in UNITS:
            return whole_seconds(number, UNITS[form])
        if form != "auto":
            return seconds(text, form)
        return pl.coalesce(whole_seconds(number, 1), iso(text))

    def words(self, column: str, setting: str, split: str) -> pl.Expr:
        """A list of texts: as it is, or cut at `split`."""
        found, kind = self.column(column, setting), self.types[column]
        if isinstance(kind, (pl.List, pl.Array)):
            return found.cast(pl.List(pl.String))
        text = self.text(column, setting)
        if not self.json:
            return text.str.split(split)
        listed = text.str.starts_with("[")
        several = pl.when(listed).then(text).str.json_decode(pl.List(pl.String))
        return pl.coalesce(several, pl.when(~listed).then(text).str.split(split))

    def filled(self, form: str, setting: str) -> pl.Expr:
        """A column's text, or a form like `{name} ({year})`; a bracket left empty goes away."""
        asked = re.findall(r"\{([^{}]+)\}", form)
        if not asked:
            return self.text(form, setting)
        texts = [self.text(column, setting) for column in asked]
        pieces = re.split(r"\{[^{}]+\}", form)
        parts = [pl.lit(pieces[0])]
        for text, piece in zip(texts, pieces[1:], strict=True):
            parts += [text.fill_null(""), pl.lit(piece)]
        whole = pl.concat_str(parts).str.replace_all(r"\(\s*\)", "").str.strip_chars()
        return pl.when(texts[0].is_not_null()).then(whole)


def whole_seconds(number: pl.Expr, unit: int) -> pl.Expr:
    return (number / unit).floor().cast(pl.Int64, strict=False)


def seconds(text: pl.Expr, form: str) -> pl.Expr:
    zone = "UTC" if "%z" in form else None
    parsed = text.str.to_datetime(form, time_unit="us", time_zone=zone, strict=False)
    return parsed.dt.epoch("us") // 1_000_000


def iso(text: pl.Expr) -> pl.Expr:
    """ISO 8601, a blank or T between date and time; without an offset it is UTC."""
    plain = text.str.replace(r"^(\d{4}-\d\d-\d\d)T", "${1} ").str.replace(r"[zZ]$", "")
    return pl.coalesce([seconds(plain, form) for form in (*ISO, ISO_OFFSET)])


def read(tables: Iterable[TableFile], files: Mapping[str, Path]) -> list[Reading]:
    """Open every file of a table's settings."""
    return [Reading(path, name, t) for t in tables for name, path in sorted(find(t.file, files).items())]
