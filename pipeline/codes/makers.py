"""Makers of semantic ids that learn no network: item vectors (n, d) in, codes (n, levels) out.

    RQ-KMeans   the centres of the vectors, then of what these leave, level by level
    LSH         the sides of random hyperplanes that a vector is on, so many to a level
    random      codes drawn at random: what an id is worth that says nothing of its item

One interface: a maker takes vectors, levels, the number of codes a level and a seed, and returns `Made`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.codes.clusters import Floats, Ints, centres, nearest

Books = Mapping[str, NDArray[np.float32]]


class Made(NamedTuple):
    """Codes (n, levels), each in [0, codes a level), and the code books that they come from."""

    codes: Ints
    books: Books


def rq_kmeans(vectors: Floats, levels: int, k: int, seed: int, iterations: int) -> Made:
    """Residual k-means. `books` hold a level's centres (k, d) each: `level_1` ...

    What GRID (https://github.com/snap-research/GRID) calls RK-means, without its scaling of what is left.
    """
    left, codes, books = vectors, [], {}
    for level in range(levels):
        books[f"level_{level + 1}"] = middles = centres(left, k, (seed, level), iterations)
        codes.append(nearest(left, middles))
        left = left - middles[codes[-1]]
    return Made(np.stack(codes, axis=1), books)


def random_ids(n: int, levels: int, k: int, seed: int) -> Made:
    """Codes of n items drawn at random, and no books: nothing gives a new item its codes."""
    return Made(np.random.default_rng(seed).integers(k, size=(n, levels)), {})
