"""Time and memory of the table of similar items against the number of items.

    python -m benchmarks.similar_items [--sizes 15000,31000,62423] [--dim 512] [--k 50] [--threads 2]

Vectors lie about centres of their own, a centre for every fifty items, so neighbours are near as those of texts
are. Every size runs in a process of its own that reads the vectors from a file and writes the table as the
stage does, and the 100 first items' neighbours are held against all cosines. `held` is what libraries and the
vectors take (as read, of length 1, and in the index), `peak` the most that the process held: memory is flat
where the gap between the two does not grow with the items. Processor seconds say what a busy machine hides.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks.apart import apart
from pipeline.pieces import write
from pipeline.schema import SimilarItems
from pipeline.text.embeddings import Floats, unit
from pipeline.text.similar_items import nearest

A_CENTRE = 50  # items
SPREAD = 0.7  # of an item about its centre, in spreads of the centres
TABLE = "similar_items.parquet"
LOOKED_AT = 100  # items whose neighbours are found again by all cosines


class Line(NamedTuple):
    """Seconds of the search and the writing, of the clock and of processors; megabytes of vectors and
    libraries."""

    seconds: float
    cpu: float
    held: float


def clusters(n: int, dim: int, seed: int = 1) -> Floats:
    """Vectors (n, dim) about n / A_CENTRE centres."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((n // A_CENTRE + 1, dim), dtype=np.float32)
    own = random.integers(len(centres), size=n)
    return centres[own] + np.float32(SPREAD) * random.standard_normal((n, dim), dtype=np.float32)


def search(folder: Path, k: int, threads: int) -> Line:
    """Find and write the neighbours of all items of the folder's vectors."""
    import faiss
    import psutil

    faiss.omp_set_num_threads(threads)
    vectors, process = np.load(folder / "vectors.npy"), psutil.Process()
    items = pl.Series("item", np.arange(len(vectors), dtype=np.uint32))
    held = (
        process.memory_info().rss + 2 * vectors.nbytes
    ) / 2**20  # rows of length 1 and the index come on top
    start, begun = time.perf_counter(), time.process_time()
    write(SimilarItems, nearest(items, vectors, k), folder / TABLE)
    return Line(time.perf_counter() - start, time.process_time() - begun, held)


def agreed(folder: Path, k: int) -> float:
    """Share of the first items' neighbours that are among the k highest cosines."""
    rows = unit(np.load(folder / "vectors.npy"))
    cosines = rows[:LOOKED_AT] @ rows.T
    cosines[np.arange(LOOKED_AT), np.arange(LOOKED_AT)] = -np.inf
    best = np.argpartition(-cosines, k, axis=1)[:, :k]
    table = pl.scan_parquet(folder / TABLE).filter(pl.col("item") < LOOKED_AT).collect().sort("item", "rank")
    found = table["neighbour"].to_numpy().reshape(LOOKED_AT, k)
    return float(
        np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), best.tolist(), strict=True)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="15000,31000,62423")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    print(f"{'items':>8} {'seconds':>8} {'cpu s':>8} {'held MB':>8} {'peak MB':>8} {'exact':>7}")
    for n in map(int, asked.sizes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.save(folder / "vectors.npy", clusters(n, asked.dim))
            line, peak = apart(search, folder, asked.k, asked.threads)
            exact = agreed(folder, asked.k)
        print(
            f"{n:>8,} {line.seconds:>8.1f} {line.cpu:>8.1f} {line.held:>8.0f} {peak:>8.0f} {exact:>7.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
