"""Item neighbours: cosines by hand, and the same whatever the block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pipeline.collab import item_knn as module
from pipeline.collab.events import share
from pipeline.collab.item_knn import ItemKNNSettings, alike, item_knn, nearest, similarities
from pipeline.collab.ranked import blocks
from tests.contracts import RankerContract
from tests.toy_next import toy

USED = csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]], dtype=np.float32))


class TestItemKNN(RankerContract):
    stage = item_knn


def test_similarities_are_cosines_without_oneself() -> None:
    found = similarities(USED, neighbours=9, shrink=0).toarray()
    a, b = 2 / np.sqrt(3 * 2), 1 / np.sqrt(3 * 2)
    assert found == pytest.approx(np.array([[0, a, b], [a, 0, 0], [b, 0, 0]]))


def test_shrinkage_is_added_to_the_denominator() -> None:
    found = similarities(USED, neighbours=9, shrink=10).toarray()
    assert found[0, 1] == pytest.approx(2 / (np.sqrt(6) + 10))


def test_each_column_keeps_the_nearest_of_its_item() -> None:
    found = similarities(USED, neighbours=1, shrink=0).toarray()
    assert (found > 0).tolist() == [[False, True, True], [True, False, False], [False, False, False]]


def test_of_equal_neighbours_the_first_are_kept() -> None:
    rows = csr_matrix(np.array([[0.5, 0.5, 0.7, 0.5], [0, 0, 0, 0.1]]))
    assert nearest(rows, 2).toarray().tolist() == [[0.5, 0, 0.7, 0], [0, 0, 0, 0.1]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.0, 3.0]))
def test_similarities_equal_those_made_at_once(seed: int, neighbours: int, shrink: float) -> None:
    dense = (np.random.default_rng(seed).random((9, 7)) < 0.4).astype(np.float64)
    size = dense.sum(0)
    with np.errstate(invalid="ignore"):
        whole = np.nan_to_num(dense.T @ dense / (np.sqrt(np.outer(size, size)) + shrink))
    np.fill_diagonal(whole, 0)
    found = similarities(csr_matrix(dense), neighbours, shrink).toarray()
    for item in range(7):
        kept = found[:, item]
        assert (kept > 0).sum() == min(neighbours, (whole[:, item] > 0).sum())
        assert np.allclose(
            np.sort(kept)[::-1][:neighbours], np.sort(whole[:, item])[::-1][: len(kept)][:neighbours]
        )
        assert np.allclose(kept[kept > 0], whole[:, item][kept > 0])


def test_the_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = similarities(USED, 2, 1.0).toarray()
    monkeypatch.setattr(module, "BLOCK", 2)
    assert (similarities(USED, 2, 1.0).toarray() == whole).all()


def test_a_score_is_the_sum_over_the_history_and_the_rest_follows_by_popularity() -> None:
    tables = toy([[0, 1, 4, 4], [0, 1, 4, 4], [0, 2, 4, 4], [2, 4, 4], [3, 3, 4, 4]], 5)
    rows = tables.trained
    ((_, block),) = blocks(tables.part("valid"), 9)
    found = alike(rows, ItemKNNSettings(neighbours=9, shrink=0))(block).numpy()
    a, b = 2 / np.sqrt(6), 1 / np.sqrt(6)
    assert found[2, :3] == pytest.approx([b, a, b])  # history 0, 2
    assert found[2, 3] == share(rows.popularity)[3] - 1
    assert found[2, 3] < 0
