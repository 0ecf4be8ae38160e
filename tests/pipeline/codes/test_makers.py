"""Makers of ids: what they say of the vectors, and what they do not."""

import numpy as np

from pipeline.codes.makers import random_ids, rq_kmeans
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
