"""k-means on one thread, seeded: the same vectors give the same bits.

vectors (n, d) -> k centres -> each vector's nearest
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
ROWS_AT_ONCE = 8_192  # vectors measured against all centres together; bounds memory


def centres(vectors: Floats, k: int, seed: int | tuple[int, ...], iterations: int) -> Floats:
    """The k centres (k, d) of vectors (n, d) by Lloyd's rounds; fewer where there are fewer vectors.

    The first ones are vectors far from each other (k-means++). A centre that nobody is nearest to is put beside
    a crowded one.
    """
    import faiss

    k, width = min(k, len(vectors)), vectors.shape[1]
    clustering = faiss.Kmeans(
        width,
        k,
        niter=iterations,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        seed=int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1),
        min_points_per_centroid=1,
        max_points_per_centroid=max(len(vectors), 1),  # all of them, no sample
    )
    with faiss_on_one_thread():
        clustering.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.array(clustering.centroids, dtype=np.float32)


@contextmanager
def faiss_on_one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine."""
    import faiss
    from threadpoolctl import threadpool_limits

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        faiss.omp_set_num_threads(before)


def distances(vectors: Floats, middles: Floats) -> Floats:
    """Squared distances (n, k) of vectors (n, d) to centres (k, d), less each vector's own square."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return (middles * middles).sum(1) - 2 * (vectors @ middles.T)


def nearest(vectors: Floats, middles: Floats) -> Ints:
    """Number (n,) of the centre that is nearest to each vector; the first of equals."""
    found = [
        distances(vectors[start : start + ROWS_AT_ONCE], middles).argmin(1)
        for start in range(0, len(vectors), ROWS_AT_ONCE)
    ]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def means(vectors: Floats, codes: Ints, k: int, empty: Floats) -> Floats:
    """Mean vector of those with each code (k, d); the row of `empty` where nobody has it."""
    sums = np.zeros((k, vectors.shape[1]))
    np.add.at(sums, codes, vectors)
    holders = np.bincount(codes, minlength=k)[:, None]
    return np.where(holders > 0, sums / np.maximum(holders, 1), empty).astype(np.float32)


def balanced_centres(
    vectors: Floats, k: int, slack: float, seed: int | tuple[int, ...], iterations: int
) -> tuple[Floats, Ints]:
    """Centres (k, d), and codes (n,) of which none has more than ceil(n / k * (1 + slack)) holders.

    Rounds of k-means in which a vector goes to its nearest centre that has room (`with_room`).
    """
    middles = centres(vectors, k, seed, iterations)
    room = math.ceil(len(vectors) / k * (1 + slack))
    for _ in range(iterations):
        codes = with_room(distances(vectors, middles), room)
        middles = means(vectors, codes, len(middles), middles)
    return middles, with_room(distances(vectors, middles), room)


def with_room(far: Floats, room: int) -> Ints:
    """A centre for each row of distances (n, k), none for more than `room` rows; k * room must be n at least.

    Everybody asks for the nearest centre with room. Where more ask than fit, those go first who would lose
    most by their next choice; the others ask again.
    """
    far, codes, waiting = far.copy(), np.full(len(far), -1), np.arange(len(far))
    left = np.full(far.shape[1], room)
    while len(waiting):
        asked = far[waiting]
        first = asked.argmin(1)
        nearby = np.partition(asked, 1, axis=1)[:, :2] if asked.shape[1] > 1 else np.zeros((len(asked), 2))
        order = np.lexsort((nearby[:, 0] - nearby[:, 1], first))
        place = np.arange(len(order)) - np.searchsorted(first[order], first[order])
        fits = order[place < left[first[order]]]
        codes[waiting[fits]] = first[fits]
        left -= np.bincount(first[fits], minlength=len(left))
        waiting = waiting[np.isin(np.arange(len(waiting)), fits, invert=True)]
        far[:, left == 0] = np.inf
    return codes
