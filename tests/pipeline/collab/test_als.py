"""ALS: a history's vector solves its equations, and training's vectors are exported."""

from typing import ClassVar

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from pipeline.collab.als import ALSSettings, als, factorise, fold_in
from pipeline.collab.events import histories
from pipeline.collab.ranked import blocks
from tests.contracts import RankerContract, VectorContract
from tests.toy_next import EMPTY, NEW, NEW_ON_COLD, circles

QUICK = {"dim": 4, "iterations": 5, "penalty": 0.1}


class TestALS(RankerContract, VectorContract):
    stage = als
    settings: ClassVar = QUICK
    width: ClassVar[int] = 4


@pytest.fixture(scope="module")
def model():
    return factorise(circles().trained, ALSSettings(**QUICK), seed=1)


def test_a_history_has_the_vector_that_solves_its_weighted_least_squares(model) -> None:
    settings, rows = ALSSettings(**QUICK), circles().trained
    ((_, block),) = blocks(circles().part("test"), 99)
    past = histories(block, rows.known.items).toarray()[3]
    items = model.item_factors.astype(np.float64)
    weights = np.diag(1 + (settings.weight - 1) * past)
    left = items.T @ weights @ items + settings.penalty * np.eye(settings.dim)
    solved = np.linalg.solve(left, settings.weight * items.T @ past)
    found = fold_in(rows, model)(block)[3, rows.known.items].numpy()
    assert found == pytest.approx((items @ solved)[rows.known.items], abs=1e-4)


def test_a_user_who_came_after_training_is_served_from_the_history(model) -> None:
    ((_, block),) = blocks(circles().part("test"), 99)
    found = fold_in(circles().trained, model)(block)
    assert not found[NEW].equal(found[EMPTY])
    assert found[NEW_ON_COLD].equal(found[EMPTY])


def test_the_number_of_blocks_changes_nothing(model) -> None:
    scores, asked = fold_in(circles().trained, model), circles().part("test")
    whole = scores(next(blocks(asked, 99))[1]).numpy()
    parts = np.concatenate([scores(block).numpy() for _, block in blocks(asked, 4)])
    assert np.allclose(whole, parts, atol=1e-5)


def test_the_callers_histories_are_left_alone(model) -> None:
    past = csr_matrix(np.eye(3, 24, dtype=np.float32))
    before = past.copy()
    model.recalculate_user(np.arange(3), past)
    assert (past != before).nnz == 0
