"""How long a whole evaluation of a catalogue takes, and whether its memory depends on the number of users.

    python -m benchmarks.ranking [--users 6034] [--items 3124] [--width 64] [--repeats 5]

Vectors and histories are random. Timed: scores of all items for all users by an inner product, seen items
masked, the first 20 places, the targets' places, and every user's HR, NDCG, MRR, MAP, precision and recall.
Memory is the largest growth of the process meanwhile, with as many users and with four times as many.
"""

import argparse
import time

import numpy as np
import polars as pl
import torch

from pipeline.collab.ranked import Block, order
from pipeline.collab.reranked import orders
from pipeline.evaluate.ranking import figures
from pipeline.schema import Queries, empty
from pipeline.stage import watch

TOP, HISTORY = 20, 160


def asked(random: np.random.Generator, users: int, items: int) -> pl.DataFrame:
    """One test query of each user, with a history of random length and one target outside it."""
    lengths = random.integers(20, 2 * HISTORY, users)
    taken = [random.permutation(items)[: n + 1] for n in lengths]
    frame = {
        "part": "test",
        "user": np.arange(users),
        "at": 0,
        "history": [row[:-1].tolist() for row in taken],
        "targets": [row[-1:].tolist() for row in taken],
    }
    return pl.DataFrame(frame).cast(dict(empty(Queries).schema))


def evaluate(users: torch.Tensor, items: torch.Tensor, queries: pl.DataFrame) -> pl.DataFrame:
    """Every user's figures from vectors (users, d) and (items, d)."""

    def scores(block: Block) -> torch.Tensor:
        return users[block.user] @ items.T

    return figures(order(scores, queries, len(items), top=TOP))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("users", 6034), ("items", 3124), ("width", 64), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given, random = parser.parse_args(), np.random.default_rng(1)
    items = torch.from_numpy(random.normal(size=(given.items, given.width)).astype(np.float32))
    print(f"{given.items:,} items, {given.width} numbers a vector, {torch.get_num_threads()} threads")
    for users in (given.users, 4 * given.users):
        vectors = torch.from_numpy(random.normal(size=(users, given.width)).astype(np.float32))
        queries, taken = asked(random, users, given.items), []
        evaluate(vectors, items, queries.head(500))  # the first call of a library is not what is measured
        with watch(orders) as before:
            time.sleep(0.1)
        with watch(orders) as measured:
            for _ in range(given.repeats):
                started = time.perf_counter()
                found = evaluate(vectors, items, queries)
                taken.append(time.perf_counter() - started)
        growth = measured["peak_memory_mb"] - before["peak_memory_mb"]
        print(
            f"{users:>7,} users: best {min(taken):.3f} s, median {np.median(taken):.3f} s, "
            f"+{growth:.0f} MB at most; NDCG@10 {found['ndcg_10'].mean():.4f}"
        )


if __name__ == "__main__":
    main()
