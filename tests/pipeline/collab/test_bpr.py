"""BPR of the library `implicit`: biases, seeds, cold users."""

from typing import ClassVar

import numpy as np
import pytest

from pipeline.collab.bpr import BPRSettings, bpr, fit
from pipeline.collab.ranked import blocks
from pipeline.collab.vectors import from_vectors
from tests.contracts import RankerContract, VectorContract
from tests.toy_next import LEARNT, circles

QUICK = {"dim": 8, "lr": 0.1, "epochs": 150}


class TestBPR(RankerContract, VectorContract):
    stage = bpr
    settings: ClassVar = QUICK
    width: ClassVar[int] = 9


@pytest.fixture(scope="module")
def vectors():
    return fit(circles().trained, BPRSettings(**QUICK), seed=1)


def test_an_items_last_number_is_its_bias(vectors) -> None:
    assert (vectors.users[:LEARNT, -1] == 1).all()
    assert len(np.unique(vectors.items[:22, -1])) > 10


def test_a_cold_user_gets_the_average_taste(vectors) -> None:
    rows = circles().trained
    ((_, block),) = blocks(circles().part("test"), 99)
    found = from_vectors(vectors, rows.known)(block).numpy()[LEARNT:, rows.known.items]
    average = found_by_hand(vectors)[rows.known.items]
    assert found == pytest.approx(np.tile(average, (3, 1)), abs=1e-5)


def found_by_hand(vectors) -> np.ndarray:
    return vectors.users[:LEARNT].mean(0) @ vectors.items.T
