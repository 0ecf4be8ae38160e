"""How well codes of several levels use their room, whoever made them.

All functions take codes (n, levels) of n items, without the digit that tells apart those that share them.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.codes.clusters import Floats, Ints, means

FEWEST = 5  # items of a category that counts
SHUFFLES = 5  # orders of the items that say what chance tells


class Sharing(NamedTuple):
    """Of n items: different ids over n, share whose id others have too, and how many share the commonest."""

    unique_share: float
    sharing: float
    largest_group: int


def sharing(codes: Ints) -> Sharing:
    """Who shares an id."""
    holders, n = np.unique(codes, axis=0, return_counts=True)[1], max(len(codes), 1)
    shared = holders[holders > 1].sum()
    return Sharing(len(holders) / n, float(shared / n), int(holders.max(initial=0)))


def holders(codes: Ints, k: int) -> list[Ints]:
    """How many items have each of the k codes of each level."""
    return [np.bincount(level, minlength=k) for level in codes.T]


def usage(counts: Ints) -> float:
    """Share of a level's codes that any item has, of their counts (k,)."""
    return float((counts > 0).mean())


def perplexity(counts: NDArray[np.int64]) -> float:
    """As many codes of equal size would be as hard to guess as this level's: from 1 to k."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(share * np.log(share)).sum()))


def variance_left(vectors: Floats, codes: Ints, k: int) -> list[float]:
    """Share of the variance of vectors (n, d) left after each level, where a code stands for the mean of what
    the levels before it leave of its items.

    The same for every maker, whatever its own books. Codes drawn at random leave 1 - (k - 1) / (n - 1) of what
    they find, on average: k means fit a little of anything.
    """
    left, found = vectors - vectors.mean(0), []
    whole = np.square(left, dtype=np.float64).sum()
    for level in codes.T:
        left = left - means(left, level, k, np.zeros((k, left.shape[1]), np.float32))[level]
        found.append(float(np.square(left, dtype=np.float64).sum() / whole) if whole else 0.0)
    return found


def category_flags(categories: pl.Series) -> NDArray[np.bool_]:
    """Which items have each category (n, c), of their lists of names (n,); rare ones do not count."""
    rows = pl.DataFrame({"row": np.arange(len(categories)), "name": categories}).explode("name").drop_nulls()
    often = rows.unique().filter(pl.len().over("name").is_between(FEWEST, len(categories) - 1))
    names = often["name"].unique().sort()
    flags = np.zeros((len(categories), len(names)), dtype=bool)
    flags[often["row"].to_numpy(), names.search_sorted(often["name"]).to_numpy()] = True
    return flags


def category_information(level: Ints, k: int, flags: NDArray[np.bool_]) -> float:
    """Share of what there is to know of the items' categories (n, c) that a level's codes (n,) tell.

    Mutual information of code and category over the category's entropy, both summed over categories; less the
    same of items in random order, as many codes tell something of anything. 0 where there are no categories.
    """
    whole = entropy(flags.mean(0)).sum() if flags.size else 0.0
    if not whole:
        return 0.0
    rng = np.random.default_rng(0)
    chance = [told(level, k, flags[rng.permutation(len(flags))]) for _ in range(SHUFFLES)]
    return float((told(level, k, flags) - np.mean(chance)) / whole)


def told(level: Ints, k: int, flags: NDArray[np.bool_]) -> float:
    """Mutual information of codes (n,) and flags (n, c) in nats, summed over the flags."""
    counts = np.bincount(level, minlength=k)
    held = np.zeros((k, flags.shape[1]))
    np.add.at(held, level, flags)
    rest = (counts / len(level)) @ entropy(held / np.maximum(counts, 1)[:, None])
    return float((entropy(flags.mean(0)) - rest).sum())


def entropy(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in nats of being true with these chances."""
    inside = np.clip(share, 1e-300, 1 - 1e-16)
    return -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside))


def neighbours_in_order(ids: Ints, first: Ints, second: Ints) -> tuple[int, int]:
    """Of steps from an item to another (rows of ids, both (m,)): how many go to the next id, how many one back.

    ids (n, levels + 1), in the order of their codes. Numbers given along users' histories, as in P5's data,
    make the next item the next number and seldom the one before; items that are alike are near both ways.
    """
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.lexsort(ids.T[::-1])] = np.arange(len(ids))
    step = rank[second] - rank[first]
    return int((step == 1).sum()), int((step == -1).sum())
