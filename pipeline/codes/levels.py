"""How well codes of several levels use their room, whoever made them.

All functions take codes (n, levels) of n items, without the digit that tells apart those that share them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.codes.clusters import Ints


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
