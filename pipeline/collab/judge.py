"""NDCG@10 of a model on validation queries, without sorting the catalogue: what fits and searches choose by.

    queries + scores -> place of each target = items above it -> gains -> mean over queries

Seen items are masked and equal scores stand in order of item, as in `pipeline.collab.ranked`. A target that
cannot be scored, or was seen, gains nothing.
"""

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline.collab.ranked import Block, Scores, blocks

CELLS = 1 << 22  # scores in memory at once
AT = 10


def ndcg(scores: Scores, queries: pl.DataFrame, n_items: int) -> float:
    """Mean NDCG@10 of the queries (rows of the table `queries`); 0 where there are none."""
    gains = [
        block_gains(scores(block), block, rows["targets"]) for rows, block in blocks(queries, CELLS // n_items + 1)
    ]
    return float(torch.cat(gains).mean()) if gains else 0.0


def block_gains(found: Tensor, block: Block, targets: pl.Series) -> Tensor:
    """NDCG@10 (n,) of a block's queries from their scores (n, n_items)."""
    n, lengths = len(found), torch.from_numpy(targets.list.len().to_numpy().astype(np.int64))
    owner = torch.repeat_interleave(torch.arange(n), block.offsets.diff())
    found = found.index_put((owner, block.items), torch.tensor(-torch.inf))
    asked = torch.repeat_interleave(torch.arange(n), lengths)
    wanted = torch.from_numpy(targets.explode(empty_as_null=False).to_numpy().astype(np.int64))
    discount = 1 / torch.arange(2, AT + 2, dtype=torch.float64).log2()
    gain = torch.zeros(n, dtype=torch.float64)
    place = places(found, asked, wanted)
    inside = place < AT
    gain.index_add_(0, asked[inside], discount[place[inside]])
    ideal = torch.cat([torch.zeros(1, dtype=torch.float64), discount.cumsum(0)])
    return gain / ideal[lengths.clamp(max=AT)]


def places(found: Tensor, asked: Tensor, wanted: Tensor) -> Tensor:
    """How many items stand before each target (m,) of the query `asked` (m,); all, for one without a score."""
    rows = found[asked]
    score = rows.gather(1, wanted[:, None])
    above = (rows > score).sum(1)
    equal = ((rows == score) & (torch.arange(rows.shape[1]) < wanted[:, None])).sum(1)
    return torch.where(score[:, 0].isfinite(), above + equal, rows.shape[1])
