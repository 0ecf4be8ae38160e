"""Small queries and orders of the next_item track, and a plain way to rank that needs no clever code."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from pipeline.schema import Catalogue, Queries, Rankings, empty

ROW = ("part", "user", "rank", "item", "score", "target")


def queries(rows: Sequence[tuple[str, int, Sequence[int], Sequence[int]]]) -> pl.DataFrame:
    """A table of (part, user, history, targets)."""
    frame = pl.DataFrame(
        [(part, user, 0, list(history), list(targets)) for part, user, history, targets in rows],
        schema=empty(Queries).schema,
        orient="row",
    )
    return Queries.validate(frame)


def catalogue(train_rows: Sequence[int]) -> pl.DataFrame:
    """A table of items 0, 1, 2 ... with so many training rows."""
    warm = np.cumsum([rows > 0 for rows in train_rows]) - 1
    places = [int(place) if rows else None for place, rows in zip(warm, train_rows, strict=True)]
    frame = {"item": range(len(train_rows)), "place": places, "train_rows": list(train_rows)}
    return Catalogue.validate(pl.DataFrame(frame), cast=True)


def drawn(random: np.random.Generator, users: int, items: int, most_targets: int = 3) -> pl.DataFrame:
    """Test queries of users with random histories and one to `most_targets` targets, seen ones among them."""

    def some(least: int, most: int) -> list[int]:
        size = int(random.integers(least, min(most, items) + 1))
        return random.choice(items, size, replace=False).tolist()

    return queries([("test", user, some(0, items // 2), some(1, most_targets)) for user in range(users)])


def plain_order(scores: np.ndarray, asked: pl.DataFrame, masked: bool, top: int) -> pl.DataFrame:
    """What `ranked.order` must give, by a stable sort of each user's scores (users, items), one at a time."""
    rows = []
    for query, score in zip(asked.to_dicts(), scores.astype(np.float64), strict=True):
        held = score.copy()
        held[query["history"] if masked else []] = -np.inf
        for rank, item in enumerate(np.argsort(-held, kind="stable"), 1):
            if rank <= top or item in query["targets"]:
                value = None if held[item] == -np.inf else float(held[item])
                rows.append((query["part"], query["user"], rank, int(item), value, item in query["targets"]))
    return pl.DataFrame(rows, schema=empty(Rankings).select(ROW).schema, orient="row")


def named(orders: pl.DataFrame, method: str, **more: Any) -> pl.DataFrame:
    """Orders as a table `rankings` of one run."""
    facts = {"track": "next_item", "method": method, "variant": "default", "seed": 0, **more}
    frame = orders.with_columns(pl.lit(value).alias(name) for name, value in facts.items())
    return frame.select(empty(Rankings).columns).cast(dict(empty(Rankings).schema))
