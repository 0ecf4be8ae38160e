"""Makers of ids: what they say of the vectors, and what they do not."""

import math

import numpy as np
import pytest

from pipeline.codes.makers import balanced, encode, lsh, random_ids, rq_kmeans, share_left, sides
from tests.toy_items import crowds


def test_items_of_a_crowd_share_their_first_code() -> None:
    made = rq_kmeans(crowds(crowds=4), levels=2, k=4, seed=0, iterations=20)
    assert all(len(set(made.codes[start::4, 0].tolist())) == 1 for start in range(4))
    assert len(set(made.codes[:, 0].tolist())) == 4


def test_each_level_of_residual_k_means_says_more_of_the_vectors() -> None:
    vectors = crowds()
    made = rq_kmeans(vectors, levels=3, k=8, seed=1, iterations=20)
    left, errors = vectors, [float((vectors**2).sum())]
    for level in range(3):
        left = left - made.books[f"level_{level + 1}"][made.codes[:, level]]
        errors.append(float((left**2).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


def test_random_codes_are_spread_and_their_own_by_seed() -> None:
    made = random_ids(4000, levels=2, k=8, seed=1)
    assert made.codes.shape == (4000, 2)
    assert np.abs(np.bincount(made.codes[:, 0], minlength=8) / 4000 - 1 / 8).max() < 0.02
    assert np.array_equal(made.codes, random_ids(4000, 2, 8, 1).codes)
    assert not np.array_equal(made.codes, random_ids(4000, 2, 8, 2).codes)
    assert made.books == {}


def test_what_the_books_rebuild_is_what_the_error_says() -> None:
    vectors = crowds()
    made = rq_kmeans(vectors, levels=2, k=8, seed=1, iterations=20)
    rebuilt = made.books["level_1"][made.codes[:, 0]] + made.books["level_2"][made.codes[:, 1]]
    wanted = ((vectors - rebuilt) ** 2).sum() / ((vectors - vectors.mean(0)) ** 2).sum()
    assert made.error == pytest.approx(wanted, rel=1e-4)
    assert share_left(vectors * 0, vectors) == 0


def test_books_give_the_items_their_codes_again() -> None:
    made = rq_kmeans(crowds(), levels=3, k=8, seed=1, iterations=20)
    assert np.array_equal(encode(crowds(), made.books), made.codes)


def test_no_level_of_balanced_codes_has_a_crowded_one() -> None:
    vectors = np.concatenate([crowds(90, crowds=1), crowds(30, crowds=3, seed=1)])
    made = balanced(vectors, levels=3, k=8, seed=1, iterations=10, slack=0.1)
    assert max(np.bincount(level).max() for level in made.codes.T) <= math.ceil(120 / 8 * 1.1)
    assert np.bincount(rq_kmeans(vectors, 3, 8, 1, 10).codes[:, 0]).max() > math.ceil(120 / 8 * 1.1)


def test_sides_of_planes_are_read_as_numbers() -> None:
    planes = np.array([[1, 0], [0, 1], [-1, 0], [1, 1]], dtype=np.float32)
    assert sides(np.array([[2, -1], [-1, 3]], dtype=np.float32), planes, levels=2).tolist() == [[2, 1], [1, 3]]


def test_hyperplanes_part_items_evenly_though_all_lie_on_one_side_of_the_origin() -> None:
    cone = crowds(400, crowds=12) + 50
    made = lsh(cone, levels=2, k=4, seed=0)
    assert made.books["planes"].shape == (4, 6)
    assert min(np.bincount(level, minlength=4).min() for level in made.codes.T) > 20
    alike = made.codes[0] == made.codes[12]  # of one crowd
    assert alike.all()
