"""What the readers' stages write: vectors that are the scores, counts, and a curve."""

import numpy as np
import polars as pl
import pytest

from pipeline.collab.readers import learn
from pipeline.collab.sasrec import SASRecSettings, build, sasrec
from pipeline.stage import StageFailed
from tests.toy_next import CIRCLE, LEARNT, Toy, circles, make, toy

QUICK = {"dim": 8, "length": 4, "lr": 0.01, "batch": 64, "epochs": 3, "patience": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    return make(sasrec, circles(), tmp_path_factory.mktemp("readers"), **QUICK)


def test_a_product_of_vectors_is_the_score_of_the_item_as_next_one(made) -> None:
    users, items = (np.array(made.table(f"{e}_vectors").sort(e)["vector"].to_list()) for e in ("user", "item"))
    rows = made.table("rankings").filter(pl.col("score").is_not_null(), part="valid")
    assert rows.height > LEARNT * 10
    scores = (users[rows["user"].to_numpy()] * items[rows["item"].to_numpy()]).sum(1)
    assert np.allclose(scores, rows["score"].to_numpy(), atol=1e-5)


def test_cold_ids_are_counted_and_the_curve_has_every_epoch(made) -> None:
    assert made.metrics["test_users_not_learnt_from"] == 3
    assert made.metrics["test_histories_of_nothing_known"] == 2
    assert made.metrics["epochs"] <= 3
    assert made.table("curve")["step"].to_list() == [1, 1, 2, 2, 3, 3]
    best = made.table("curve").filter(metric="valid_ndcg_10")["value"].max()
    assert made.metrics["valid_ndcg_10"] == pytest.approx(best, abs=1e-12)


def test_parameters_are_counted_of_learnt_items_only(made) -> None:
    body = 2 * (4 * 8 * 8 + 2 * 8 * 32 + 32 + 8 + 4 * 8) + 2 * 2 * 8
    assert made.metrics["parameters"] == CIRCLE * 8 + 4 * 8 + body


def test_only_training_rows_are_learnt_from() -> None:
    def fitted(tables: Toy) -> np.ndarray:
        settings = SASRecSettings.model_validate(QUICK | {"epochs": 1})
        return learn(tables.trained, tables.queries, settings, build, seed=1).vectors.items

    walks = [[0, 1, 2, 3, 4], [1, 2, 3, 0, 4]]
    others = [[0, 1, 2, 4, 3], [1, 2, 3, 4, 0]]
    moved = [[1, 0, 2, 3, 4], [1, 2, 3, 0, 4]]
    assert np.array_equal(fitted(toy(walks, 5)), fitted(toy(others, 5)))
    assert not np.array_equal(fitted(toy(walks, 5)), fitted(toy(moved, 5)))


def test_nothing_to_learn_from_is_said(tmp_path) -> None:
    with pytest.raises(StageFailed, match="no user has two training events"):
        make(sasrec, toy([[0, 1, 2], [1, 2, 0]], 3), tmp_path, **QUICK)
