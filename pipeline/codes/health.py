"""How good a set of binary codes is as names: who shares one, which bits say something.

All functions take signs (n, width) in {-1, +1}, one row per user or item. In most catalogues many
items are rare and a few are in most rows; a prompt meets an item as often as rows do, so rows are counted too.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Signs = NDArray[np.int8]
BALANCED = (0.1, 0.9)  # a bit that is set for a share outside says little


class Health(NamedTuple):
    """Figures of one set of codes. Shares are of codes or of bits, distances in bits.

    sharing_rows: share of rows whose code others have too; unbalanced_rows: share of bits that are set in too
    few or too many rows.
    """

    codes: int
    distinct: int
    sharing: float
    sharing_rows: float
    largest_group: int
    unbalanced_bits: float
    unbalanced_rows: float
    constant_bits: int
    mean_distance: float
    mean_correlation: float


def measure(signs: Signs, rows: NDArray[np.int64]) -> Health:
    """Everything below at once; rows (n,): training rows of each user or item."""
    groups, balance = group_sizes(signs), bit_balance(signs)
    return Health(
        codes=len(signs),
        distinct=len(groups),
        sharing=float(groups[groups > 1].sum() / max(len(signs), 1)),
        sharing_rows=float(rows[shared(signs)].sum() / max(rows.sum(), 1)),
        largest_group=int(groups.max(initial=0)),
        unbalanced_bits=unbalanced(balance),
        unbalanced_rows=unbalanced(row_balance(signs, rows)),
        constant_bits=int(((balance == 0) | (balance == 1)).sum()),
        mean_distance=mean_distance(balance, len(signs)),
        mean_correlation=mean_correlation(signs),
    )


def group_sizes(signs: Signs) -> NDArray[np.int64]:
    """How many share each distinct code, largest first."""
    packed = np.packbits(signs > 0, axis=1)
    return np.sort(np.unique(packed, axis=0, return_counts=True)[1])[::-1].astype(np.int64)


def shared(signs: Signs) -> NDArray[np.bool_]:
    """Which codes (n,) are not theirs alone."""
    packed = np.packbits(signs > 0, axis=1)
    _, place, holders = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    return holders[place.ravel()] > 1


def unbalanced(balance: NDArray[np.float64]) -> float:
    """Share of bits (width,) that are set too rarely or too often to say much."""
    low, high = BALANCED
    return float(((balance < low) | (balance > high)).mean())


def bit_balance(signs: Signs) -> NDArray[np.float64]:
    """Share of codes in which each bit is set, (width,); one half where there are no codes."""
    return (signs > 0).mean(0) if len(signs) else np.full(signs.shape[1], 0.5)


def row_balance(signs: Signs, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of rows in which each bit is set, (width,); one half where there are none."""
    total = rows.sum()
    return rows @ (signs > 0) / total if total else np.full(signs.shape[1], 0.5)


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
