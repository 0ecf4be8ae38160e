"""Items near an item: by hand, and as a library has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sknetwork.ranking import PageRank

from pipeline.collab import pagerank
from pipeline.collab.events import ones

DAMPING = 0.85


def used(pairs: list[tuple[int, int]], shape: tuple[int, int]):
    row, column = np.array(pairs, dtype=np.int64).T
    return ones(row, column, shape)


#                 u0: 0 1   u1: 1 2   u2: 3
CHAIN = used([(0, 0), (0, 1), (1, 1), (1, 2), (2, 3)], (3, 5))


def test_the_nearest_stand_first_and_nothing_that_is_not_reached() -> None:
    found = pagerank.nearest(CHAIN, 3, DAMPING)
    assert found.tolist() == [[1, 2, -1], [0, 2, -1], [1, 0, -1], [-1, -1, -1], [-1, -1, -1]]


def test_blocks_of_starts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pagerank.nearest(CHAIN, 2, DAMPING)
    monkeypatch.setattr(pagerank, "STARTS", 2)
    assert np.array_equal(pagerank.nearest(CHAIN, 2, DAMPING), whole)


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=20))
def test_masses_are_those_of_a_library(pairs: set[tuple[int, int]]) -> None:
    matrix = used(sorted(pairs), (6, 7))
    items = sorted({item for _, item in pairs})
    found = pagerank.masses(matrix, np.array(items), DAMPING)
    for place, item in enumerate(items):
        theirs = PageRank(DAMPING, solver="piteration", n_iter=200, tol=1e-12)
        scores = theirs.fit_predict(matrix.T.tocsr(), weights_row={item: 1})
        ours = found[:, place]
        assert np.allclose(ours / ours.sum(), scores / scores.sum(), atol=2e-3)
