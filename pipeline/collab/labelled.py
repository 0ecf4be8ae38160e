"""Labelled pairs as arrays: what the collaborative baselines learn from, and what they hand back.

    examples -> part_of -> Labelled (user, item, label) -> a model's scores -> as_pairs

Users and items without training rows are *cold*: every baseline says what it gives them, and counts them here.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.stage import Artefact, Draft, Input, Verdict

TRACK = "ctr"
READ = ("part", "row", "user", "item", "label")  # of the examples; histories are most of the file
BLOCK = 65_536  # pairs scored at once
Floats = NDArray[np.float64]


class Labelled(NamedTuple):
    """Rows of one part: dense users (n,), dense items (n,), labels 0 or 1 (n,), all int64."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    label: NDArray[np.int64]


class Known(NamedTuple):
    """Which users (n_users,) and items (n_items,) have training rows."""

    users: NDArray[np.bool_]
    items: NDArray[np.bool_]


def rows_of(split: Artefact) -> pl.DataFrame:
    """The split's examples as baselines read them: part, row, user, item, label."""
    return split.scan("examples").select(READ).collect()


def part_of(examples: pl.DataFrame, part: str) -> Labelled:
    """The rows of one part, in the order of the examples."""
    rows = examples.filter(pl.col("part") == part)
    return Labelled(*(rows[name].cast(pl.Int64).to_numpy() for name in Labelled._fields))


def train_and_valid(examples: pl.DataFrame) -> tuple[Labelled, Labelled]:
    """Training and validation rows. Raises ValueError where there are none to learn from or to choose by."""
    train, valid = part_of(examples, "train"), part_of(examples, "valid")
    if not len(train.label):
        raise ValueError("the split has no training rows; give `train` a larger share of the time")
    if len(np.unique(valid.label)) < 2:
        raise ValueError(
            f"the {len(valid.label)} validation rows do not hold both liked and disliked items, "
            "so no setting can be chosen on them; give `valid` a larger share of the time"
        )
    return train, valid


def known(examples: pl.DataFrame | pl.LazyFrame) -> Known:
    """Users and items with training rows, over all ids up to the largest in targets and histories.

    Histories are looked through a batch at a time, so a scan of them is never whole in memory.
    """
    largest = examples.lazy().select(pl.col("user", "item").max(), shown=pl.col("history").list.max().max())
    user, item, shown = (top(one) for one in largest.collect(engine="streaming").row(0))
    train = examples.lazy().filter(pl.col("part") == "train").select("user", "item").collect()
    return Known(with_rows(train["user"], user + 1), with_rows(train["item"], max(item, shown) + 1))


def with_rows(ids: pl.Series, n: int) -> NDArray[np.bool_]:
    """Which of the ids 0..n-1 are there (n,)."""
    return np.bincount(ids.to_numpy(), minlength=n) > 0


def top(largest: Any) -> int:
    """The largest id, -1 where there is none."""
    return -1 if largest is None else int(largest)


def held_out(examples: pl.DataFrame) -> pl.DataFrame:
    """Validation and test rows, in the order of the examples: what every baseline scores."""
    return examples.filter(pl.col("part") != "train")


def as_pairs(
    examples: pl.DataFrame, method: str, score: Floats, probability: Floats | None, seed: int = 0
) -> pl.DataFrame:
    """Scores (n,) of the held-out rows as a `pairs` table. Raises ValueError for a score that is not finite."""
    rows = held_out(examples)
    if not np.isfinite(score).all():
        raise ValueError(f"{method}: {np.count_nonzero(~np.isfinite(score))} scores are not finite")
    return rows.select(
        pl.lit(TRACK).alias("track"),
        pl.lit(method).alias("method"),
        pl.lit("default").alias("variant"),
        pl.lit(seed, dtype=pl.UInt32).alias("seed"),
        *("part", "row", "user", "item", "label"),
        pl.Series("score", score, dtype=pl.Float64),
        pl.Series("probability", probability, dtype=pl.Float64)
        if probability is not None
        else pl.lit(None, dtype=pl.Float64).alias("probability"),
    )


def inner(users: NDArray[Any], items: NDArray[Any], user: NDArray[Any], item: NDArray[Any]) -> Floats:
    """Inner products (n,) of the rows users[user] and items[item], a block at a time to bound memory."""
    found = np.empty(len(user))
    for start in range(0, len(user), BLOCK):
        rows = slice(start, start + BLOCK)
        found[rows] = np.einsum("nd,nd->n", users[user[rows]].astype(np.float64), items[item[rows]])
    return found


def sigmoid(logit: Floats) -> Floats:
    """P(label = 1) of logits (n,), without overflow."""
    return np.exp(-np.logaddexp(0.0, -logit))


def mean_where_cold(rows: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """Rows (n, d) with the mean of the seen rows in place of those never trained."""
    return np.where(seen[:, None], rows, rows[seen].mean(0, dtype=np.float64)).astype(rows.dtype)


def cold_counts(examples: pl.DataFrame, seen: Known) -> dict[str, int]:
    """How many held-out users, items and test rows have no training rows to go by."""
    rows = held_out(examples)
    test = part_of(examples, "test")
    return {
        "cold_users": int((~seen.users[rows["user"].unique().to_numpy()]).sum()),
        "cold_items": int((~seen.items[rows["item"].unique().to_numpy()]).sum()),
        "test_rows_of_cold_users": int((~seen.users[test.user]).sum()),
        "test_rows_of_cold_items": int((~seen.items[test.item]).sum()),
    }


def every_pair_scored_once(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """Each held-out example is scored exactly once by each method of the stage, and no other row is."""
    split = inputs["split"]
    assert isinstance(split, Artefact)
    wanted = held_out(rows_of(split))["row"].sort()
    pairs = draft.read("pairs")
    wrong = sorted(
        str(method) for (method,), rows in pairs.group_by("method") if not rows["row"].sort().equals(wanted)
    )
    missing = ["every method"] if len(wanted) and not pairs.height else []
    return Verdict(not wrong + missing, ", ".join(wrong + missing), {"held_out_rows": len(wanted)})
