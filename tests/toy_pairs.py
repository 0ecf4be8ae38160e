"""Small labelled splits, and a way to run one stage on them as the graph would."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.data.histories import Histories
from pipeline.schema import Examples
from pipeline.stage import Draft, Source, Spec, Stage, run
from pipeline.store import Artefact, Store
from tests.specs import spec_from

SPLIT = "5" * 32
HAND = [
    *[("train", 0, 0, 1), ("train", 1, 0, 1), ("train", 2, 0, 0)],  # item 0: 2 of 3
    *[("train", 0, 1, 0), ("train", 1, 1, 0)],  # item 1: 0 of 2
    *[("train", 0, 2, 1)],  # item 2: 1 of 1
    *[("valid", 0, 0, 1), ("valid", 1, 1, 0), ("valid", 2, 2, 1), ("valid", 3, 1, 0)],
    *[("test", 0, 1, 0), ("test", 3, 0, 1), ("test", 1, 4, 1), ("test", 3, 4, 0)],  # user 3, item 4: cold
]


def examples(rows: Iterable[tuple[str, int, int, int]], history: tuple[int, ...] = ()) -> pl.DataFrame:
    """An `examples` table of (part, user, item, label), numbered from 0, all with the same history."""
    frame = pl.DataFrame(list(rows), schema=["part", "user", "item", "label"], orient="row").with_row_index(
        "row"
    )
    filled = frame.with_columns(
        at=pl.col("row").cast(pl.Int64),
        history=pl.lit(list(history), dtype=pl.List(pl.UInt32)),
        history_labels=pl.lit([1] * len(history), dtype=pl.List(pl.UInt8)),
        user_seen=pl.lit(0),
        item_seen=pl.lit(0),
    )
    return Examples.validate(filled, cast=True)


def taste(users: int = 30, items: int = 24, seed: int = 3) -> pl.DataFrame:
    """Users like the items of their own kind, even or odd: means say nothing, factors all.

    The last user and the last item are in test only.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(users - 1):
        for item in draw.permutation(items - 1)[:20]:
            part = draw.choice(["train", "valid", "test"], p=[0.7, 0.15, 0.15])
            rows.append((str(part), user, int(item), int(user % 2 == item % 2)))
    cold = [("test", users - 1, item, item % 2) for item in range(4)]
    return examples([*rows, *cold, ("test", 0, items - 1, 0)])


def remembered(frame: pl.DataFrame) -> pl.DataFrame:
    """The examples, each with the history of train rows that its user had before it."""
    bare = frame.drop("history", "history_labels")
    found = Histories(bare, frame.filter(pl.col("part") == "train"), longest=50)
    return Examples.validate(pl.concat(found.beside(bare)), cast=True)


def flipped(frame: pl.DataFrame, where: pl.Expr) -> pl.DataFrame:
    """The examples with the other label where the expression says so."""
    other = pl.when(where).then(1 - pl.col("label")).otherwise("label")
    return frame.with_columns(label=other.cast(pl.UInt8))


def store_with(frame: pl.DataFrame, folder: Path) -> Store:
    """A store that holds the examples as the artefact of `ctr/split`."""
    store = Store(folder / "store")
    draft = store.draft(folder / "store/work" / SPLIT)
    frame.write_parquet(draft / "examples.parquet")
    store.commit(
        draft,
        {"stage": "ctr/split", "fingerprint": SPLIT, "files": {}, "cell": {}, "metrics": {}, "measured": {}},
    )
    return store


def spec_of(stage: Stage, store: Store, seed: int = 1, **settings: Any) -> Spec:
    """The spec of the stage on that store's split."""
    cell = {"seed": seed} if stage.seeded else {}
    inputs = {"split": Source("ctr/split", SPLIT)}
    return spec_from(stage, store, inputs, cell, settings)


def make(stage: Stage, frame: pl.DataFrame, folder: Path, seed: int = 1, **settings: Any) -> Artefact:
    """Run the stage on the examples. Returns its artefact, whose checks all ran."""
    return run(spec_of(stage, store_with(frame, folder), seed, **settings))[0]


def draft_of(stage: Stage, folder: Path, tables: dict[str, pl.DataFrame], **metrics: Any) -> Draft:
    """A draft of the stage that holds these tables and metrics, for checks."""
    store = Store(folder / "drafts")
    draft = Draft(store.draft(folder / "drafts/work"), stage, spec_of(stage, store), folder)
    for name, table in tables.items():
        draft.table(name, table)
    draft.metric(**metrics)
    return draft


def passed(artefact: Artefact) -> dict[str, bool]:
    """Check -> whether it passed."""
    return {name: verdict["passed"] for name, verdict in artefact.manifest["checks"].items()}


def files_of(artefact: Artefact) -> dict[str, str]:
    """File -> hash: equal for artefacts that are equal bit for bit."""
    return {name: facts["sha256"] for name, facts in artefact.manifest["files"].items()}
