"""k-means: crowds are found, equals give equal bits, and another library's means."""

import math

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codes import clusters
from pipeline.codes.clusters import balanced_centres, centres, means, nearest, with_room
from tests.toy_items import crowds


def test_each_crowd_has_a_centre() -> None:
    vectors = crowds(crowds=4, width=3, n=80)
    codes = nearest(vectors, centres(vectors, 4, seed=0, iterations=20))
    assert len({tuple(codes[start::4].tolist()) for start in range(4)}) == 4
    assert all(len(set(codes[start::4].tolist())) == 1 for start in range(4))


def test_the_same_seed_gives_the_same_bits_whatever_the_threads() -> None:
    before, found = faiss.omp_get_max_threads(), []
    for count in (1, 2):
        faiss.omp_set_num_threads(count)
        try:
            found.append(centres(crowds(400), 16, (1, 2), iterations=5))
            assert faiss.omp_get_max_threads() == count
        finally:
            faiss.omp_set_num_threads(before)
    assert np.array_equal(*found)
    assert not np.array_equal(found[0], centres(crowds(400), 16, (1, 3), iterations=5))


def test_there_are_no_more_centres_than_vectors() -> None:
    vectors = crowds(3)
    middles = centres(vectors, 8, seed=1, iterations=5)
    assert middles.shape == (3, 6)
    assert sorted(nearest(vectors, middles).tolist()) == [0, 1, 2]


def test_the_nearest_is_that_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "ROWS_AT_ONCE", 7)
    vectors, middles = crowds(30), crowds(5, seed=3)
    squares = ((vectors[:, None] - middles[None]) ** 2).sum(-1)
    assert np.array_equal(nearest(vectors, middles), squares.argmin(1))
    assert nearest(vectors[:0], middles).shape == (0,)


def test_means_are_of_those_with_the_code_and_stay_where_nobody_has_it() -> None:
    vectors = np.array([[0, 0], [2, 4], [5, 5]], dtype=np.float32)
    empty = np.full((3, 2), 9, dtype=np.float32)
    assert means(vectors, np.array([1, 1, 0]), 3, empty).tolist() == [[5, 5], [1, 2], [9, 9]]


def test_who_would_lose_most_goes_first_where_a_centre_is_full() -> None:
    far = np.array([[0, 1, 9], [0, 7, 9], [0, 3, 2]], dtype=np.float32)
    assert with_room(far, 1).tolist() == [1, 0, 2]
    assert with_room(far, 2).tolist() == [1, 0, 0]
    assert with_room(far, 3).tolist() == [0, 0, 0]


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 99))
def test_no_centre_has_more_than_its_room_and_everybody_has_one(n: int, k: int, seed: int) -> None:
    far = np.random.default_rng(seed).random((n, k), dtype=np.float32)
    room = math.ceil(n / k)
    codes = with_room(far, room)
    assert codes.min() >= 0
    assert np.bincount(codes, minlength=k).max() <= room
    assert np.array_equal(with_room(far, n), far.argmin(1))


def test_balanced_clusters_keep_their_bound_where_plain_ones_do_not() -> None:
    vectors = np.concatenate([crowds(90, crowds=1), crowds(30, crowds=3, seed=1)])
    plain = nearest(vectors, centres(vectors, 4, seed=0, iterations=10))
    _, codes = balanced_centres(vectors, 4, slack=0.1, seed=0, iterations=10)
    assert np.bincount(codes, minlength=4).max() <= math.ceil(120 / 4 * 1.1) < np.bincount(plain).max()
