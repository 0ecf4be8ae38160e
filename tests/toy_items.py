"""A small catalogue of items as vectors, and a way to run a stage on it as the graph would."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.stage import Draft, Source, Spec, Stage, fingerprint, run
from pipeline.store import Artefact, Store

VECTORS = "7" * 32


def crowds(n: int = 120, width: int = 6, crowds: int = 8, seed: int = 0) -> NDArray[np.float32]:
    """Vectors (n, width) around far points (at most 2 * width): item i is of crowd i modulo `crowds`."""
    rng = np.random.default_rng(seed)
    middles = np.concatenate([np.eye(width), -np.eye(width)])[:crowds] * 10
    return (middles[np.arange(n) % crowds] + rng.normal(size=(n, width)) * 0.5).astype(np.float32)


def store_with(vectors: NDArray[np.float32], folder: Path) -> Store:
    """A store that holds them as the artefact of `text_embeddings`, for items 0, 1, 2 ..."""
    store = Store(folder / "store")
    draft = store.draft(folder / "store/work" / VECTORS)
    lists = pl.Series("vector", vectors).arr.to_list()
    items = pl.Series("item", np.arange(len(vectors), dtype=np.uint32))
    pl.DataFrame([items, lists]).write_parquet(draft / "item_embeddings.parquet")
    facts = {"stage": "text_embeddings", "fingerprint": VECTORS, "files": {}, "cell": {}}
    store.commit(draft, {**facts, "metrics": {}, "measured": {}})
    return store


def spec_of(stage: Stage, store: Store, seed: int = 1, **settings: Any) -> Spec:
    """The spec of the stage on that store's vectors."""
    filled = stage.settings.model_validate(settings).model_dump(mode="json")
    inputs = {"vectors": Source("text_embeddings", VECTORS)}
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
