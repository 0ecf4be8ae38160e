"""EASE: the closed form solves its problem, the penalty is chosen on validation, items are bounded."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.sparse import csr_matrix

from pipeline.collab import ease as module
from pipeline.collab.ease import EASESettings, ease, item_weights, linear, taking_part, tried
from pipeline.collab.ranked import blocks
from tests.contracts import RankerContract
from tests.toy_next import ITEMS, circles, make

CHOSEN = {"penalties": (1.0, 10.0)}


class TestEASE(RankerContract):
    stage = ease
    settings = CHOSEN


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 4.0, 50.0]))
@settings(deadline=None)  # the first call imports scipy
def test_each_column_is_the_ridge_regression_on_the_other_items(seed: int, penalty: float) -> None:
    used = (np.random.default_rng(seed).random((12, 6)) < 0.5).astype(np.float64)
    found = item_weights(csr_matrix(used), penalty)
    for item in range(6):
        others = np.delete(used, item, axis=1)
        ridge = np.linalg.solve(others.T @ others + penalty * np.eye(5), others.T @ used[:, item])
        assert found[item, item] == 0
        assert np.delete(found[:, item], item) == pytest.approx(ridge, abs=1e-5)


def test_only_the_most_used_items_take_part_and_cold_ones_never() -> None:
    assert taking_part(np.array([3, 0, 5, 3, 1]), 2).tolist() == [True, False, True, False, False]
    assert taking_part(np.array([3, 0, 5, 3, 1]), 9).tolist() == [True, False, True, True, True]


def test_items_that_do_not_take_part_are_not_recommended() -> None:
    tables = circles()
    ((_, block),) = blocks(tables.part("test"), 99)
    found = linear(tables.trained, 1.0, most=5)(block)
    part = taking_part(tables.trained.popularity, 5)
    assert part.sum() == 5
    assert (found.isfinite().numpy() == part).all()


def test_items_left_out_are_counted(tmp_path) -> None:
    assert make(ease, circles(), tmp_path / "a", items=20, **CHOSEN).metrics["items_left_out"] == 2
    assert make(ease, circles(), tmp_path / "b", **CHOSEN).metrics["items_left_out"] == 0


def test_the_penalty_with_the_best_validation_is_kept_the_smallest_of_equals(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = iter([0.1, 0.3, 0.3])
    with monkeypatch.context() as patched:
        patched.setattr(module, "valid_ndcg_10", lambda scores, queries, n_items: next(marks))
        found = make(ease, circles(), tmp_path, penalties=(100.0, 1.0, 10.0))
    trials = found.table("trials")
    assert trials["candidate"].to_list() == ["penalty=1", "penalty=10", "penalty=100"]
    assert trials["chosen"].to_list() == [False, True, False]
    assert found.metrics["penalty"] == 10
    only = make(ease, circles(), tmp_path / "only", penalties=(10.0,))
    assert only.table("rankings").equals(found.table("rankings"))


def test_flipped_test_targets_change_no_choice(tmp_path) -> None:
    tables = circles()
    other = pl.lit([ITEMS - 3], dtype=pl.List(pl.UInt32))
    flipped = pl.when(pl.col("part") == "test").then(other).otherwise("targets")
    moved = tables._replace(queries=tables.queries.with_columns(targets=flipped))
    first, second = (make(ease, each, tmp_path / str(n), **CHOSEN) for n, each in enumerate((tables, moved)))
    assert first.table("trials").equals(second.table("trials"))


def test_the_first_of_the_best_is_chosen() -> None:
    assert tried({1.0: 0.2, 3.0: 0.4, 9.0: 0.4})["chosen"].to_list() == [False, True, False]


@pytest.mark.parametrize("penalties", [(), (0.0, 1.0), (-1.0,)])
def test_penalties_must_be_above_zero(penalties: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        EASESettings(penalties=penalties)
