"""Knowledge that somebody has already: a file of texts about users or items, refusals recognised.

    file (the source's id, text) -> table `knowledge`: every owner once, answered, refused or not_asked

A language model that refuses writes a text as well. Encoded with the others it would say "I am like all who
were refused", so it counts as no text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from pipeline.data.importers.tables import TableError
from pipeline.data.sources import cache, find_local, hashes
from pipeline.knowledge.refusals import refused
from pipeline.schema import Knowledge
from pipeline.stage import Settings
from pipeline.study import nearest
from pipeline.text.cleaning import clean, without_turns


class ReadyTexts(Settings):
    location: str | None = Field(
        None,
        description="a file of ready texts, .parquet, .csv or .jsonl, from the project's root; null: none",
    )
    id: str = Field("id", description="its column with the source's own ids")
    text: str = Field("text", description="its column with the texts")
    longest: int = Field(4000, ge=1, description="characters of a text that are kept")


def outside(settings: ReadyTexts, root: Path) -> Mapping[str, Any]:
    """The hash of the file belongs to the artefact's identity."""
    if settings.location is None:
        return {}
    file = find_local(settings.location, root)
    return {file.name: hashes([file], cache(root))[file]}


def read(settings: ReadyTexts, root: Path) -> pl.DataFrame:
    """The file's texts: id, text, both as text. Raises TableError for a column or format that is not there."""
    assert settings.location is not None
    file = find_local(settings.location, root)
    readers = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}
    if file.suffix not in readers:
        raise TableError(f"{settings.location}: unknown ending{nearest(file.suffix, readers)}")
    table = readers[file.suffix](file)
    for column in (settings.id, settings.text):
        if column not in table.columns:
            raise TableError(f"{settings.location}: no column {column!r}{nearest(column, table.columns)}")
    return table.select(
        id=pl.col(settings.id).cast(pl.String), text=pl.col(settings.text).cast(pl.String)
    ).unique("id", keep="first", maintain_order=True)


def as_knowledge(texts: pl.DataFrame, owners: pl.DataFrame, kind: str, longest: int) -> pl.DataFrame:
    """Table `knowledge` of one kind, a row for each of `owners` (owner, id) in their order.

    texts: id, text. An empty text is no text.
    """
    rows = owners.join(texts, on="id", how="left", maintain_order="left")
    judged = [status_of(text) for text in rows["text"]]
    kept = [
        without_turns(clean(without_turns(text), longest)) if status == "answered" else None
        for text, status in zip(rows["text"], judged, strict=True)
    ]
    table = rows.select("owner").with_columns(
        kind=pl.lit(kind),
        text=pl.Series(kept, dtype=pl.String),
        status=pl.Series(judged, dtype=pl.String),
        answer=pl.lit(None, dtype=pl.String),
    )
    return table.select(Knowledge.column_names())


def status_of(text: str | None) -> str:
    if text is None or not text.strip():
        return "not_asked"
    return "refused" if refused(text) else "answered"


def counted(table: pl.DataFrame) -> dict[str, int]:
    """How many owners are answered, refused and so on."""
    found = dict(table.group_by("status").len().iter_rows())
    return {name: found.get(name, 0) for name in ("answered", "refused", "truncated", "failed", "not_asked")}
