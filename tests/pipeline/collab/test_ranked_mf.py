"""Matrix factorisation on sampled negatives: both losses learn, a killed fit goes on to the same bits."""

from typing import ClassVar

import numpy as np

from pipeline.collab.pairs import generator
from pipeline.collab.ranked_mf import RankedMFSettings, learn, ranked_mf
from tests.contracts import RankerContract, ResumeContract, VectorContract
from tests.toy_next import circles

QUICK = {
    "loss": "bpr",
    "penalty": 0.001,
    "dim": 8,
    "lr": 0.05,
    "batch": 32,
    "epochs": 30,
    "patience": 30,
    "negatives": 2,
}


class TestBPRLoss(RankerContract, VectorContract, ResumeContract):
    stage = ranked_mf
    settings: ClassVar = QUICK
    width: ClassVar[int] = 10


class TestBCELoss(RankerContract):
    stage = ranked_mf
    settings: ClassVar = {**QUICK, "loss": "bce", "penalty": 0.03, "epochs": 60, "patience": 60}


def test_vectors_carry_biases_and_ones() -> None:
    tables = circles()
    vectors, fit = learn(tables.trained, tables.queries, RankedMFSettings(**QUICK), seed=1)
    assert (vectors.users[:, -1] == 1).all()
    assert (vectors.items[:, -2] == 1).all()
    assert np.abs(vectors.items[:22, -1]).min() > 0
    assert {name for _, name, _ in fit.curve} == {"train_loss", "valid_ndcg_10"}


def test_the_penalty_pulls_vectors_to_zero() -> None:
    tables = circles()
    sizes = [
        np.square(learn(tables.trained, tables.queries, settings, seed=1)[0].items[:, :8]).sum()
        for settings in (RankedMFSettings(**{**QUICK, "penalty": penalty}) for penalty in (0.0, 1.0))
    ]
    assert sizes[1] < sizes[0] / 4


def test_first_vectors_and_the_epochs_draw_from_different_streams() -> None:
    assert generator(1, 200).initial_seed() not in {generator(1, epoch).initial_seed() for epoch in range(200)}
