"""Semantic ids as arrays: an item's learnt codes, and a last digit that tells apart those that share them.

    codes (n, levels) -> with_digits -> table semantic_ids -> read_ids -> Ids

Rajput et al., "Recommender Systems with Generative Retrieval" (TIGER), NeurIPS 2023,
https://arxiv.org/abs/2305.05065: the digit is given once, over the whole catalogue, after the codes are learnt.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.stage import Artefact


class Ids(NamedTuple):
    """Ids of all items, in their order.

    items (n,): dense items; codes (n, levels + 1): learnt codes, then the digit; sizes: how many values each
    place may take, so codes[:, l] is in [0, sizes[l]).
    """

    items: NDArray[np.int64]
    codes: NDArray[np.int64]
    sizes: tuple[int, ...]


def read_ids(artefact: Artefact) -> Ids:
    """The ids that a stage `semantic_ids/...` wrote."""
    table, facts = artefact.table("semantic_ids"), artefact.metrics
    sizes = (*[int(facts["codes_a_level"])] * int(facts["levels"]), int(facts["digits"]))
    codes = table["codes"].list.to_array(len(sizes)).to_numpy()
    return Ids(table["item"].to_numpy().astype(np.int64), codes.astype(np.int64), sizes)


def with_digits(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes (n, levels) and their digits (n, levels + 1): 0, 1, 2 ... in item order where items share codes."""
    _, group, holders = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group.ravel(), kind="stable")
    digits = np.empty(len(codes), dtype=np.int64)
    digits[order] = np.arange(len(codes)) - np.repeat(np.cumsum(holders) - holders, holders)
    return np.column_stack([codes, digits])
