"""Items near an item on the graph of who used what: personalised PageRank that starts again at the item.

training pairs -> bipartite graph -> mass of all items, many starts at once -> the nearest items of each

LLM-Rec (Lyu et al., 2024) takes it as its measure of what engages alike. Written out because libraries take one
start a call, and here every item is one: a block of starts is one product of a sparse and a dense matrix.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Sparse = Any  # scipy.sparse.csr_matrix, whose types are not declared
STARTS = 256  # items whose masses are in memory at once
PASSES = 40  # steps from items to users and back; what is still under way then weighs damping**80


def nearest(used: Sparse, count: int, damping: float) -> Ints:
    """The `count` items (n_items, count) of most mass when a walk starts again at each item, most first.

    used: ones (n_users, n_items). An item is no neighbour of itself; -1 where a walk reaches fewer. Of equal
    masses the lower item comes first.
    """
    n_items = used.shape[1]
    found = np.full((n_items, count), -1, dtype=np.int64)
    for start in range(0, n_items, STARTS):
        items = np.arange(start, min(start + STARTS, n_items))
        mass = masses(used, items, damping)
        mass[items, np.arange(len(items))] = 0
        order = np.argsort(-mass.round(12), axis=0, kind="stable")[:count].T
        reached = np.take_along_axis(mass.T, order, axis=1) > 0
        found[items, : order.shape[1]] = np.where(reached, order, -1)
    return found


def masses(used: Sparse, starts: Ints, damping: float) -> Floats:
    """Stationary mass (n_items, starts) of walks that go on with probability `damping` and else start again.

    A walk goes from an item to one of its users and from a user to one of their items, evenly; at an item
    that nobody used it starts again.
    """
    to_users, to_items = columns_to_one(used), columns_to_one(used.T.tocsr())
    again = np.zeros((used.shape[1], len(starts)))
    again[starts, np.arange(len(starts))] = 1 - damping
    mass = again.copy()
    for _ in range(PASSES):
        mass = again + damping * (to_items @ (damping * (to_users @ mass)))
    return mass


def columns_to_one(matrix: Sparse) -> Sparse:
    """The matrix with every column that holds anything divided by its sum."""
    from scipy.sparse import diags

    sums = np.asarray(matrix.sum(0), dtype=np.float64).ravel()
    return matrix @ diags(np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0))
