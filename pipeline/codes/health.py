"""How good a set of binary codes is as names: who shares one, which bits say something.

All functions take signs (n, width) in {-1, +1}, one row per user or item.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Signs = NDArray[np.int8]
BALANCED = (0.1, 0.9)  # a bit that is set for a share outside says little


class Health(NamedTuple):
    """Figures of one set of codes. Shares are of codes or of bits, distances in bits."""

    codes: int
    distinct: int
    sharing: float
    largest_group: int
    unbalanced_bits: float
    constant_bits: int
    mean_distance: float
    mean_correlation: float


def measure(signs: Signs) -> Health:
    """Everything below at once."""
    groups, balance = group_sizes(signs), bit_balance(signs)
    low, high = BALANCED
    return Health(
        codes=len(signs),
        distinct=len(groups),
        sharing=float(groups[groups > 1].sum() / max(len(signs), 1)),
        largest_group=int(groups.max(initial=0)),
        unbalanced_bits=float(((balance < low) | (balance > high)).mean()),
        constant_bits=int(((balance == 0) | (balance == 1)).sum()),
        mean_distance=mean_distance(balance, len(signs)),
        mean_correlation=mean_correlation(signs),
    )


def group_sizes(signs: Signs) -> NDArray[np.int64]:
    """How many share each distinct code, largest first."""
    packed = np.packbits(signs > 0, axis=1)
    return np.sort(np.unique(packed, axis=0, return_counts=True)[1])[::-1].astype(np.int64)


def bit_balance(signs: Signs) -> NDArray[np.float64]:
    """Share of codes in which each bit is set, (width,); one half where there are no codes."""
    return (signs > 0).mean(0) if len(signs) else np.full(signs.shape[1], 0.5)


def mean_distance(balance: NDArray[np.float64], n: int) -> float:
    """Mean number of bits in which two of n codes differ; follows from the balance, so it is exact."""
    return float(2 * (balance * (1 - balance)).sum() * n / (n - 1)) if n > 1 else 0.0


def mean_correlation(signs: Signs) -> float:
    """Mean absolute correlation between two bits, over bits that are not constant; 0 with fewer than two.

    1 means that all bits say the same, so that the code is worth one bit.
    """
    balance = bit_balance(signs)
    varying = signs[:, (balance > 0) & (balance < 1)].astype(np.int64)
    n, width = varying.shape
    if n < 2 or width < 2:
        return 0.0
    mean = varying.mean(0)
    spread = np.sqrt(1 - mean**2)  # of values in {-1, +1}
    together = varying.T @ varying / n  # integers up to here, so the order of summing changes nothing
    correlation = np.abs((together - np.outer(mean, mean)) / np.outer(spread, spread))
    return float((correlation.sum() - np.trace(correlation)) / (width * (width - 1)))
