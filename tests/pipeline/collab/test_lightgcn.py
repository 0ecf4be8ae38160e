"""LightGCN: the contracts, and that the graph is what it learns from."""

from typing import ClassVar

import numpy as np

from pipeline.collab.lightgcn import LightGCNSettings, learn, lightgcn
from tests.contracts import RankerContract, ResumeContract, VectorContract
from tests.toy_next import LEARNT, circles

QUICK = {"dim": 8, "lr": 0.05, "batch": 32, "epochs": 20, "patience": 20, "negatives": 2}


class TestLightGCN(RankerContract, VectorContract, ResumeContract):
    stage = lightgcn
    settings: ClassVar = QUICK
    width: ClassVar[int] = 8


def test_before_any_learning_the_graph_alone_knows_the_taste() -> None:
    tables = circles()
    rows = tables.trained
    vectors, _ = learn(rows, tables.queries, LightGCNSettings(dim=64, lr=1e-9, epochs=1, layers=4), seed=1)
    scores = vectors.users[:LEARNT] @ vectors.items[:22].T
    same = np.arange(LEARNT)[:, None] % 2 == np.arange(22) % 2
    assert scores[same].mean() > scores[~same].mean() + scores[~same].std()
