"""First-order Markov counts: what most often came right after the last item.

    train sequences -> counts of (last, next) -> order by (count, popularity, item)

Nothing to tune and a second to learn, yet on Amazon Beauty (full ranking, seen items masked) it reaches
R@5/N@5/R@10/N@10 .0513/.0389/.0668/.0439, above the .0454/.0321/.0648/.0384 that TIGER prints (Rajput et al.,
NeurIPS 2023, https://arxiv.org/abs/2305.05065): whoever predicts the next item has to beat it.

Items that never came right after the last one follow by popularity. Cold: a query without a history, or whose
last item has no training rows, gets the popular items; items without training rows stand behind all others.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.collab.events import Sparse, Trained, cold_queries, hidden, share, trained
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, write_rankings
from pipeline.schema import Rankings
from pipeline.stage import Artefact, Check, Draft, stage

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.collab.ranked import Block, Scores


class MarkovSettings(RankedSettings):
    """None of its own: there is nothing to choose."""


def transitions(rows: Trained) -> Sparse:
    """How often an item (row) was followed by another (column) in a user's sequence, (n_items, n_items)."""
    from scipy.sparse import csr_matrix

    same = rows.user[1:] == rows.user[:-1]
    last, following = rows.item[:-1][same], rows.item[1:][same]
    return csr_matrix((np.ones(len(last), np.float32), (last, following)), shape=(rows.n_items, rows.n_items))


def follow(rows: Trained) -> "Scores":
    """Scores: transitions from the last item, plus the item's share of popularity, which is below one."""
    counts, fill, known = transitions(rows), share(rows.popularity), rows.known.items

    def scores(block: "Block") -> "Tensor":
        found = np.tile(fill, (len(block.user), 1))
        begins, ends = block.offsets[:-1].numpy(), block.offsets[1:].numpy()
        some = begins < ends
        found[some] += counts[block.items.numpy()[ends[some] - 1]].toarray()
        return hidden(found, known)

    return scores


def scorer(split: Artefact, fitted: Artefact, settings: MarkovSettings) -> "Scores":
    """Counted anew from the split: nothing in it is drawn."""
    return follow(trained(split))


@stage(
    "next_item/markov",
    settings=MarkovSettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split"},
    tables={"rankings": Rankings},
    checks=(Check(every_query_ranked_once),),
    predicts="rankings",
    scorer=scorer,
)
def markov(split: Artefact, settings: MarkovSettings, out: Draft) -> None:
    """Order of items by how often they came right after the user's last one."""
    rows = trained(split)
    write_rankings(out, "markov", follow(rows), split, settings)
    out.metric(transitions=int(transitions(rows).nnz), **cold_queries(split.table("queries"), rows))
