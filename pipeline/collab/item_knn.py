"""Item neighbours: items that the users of your items also used.

Sarwar et al., WWW 2001, https://doi.org/10.1145/371920.372071; shrinkage as in Koren and Bell's chapter of the
Recommender Systems Handbook.

    train pairs -> cosine of items' user sets, shrunk -> the `neighbours` most similar of each item
    -> score = sum of similarities to the history

similarity(i, j) = users of both / (sqrt(users of i * users of j) + shrink). The similarities are made a block
of items at a time, and only the neighbours of each are kept.

Items that resemble nothing in the history follow by popularity. Cold: a history without items that have
training rows gets the popular items; items without training rows stand behind all others.

Defaults were chosen on validation (leave-last-two, seen masked). MovieLens-100K, neighbours 20, 50, 100, 200,
500 and shrink 0, 10, 50, 200: NDCG@10 from .0608 to .0699, with a standard error of about .006; 500 and 10 have
.0691. Amazon Beauty at 500: .0404 with shrink 0, .0478 with 10: where few users stand behind a similarity,
shrinkage matters.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.collab.events import (
    Floats,
    Sparse,
    Trained,
    cold_queries,
    from_histories,
    share,
    trained,
    user_items,
)
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, write_rankings
from pipeline.schema import Rankings
from pipeline.stage import Artefact, Check, Draft, stage

if TYPE_CHECKING:
    from pipeline.collab.ranked import Scores

BLOCK = 1024  # items whose similarities to all others are in memory at once


class ItemKNNSettings(RankedSettings):
    neighbours: int = Field(500, ge=1, description="similar items that are kept of each item")
    shrink: float = Field(
        10.0, ge=0, description="added to the denominator: similarities that few users support count less"
    )


def similarities(used: Sparse, neighbours: int, shrink: float) -> Sparse:
    """Cosines of the columns of `used` (n_users, n_items), shrunk, (n_items, n_items): column j has the items
    nearest to j, of equal ones the first; the diagonal is 0."""
    from scipy.sparse import vstack

    by_item, size = used.T.tocsr(), np.sqrt(np.asarray(used.sum(0)).ravel())
    rows = []
    for start in range(0, by_item.shape[0], BLOCK):
        both = (by_item[start : start + BLOCK] @ used).tocsr()
        owner = start + np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
        both.data /= size[owner] * size[both.indices] + shrink
        both.data[owner == both.indices] = 0
        rows.append(nearest(both, neighbours))
    return vstack(rows, format="csr").T.tocsr()


def nearest(rows: Sparse, count: int) -> Sparse:
    """The `count` largest entries of each row, those above 0; of equal ones the first."""
    from scipy.sparse import csr_matrix

    rows.sort_indices()
    sizes = np.diff(rows.indptr)
    owner = np.repeat(np.arange(rows.shape[0]), sizes)
    least = np.zeros(rows.shape[0], rows.dtype)  # the last that is kept; a row at a time: no sort is as fast
    for row in np.flatnonzero(sizes > count):
        entries = rows.data[rows.indptr[row] : rows.indptr[row + 1]]
        least[row] = np.partition(entries, len(entries) - count)[len(entries) - count]
    above = rows.data > least[owner]
    equal = (rows.data == least[owner]) & (rows.data > 0)
    before = np.concatenate([[0], np.cumsum(equal)])
    nth = before[1:] - before[rows.indptr[owner]]  # from 1, of the row's equal ones
    kept = above | equal & (nth <= (count - np.bincount(owner[above], minlength=rows.shape[0]))[owner])
    return csr_matrix((rows.data[kept], (owner[kept], rows.indices[kept])), shape=rows.shape)


def alike(rows: Trained, settings: ItemKNNSettings) -> "Scores":
    """Scores: sums of similarities to the items of the history."""
    weights = similarities(user_items(rows), settings.neighbours, settings.shrink)
    fill = share(rows.popularity) - 1

    def weigh(past: Sparse) -> Floats:
        found: NDArray[np.float32] = (past @ weights).toarray()
        return np.where(found > 0, found, fill)

    return from_histories(rows.popularity, rows.known.items, weigh)


def scorer(split: Artefact, fitted: Artefact, settings: ItemKNNSettings) -> "Scores":
    """Counted anew from the split: nothing in it is drawn."""
    return alike(trained(split), settings)


@stage(
    "next_item/item_knn",
    settings=ItemKNNSettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split"},
    tables={"rankings": Rankings},
    checks=(Check(every_query_ranked_once),),
    predicts="rankings",
    scorer=scorer,
)
def item_knn(split: Artefact, settings: ItemKNNSettings, out: Draft) -> None:
    """Order of items by their similarity to what the user used."""
    rows = trained(split)
    write_rankings(out, "item_knn", alike(rows, settings), split, settings)
    out.metric(**cold_queries(split.table("queries"), rows))
