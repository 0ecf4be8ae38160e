"""Small material for click-through models: a planted taste, with attributes and with dense vectors."""

import numpy as np
import polars as pl

from pipeline.collab.labelled import known
from pipeline.ctr.fields import Dense, fields
from pipeline.ctr.fit import Material
from pipeline.ctr.settings import CtrSettings
from tests import toy_pairs

QUICK = CtrSettings(
    dim=4, history=6, layers=(8, 4), depth=2, attention=(4,), dropout=0.1, penalties=(0.1,), lr=0.02, batch=64,
    epochs=8, patience=8, spread=0.3,
)  # fmt: skip


def items(count: int = 24) -> pl.DataFrame:
    """Items of three kinds and two years."""
    return pl.DataFrame(
        {
            "item": range(count),
            "item_id": [f"i{i}" for i in range(count)],
            "title": [f"Film {i} ({1990 + i % 2})" for i in range(count)],
            "categories": [["Drama"] if i % 3 else ["Action", "War"] for i in range(count)],
        }
    )


def users(count: int = 30) -> pl.DataFrame:
    """Users of two genders, the last one's unknown."""
    profiles = [f"age: {20 + i}, gender: {'FM'[i % 2]}" for i in range(count - 1)]
    return pl.DataFrame({"user": range(count), "user_id": map(str, range(count)), "profile": [*profiles, None]})


def dense(of: np.ndarray, count: int, width: int = 5, seed: int = 0) -> Dense:
    """A random vector for each of `count` owners but the last."""
    rows = np.random.default_rng(seed).normal(size=(count - 1, width)).astype(np.float32)
    return Dense(rows, of.astype(np.int64))


def held(with_dense: bool = False) -> Material:
    examples = toy_pairs.remembered(toy_pairs.taste())
    seen = known(examples)
    found = fields(examples.lazy(), seen, QUICK.history, [items(), users()])
    both = (dense(examples["user"].to_numpy(), 30), dense(examples["item"].to_numpy(), 24, seed=1))
    return Material(examples, found, seen, both if with_dense else None)
