"""Tables written piece by piece, so that a large one is never whole in memory.

    frames of any length -> pieces of ROWS rows -> each judged by its schema -> one row group each

The file hangs on the rows alone, not on how they came: the same rows in other frames give the same bits.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import dataframely as dy
import polars as pl
from dataframely.exc import ValidationError

ROWS = 131_072  # of a row group, and in memory at a time
Frames = pl.LazyFrame | Iterable[pl.DataFrame]


def write(schema: type[dy.Schema], frames: Frames, file: Path) -> int:
    """Write a table of the schema as Parquet. Returns its rows.

    Raises dataframely's ValidationError where a piece breaks a rule or two rows share a primary key.
    """
    import pyarrow.parquet as pq

    oldest, rows = pl.CompatLevel.oldest(), 0
    columns = schema.create_empty().to_arrow(compat_level=oldest).schema
    with pq.ParquetWriter(file, columns, compression="zstd") as writer:
        for piece in even(in_batches(frames), ROWS):
            sound = schema.validate(piece, cast=True).rechunk()
            writer.write_table(sound.to_arrow(compat_level=oldest))
            rows += sound.height
    require_unique(file, schema.primary_key())
    return rows


def in_batches(frames: Frames) -> Iterable[pl.DataFrame]:
    return frames.collect_batches(chunk_size=ROWS) if isinstance(frames, pl.LazyFrame) else frames


def even(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in the same order, cut into frames of `rows`; the last may be shorter."""
    held: list[pl.DataFrame] = []
    waiting = 0
    for frame in frames:
        held.append(frame)
        waiting += frame.height
        if waiting < rows:
            continue
        whole = pl.concat(held)
        for start in range(0, waiting - rows + 1, rows):
            yield whole.slice(start, rows)
        held, waiting = [whole.tail(waiting % rows)], waiting % rows
    if waiting:
        yield pl.concat(held)


def require_unique(file: Path, key: list[str]) -> None:
    """Keys are judged over the whole file, of which only their columns are read."""
    if not key:
        return
    keys = pl.scan_parquet(file, glob=False).select(key).collect()
    twice = keys.height - keys.n_unique()
    if twice:
        raise ValidationError(f"{file.stem}: {twice:,} rows repeat the primary key {', '.join(key)}")
