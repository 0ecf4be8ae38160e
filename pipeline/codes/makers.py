"""Makers of semantic ids that learn no network: item vectors (n, d) in, codes (n, levels) out.

    RQ-KMeans   the centres of the vectors, then of what these leave, level by level
    balanced    the same, and no code of a level has many more items than another
    LSH         the sides of random hyperplanes that a vector is on, so many to a level
    random      codes drawn at random: what an id is worth that says nothing of its item

One interface: a maker takes vectors, levels, the number of codes a level and a seed, and returns `Made`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.codes.clusters import Floats, Ints, balanced_centres, centres, nearest

Books = Mapping[str, NDArray[np.float32]]


class Made(NamedTuple):
    """Codes (n, levels), each in [0, codes a level), and the code books that they come from.

    error: squared error of the vectors that the books rebuild from the codes, over the vectors' variance; None
    where they rebuild none.
    """

    codes: Ints
    books: Books
    error: float | None = None


def rq_kmeans(vectors: Floats, levels: int, k: int, seed: int, iterations: int) -> Made:
    """Residual k-means. `books` hold a level's centres (k, d) each: `level_1` ...

    What GRID (https://github.com/snap-research/GRID) calls RK-means, without its scaling of what is left.
    """

    def cluster(left: Floats, level: int) -> tuple[Floats, Ints]:
        middles = centres(left, k, (seed, level), iterations)
        return middles, nearest(left, middles)

    return by_remainders(vectors, levels, cluster)


def balanced(vectors: Floats, levels: int, k: int, seed: int, iterations: int, slack: float) -> Made:
    """Residual k-means in which no code of a level has more than ceil(n / k * (1 + slack)) items."""
    return by_remainders(
        vectors, levels, lambda left, level: balanced_centres(left, k, slack, (seed, level), iterations)
    )


def by_remainders(vectors: Floats, levels: int, cluster: Callable[[Floats, int], tuple[Floats, Ints]]) -> Made:
    """Codes of the vectors, then of what their centres leave. cluster: what is left (n, d), level."""
    left, codes, books = vectors, [], {}
    for level in range(levels):
        books[f"level_{level + 1}"], found = cluster(left, level)
        left = left - books[f"level_{level + 1}"][found]
        codes.append(found)
    return Made(np.stack(codes, axis=1), books, share_left(left, vectors))


def share_left(left: Floats, vectors: Floats) -> float:
    """Sum of squares of what is left of vectors, over that of the vectors around their mean."""
    whole = np.square(vectors - vectors.mean(0), dtype=np.float64).sum()
    return float(np.square(left, dtype=np.float64).sum() / whole) if whole else 0.0


def lsh(vectors: Floats, levels: int, k: int, seed: int) -> Made:
    """The sides of log2(k) random hyperplanes a level, read as a number. k must be a power of 2.

    The hyperplanes go through the vectors' mean: through the origin most would have all items of a narrow cone
    on one side. `books`: `mean` (d,) and `planes` (levels * log2(k), d).
    """
    bits = k.bit_length() - 1
    mean = vectors.mean(0)
    planes = np.random.default_rng(seed).normal(size=(levels * bits, vectors.shape[1])).astype(np.float32)
    return Made(sides(vectors - mean, planes, levels), {"mean": mean, "planes": planes})


def sides(vectors: Floats, planes: Floats, levels: int) -> Ints:
    """Codes (n, levels): on which side of the planes (levels * bits, d), most significant bit first."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        above = (vectors @ planes.T > 0).reshape(len(vectors), levels, -1)
    return above @ (1 << np.arange(above.shape[2])[::-1])


def encode(vectors: Floats, books: Books) -> Ints:
    """Codes (n, levels) of vectors, new items' too, by the books of residual k-means: always the nearest."""
    left, codes = vectors, []
    for level in range(len(books)):
        codes.append(nearest(left, books[f"level_{level + 1}"]))
        left = left - books[f"level_{level + 1}"][codes[-1]]
    return np.stack(codes, axis=1)


def random_ids(n: int, levels: int, k: int, seed: int) -> Made:
    """Codes of n items drawn at random, and no books: nothing gives a new item its codes."""
    return Made(np.random.default_rng(seed).integers(k, size=(n, levels)), {})
