"""Semantic ids of the circle of `tests.toy_next`, and a way to run TIGER's stages on it as the graph would."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.codes.ids import Ids, with_digits
from pipeline.methods import tiger
from pipeline.stage import Artefact, Source, Spec, Stage, run
from pipeline.store import Store
from tests.specs import spec_from
from tests.toy_next import ITEMS, SPLIT, Toy, store_with

DATASET, IDS = "d" * 32, "1" * 32
QUICK: dict[str, Any] = {
    "width": 16,
    "inner": 32,
    "heads": 2,
    "head_width": 4,
    "layers": 1,
    "decoder_layers": 1,
    "history": 4,
    "steps": 80,
    "examples_per_step": 16,
    "batch_tokens": 128,
    "learning_rate": 2e-2,
    "warm_up": 5,
    "evaluate_every": 40,
    "valid_users": 12,
}


def quick(**changes: Any) -> dict[str, Any]:
    """Settings of a network that learns the circle in a second, with these changes."""
    return {**QUICK, **changes}


def telling(n: int = ITEMS) -> np.ndarray:
    """Codes (n, 2) of parity and of the place on the half circle, two neighbours a code: digits are needed."""
    item = np.arange(n)
    return np.stack([item % 2, item // 4], axis=1)


def drawn(n: int = ITEMS, seed: int = 0) -> np.ndarray:
    """Codes (n, 2) that say nothing: the telling ones, of another item."""
    return telling(n)[np.random.default_rng(seed).permutation(n)]


def ids(codes: np.ndarray) -> Ids:
    """Ids of items 0, 1, 2 ... with their digits."""
    whole = with_digits(codes)
    size = int(codes.max()) + 1
    return Ids(np.arange(len(codes)), whole, (*[size] * codes.shape[1], int(whole[:, -1].max()) + 1))


def commit(store: Store, stage: str, key: str, metrics: dict[str, Any], **tables: pl.DataFrame) -> None:
    """Put the tables into the store as an artefact of a stage."""
    draft = store.draft(store.root / "work" / key)
    for name, frame in tables.items():
        frame.write_parquet(draft / f"{name}.parquet")
    facts = {"stage": stage, "fingerprint": key, "files": {}, "cell": {}, "measured": {}}
    store.commit(draft, {**facts, "metrics": metrics})


def store_of(toy: Toy, codes: np.ndarray, folder: Path) -> Store:
    """A store that holds the split, its users and the ids of its items."""
    store, own = store_with(toy, folder), ids(codes)
    users = pl.DataFrame({"user": range(toy.trained.n_users)}, schema={"user": pl.UInt32})
    named = users.with_columns(user_id=pl.format("u{}", "user"), profile=pl.lit(None, pl.String))
    commit(store, "dataset", DATASET, {}, users=named)
    table = pl.DataFrame({"item": pl.Series(own.items, dtype=pl.UInt32), "codes": own.codes.tolist()})
    facts = {"levels": codes.shape[1], "codes_a_level": own.sizes[0], "digits": own.sizes[-1]}
    commit(store, "semantic_ids/toy", IDS, facts, semantic_ids=table)
    return store


def spec(
    stage: Stage,
    store: Store,
    variant: str = "rqvae",
    seed: int = 1,
    model: str | None = None,
    **settings: Any,
) -> Spec:
    """The spec of one of TIGER's stages; model: fingerprint of the network that predictions are made with."""
    inputs = {
        "split": Source("next_item/split", SPLIT),
        "dataset": Source("dataset", DATASET),
        "ids": Source("semantic_ids/toy", IDS),
        **({"model": Source("tiger/model", model)} if model else {}),
    }
    cell = {"variant": variant, "seed": seed}
    return spec_from(stage, store, inputs, cell, settings)


class Made(NamedTuple):
    """Both artefacts of a run, and their store."""

    model: Artefact
    predictions: Artefact
    store: Store


def make(
    toy: Toy, codes: np.ndarray, folder: Path, decoding: dict[str, Any] | None = None, **changes: Any
) -> Made:
    """Learn and rank, all checks run."""
    store = store_of(toy, codes, folder)
    learnt = run(spec(tiger.model, store, **quick(**changes)))[0]
    ranked = spec(tiger.predictions, store, model=learnt.fingerprint, **decoding or {})
    return Made(learnt, run(ranked)[0], store)
