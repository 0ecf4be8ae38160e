"""A small catalogue of items as vectors, and a way to run a stage on it as the graph would."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.stage import Draft, Source, Spec, Stage, fingerprint, run
from pipeline.store import Artefact, Store

VECTORS, DATASET = "7" * 32, "8" * 32
GENRES = ("Action", "Drama")


def crowds(n: int = 120, width: int = 6, crowds: int = 8, seed: int = 0) -> NDArray[np.float32]:
    """Vectors (n, width) around far points (at most 2 * width): item i is of crowd i modulo `crowds`."""
    rng = np.random.default_rng(seed)
    middles = np.concatenate([np.eye(width), -np.eye(width)])[:crowds] * 10
    return (middles[np.arange(n) % crowds] + rng.normal(size=(n, width)) * 0.5).astype(np.float32)


def store_with(vectors: NDArray[np.float32], folder: Path) -> Store:
    """A store that holds them as the artefact of `text_embeddings`, for items 0, 1, 2 ..., and their dataset.

    Even items are of one genre, odd ones of the other; every user takes ten items at random.
    """
    store, rng = Store(folder / "store"), np.random.default_rng(2)
    items = pl.DataFrame({"item": np.arange(len(vectors), dtype=np.uint32)})
    lists = pl.Series("vector", vectors).arr.to_list()
    put(store, "text_embeddings", VECTORS, item_embeddings=items.with_columns(lists))
    genres = [[GENRES[item % 2]] for item in items["item"]]
    named = items.with_columns(title=pl.format("Item {}", "item"), categories=pl.Series(genres))
    taken = np.stack([rng.permutation(len(vectors))[:10] for _ in range(40)])
    events = {"user": np.arange(40).repeat(10), "item": taken.ravel().astype(np.uint32)}
    rows = pl.DataFrame(events).with_row_index("row").with_columns(at=pl.col("row"))
    put(store, "dataset", DATASET, items=named, interactions=rows)
    return store


def put(store: Store, stage: str, identity: str, **tables: pl.DataFrame) -> None:
    """Commit tables as an artefact of a stage that was never run."""
    draft = store.draft(store.root / "work" / identity)
    for name, table in tables.items():
        table.write_parquet(draft / f"{name}.parquet")
    facts = {"stage": stage, "fingerprint": identity, "files": {}, "cell": {}}
    store.commit(draft, {**facts, "metrics": {}, "measured": {}})


def spec_of(stage: Stage, store: Store, seed: int = 1, **settings: Any) -> Spec:
    """The spec of the stage on that store's vectors."""
    filled = stage.settings.model_validate(settings).model_dump(mode="json")
    inputs = {"vectors": Source("text_embeddings", VECTORS), "dataset": Source("dataset", DATASET)}
    return Spec(
        reference=stage.reference,
        stage=stage.name,
        study="toy",
        cell={"seed": seed},
        settings=filled,
        inputs=inputs,
        fingerprint=fingerprint(stage, filled, {"seed": seed}, inputs, {}),
        store=str(store.root),
        root=str(store.root),
    )


def make(stage: Stage, vectors: NDArray[np.float32], folder: Path, seed: int = 1, **settings: Any) -> Artefact:
    """Run the stage on the vectors. Returns its artefact, whose checks all ran."""
    return run(spec_of(stage, store_with(vectors, folder), seed, **settings))[0]


def draft_of(stage: Stage, folder: Path, tables: dict[str, pl.DataFrame], **metrics: Any) -> Draft:
    """A draft of the stage that holds these tables and metrics, for checks."""
    store = Store(folder / "drafts")
    draft = Draft(store.draft(folder / "drafts/work"), stage, spec_of(stage, store), folder)
    for name, table in tables.items():
        draft.table(name, table)
    draft.metric(**metrics)
    return draft
