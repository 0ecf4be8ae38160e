"""Figures of short lists that hold several liked items, or none: defined cleanly, and as KAR's code has them.

labels of lists in predicted order -> ndcg_7, map_7 | ndcg_7_as_coded, map_7_as_coded, click_7_as_coded

Clean, as trec_eval: lists without a liked item say nothing and are left out; average precision is divided by
all liked items of the list. As KAR's code (Xi et al., RecSys 2024) computes the paper's figures: such lists
count as 0, so that no order reaches 1; average precision is divided by the liked items among the first K only,
so that a list which hides all others but its first is perfect; and CLICK@K is how many stand among the first K.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CUTS = (1, 3, 5, 7)  # those of the paper's code
Floats = NDArray[np.float64]


def list_figures(lists: Sequence[Sequence[int]]) -> dict[str, float]:
    """Every figure at every cut, as means over lists; NaN where no list counts.

    lists: of each its labels, 1 for a liked item, in predicted order.
    """
    length = max(map(len, lists), default=0)
    labels = np.array([[*own, *[0] * (length - len(own))] for own in lists], float).reshape(len(lists), length)
    liked = labels.sum(1)
    found: dict[str, float] = {}
    for cut in CUTS:
        ndcg, precision, hits = at_cut(labels, cut)
        found |= {
            f"ndcg_{cut}": mean(ndcg[liked > 0]),
            f"map_{cut}": mean((precision / np.maximum(liked, 1))[liked > 0]),
            f"ndcg_{cut}_as_coded": mean(ndcg),
            f"map_{cut}_as_coded": mean(precision / np.maximum(hits, 1)),
            f"click_{cut}_as_coded": mean(hits),
        }
    return found


def at_cut(labels: Floats, cut: int) -> tuple[Floats, Floats, Floats]:
    """Of each list (n,) at one K: NDCG, 0 without a liked item; precisions at hits, summed; hits."""
    first = labels[:, :cut]
    rank = np.arange(1, first.shape[1] + 1)
    gain = first @ (1 / np.log2(1 + rank))
    ideal = -np.sort(-labels, axis=1)[:, :cut] @ (1 / np.log2(1 + rank))
    precision = (first * first.cumsum(1) / rank).sum(1)
    return gain / np.where(ideal > 0, ideal, 1), precision, first.sum(1)


def mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
