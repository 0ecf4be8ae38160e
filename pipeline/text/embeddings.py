"""Items as vectors of their texts: tables, principal components, cosines, and what can be wrong with them.

    vectors (n, width) -> principal components (n, dim) -> table item -> vector -> unit rows -> cosines

Pure functions over arrays; every stage that embeds items ends in these and is judged by the same checks.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.stage import Check, Draft, Verdict

Floats = NDArray[np.float32]
ROWS_AT_ONCE = 8_192  # rows centred in float64 together; bounds memory
PAIRS = 10_000  # random pairs whose mean cosine says whether vectors differ
COLLAPSED = 0.5  # mean cosine of random pairs above which vectors say little of the items


class Components(NamedTuple):
    """Coordinates (n, d) along the directions of largest variance, and the share of it that they hold."""

    coordinates: Floats
    share: float


def principal(vectors: Floats, dim: int) -> Components:
    """The first `dim` principal components of rows (n, width), fewer where the rows span less.

    A direction's sign is free: the largest of its numbers is made positive. On one thread, so that the bits are
    the same everywhere. Rows that are all equal have one coordinate, 0.
    """
    from threadpoolctl import threadpool_limits

    mean = vectors.mean(0, dtype=np.float64)
    with threadpool_limits(1):
        scatter = np.zeros((len(mean), len(mean)))
        for block in centred(vectors, mean):
            scatter += block.T @ block
        values, directions = np.linalg.eigh(scatter)
        values, directions = values[::-1].clip(0), upright(directions[:, ::-1])
        spanned = int((values > values[0] * len(mean) * np.finfo(np.float32).eps).sum())
        kept = max(1, min(dim, spanned, len(vectors) - 1))
        found = [block @ directions[:, :kept] for block in centred(vectors, mean)]
    total = values.sum()
    share = float(values[:kept].sum() / total) if total else 0.0
    return Components(np.concatenate(found).astype(np.float32), share)


def centred(vectors: Floats, mean: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        yield vectors[start : start + ROWS_AT_ONCE] - mean


def upright(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns whose number of largest size is positive."""
    largest = np.abs(directions).argmax(0)
    return directions * np.where(directions[largest, np.arange(directions.shape[1])] < 0, -1.0, 1.0)


def unit(vectors: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32, copy=False)


def mean_cosine(vectors: Floats, pairs: int = PAIRS) -> float:
    """Mean cosine of seeded random pairs of different rows; a row of zeros is like all. 1 for one row."""
    if len(vectors) < 2:
        return 1.0
    rng = np.random.default_rng(0)
    first = rng.integers(len(vectors), size=pairs)
    second = (first + rng.integers(1, len(vectors), size=pairs)) % len(vectors)
    rows = unit(vectors)
    cosines = np.einsum("ij,ij->i", rows[first], rows[second])
    void = np.asarray(~rows.any(axis=1))
    return float(np.where(void[first] | void[second], 1.0, cosines).mean())


def write_embeddings(out: Draft, items: pl.Series, vectors: Floats) -> None:
    """Write the table item -> vector, and how unlike its vectors are."""
    lists = pl.Series("vector", vectors).arr.to_list()
    out.table("item_embeddings", pl.DataFrame({"item": items, "vector": lists}))
    out.metric(items=len(items), dim=vectors.shape[1], mean_cosine=round(mean_cosine(vectors), 6))


def as_array(table: pl.DataFrame) -> Floats:
    """Vectors (n, dim) of a table `item_embeddings`, row by row."""
    width = int(table["vector"].list.len().max() or 0)  # type: ignore[arg-type]
    return np.ascontiguousarray(table["vector"].list.to_array(width).to_numpy())


def every_item_has_a_vector(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Every item that has a text has one vector, in the same order, finite and all of one width."""
    wanted, found = inputs["item_text"].table("item_text")["item"], draft.read("item_embeddings")
    widths = found["vector"].list.len().unique().to_list()
    finite = found["vector"].explode(empty_as_null=False).is_finite().all()
    same = found["item"].equals(wanted, check_names=False)
    words = f"{found.height} of {len(wanted)} items, widths {widths}, {'all' if finite else 'not all'} finite"
    return Verdict(same and len(widths) == 1 and finite, words, {"items": len(wanted)})


def not_collapsed(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Two random items are not alike: else the vectors say little, and neighbours are noise."""
    found = draft.metrics["mean_cosine"]
    words = f"mean cosine of random pairs {found:.3f}, below {COLLAPSED} wanted"
    return Verdict(found < COLLAPSED, words, {"mean cosine": found})


EMBEDDING_CHECKS = (Check(every_item_has_a_vector), Check(not_collapsed, blocking=False))
