"""The track cold_item in small: users walk round circles of even or odd items, whose texts tell their places.

Items 2 n and 2 n + 2 are neighbours, and so are their vectors. Who reads the texts can find an item that nobody
has used; who reads ids cannot.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.codes import semantic
from pipeline.collab.cold_floors import cold_sasrec, random_order
from pipeline.collab.content_knn import cold_content_knn
from pipeline.data.cold_item import cold_split, warm_split
from pipeline.evaluate.leaderboard import cold_item_leaderboard
from pipeline.evaluate.ranking import cold_user_metrics
from pipeline.graph import Graph
from pipeline.methods import tiger
from pipeline.schema import Interactions, ItemEmbeddings, Items, Users
from pipeline.stage import Artefact, Settings, run, stage
from pipeline.store import Store
from pipeline.study import Study
from tests.toy_ids import QUICK

ITEMS, USERS, STEPS = 32, 48, 11
SMALL = {
    "data": {"cold_item": {"split": {"valid_share": 0.12, "test_share": 0.12}}},
    "models": {
        "cold_item": {"sasrec": {"dim": 8, "epochs": 3, "share": 0.5}, "content_knn": {"last": [1, 3]}},
        "semantic_ids": {name: {"levels": 2, "codes_a_level": 4} for name in ("rqkmeans", "random")},
    },
    "methods": {
        "tiger": {
            "variants": ["rqkmeans", "random_ids"],
            "cold_model": {**QUICK, "steps": 40, "valid_users": 6},
            "cold_predictions": {"shares": [0.0, 0.2, 1.0], "share": 0.2},
        }
    },
    "evaluate": {"cold_item": {"leaderboard": {"resamples": 100, "flips": 100}}},
}


def walk(user: int) -> list[int]:
    """Items of a user in order: their parity's circle, from a place of their own, a step at a time."""
    return [user % 2 + 2 * ((user // 2 + step) % (ITEMS // 2)) for step in range(STEPS)]


@stage(
    "dataset",
    settings=Settings,
    section="data",
    version=1,
    tables={"interactions": Interactions, "items": Items, "users": Users},
)
def dataset(settings: Settings, out) -> None:
    """The walks, an event of every user in turn."""
    rows = [(step * USERS + user, user, walk(user)[step]) for step in range(STEPS) for user in range(USERS)]
    frame = pl.DataFrame(rows, schema=["row", "user", "item"], orient="row")
    nothing = {"rating": pl.lit(None, pl.Float32), "part": pl.lit(None, pl.String), "at": pl.col("row")}
    out.table("interactions", frame.with_columns(**nothing).select(Interactions.column_names()))
    items = pl.DataFrame({"item": range(ITEMS)}).with_columns(
        item_id=pl.format("i{}", "item"),
        title=pl.format("Item {}", "item"),
        categories=pl.concat_list(pl.format("Circle {}", pl.col("item") % 2)),
        text=pl.lit(None, pl.String),
    )
    out.table("items", items)
    users = pl.DataFrame({"user": range(USERS)})
    out.table("users", users.with_columns(user_id=pl.format("u{}", "user"), profile=pl.lit(None, pl.String)))


@stage(
    "text_embeddings",
    settings=Settings,
    section="models",
    version=1,
    tables={"item_embeddings": ItemEmbeddings},
)
def text_embeddings(settings: Settings, out) -> None:
    """Vectors that tell an item's circle and its place on it."""
    item = np.arange(ITEMS)
    angle = 2 * np.pi * (item // 2) / (ITEMS // 2)
    vectors = np.stack([2.0 * (item % 2), 2.0 * (1 - item % 2), np.cos(angle), np.sin(angle)], axis=1)
    out.table("item_embeddings", pl.DataFrame({"item": item, "vector": vectors.astype(np.float32).tolist()}))


STAGES = (
    *(dataset, text_embeddings),
    *(semantic.rqvae, semantic.rqkmeans, semantic.balanced, semantic.lsh, semantic.random),
    *(cold_split, warm_split, random_order, cold_content_knn, cold_sasrec),
    *(tiger.cold_model, tiger.cold_predictions, cold_user_metrics, cold_item_leaderboard),
)


def make(folder: Path) -> dict[str, dict[str, Artefact]]:
    """Run a study of the toy: stage -> variant -> artefact."""
    wanted: Any = {"name": "toy", "title": "Toy", "tracks": ("cold_item",), **SMALL}
    made: dict[str, dict[str, Artefact]] = {}
    for planned in Graph(STAGES).plan(Study(**wanted), Store(folder / "store"), folder):
        artefact, _ = run(planned.spec)
        made.setdefault(planned.stage.name, {})[artefact.variant] = artefact
    return made
