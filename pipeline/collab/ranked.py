"""Orders of the whole catalogue: what every model of the tracks next_item and cold_item hands back.

    queries -> blocks of users -> a model's scores (n, items) -> seen items masked -> first places and targets

No matrix of all users and all items is ever in memory: a block of users is. Equal scores stand in order of
item, so an order never depends on a block's size or on the device. An item that a model cannot score (cold,
or masked because it was seen) stands behind all others, in order of item.

A stage of either track ends in `write_rankings`, takes its settings from `RankedSettings` and has the check
`every_query_ranked_once`. Nothing here imports torch before an order is made, so stages load fast.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.evaluate.pointwise import one, refusal
from pipeline.evaluate.ranking import CUTS, faults, mean_of
from pipeline.schema import Rankings, empty
from pipeline.stage import Artefact, Draft, Input, Settings, Verdict

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
TOP = 100  # first places that are kept of each order
CELLS = 1 << 21  # scores in memory at once (8 MB): the passes over them stay in the processor's cache
LEAST_GROUP = 4  # items: smaller groups cost more than they save


class Block(NamedTuple):
    """Some queries: users (n,) int64; their histories one after another, items (m,) int64, oldest first,
    with offsets (n + 1,) int64 saying where each begins."""

    user: "Tensor"
    items: "Tensor"
    offsets: "Tensor"


Scores = Callable[[Block], "Tensor"]  # block -> (n, items) float32, -inf where an item cannot be scored


class RankedSettings(Settings):
    """What all models of the track let a study choose."""

    seen_kept: bool = Field(
        False, description="also write the orders with seen items left in, as the variant seen_kept"
    )
    top: int = Field(TOP, ge=max(CUTS), description="first places that are kept of each user's order")


def blocks(queries: pl.DataFrame, size: int) -> Iterator[tuple[pl.DataFrame, Block]]:
    """The queries in slices of at most `size`, with their arrays."""
    import torch

    for rows in queries.iter_slices(size):
        owner, items = flat(rows["history"])
        lengths = np.bincount(owner, minlength=rows.height)
        arrays = (rows["user"].to_numpy().astype(np.int64), items, np.r_[0, np.cumsum(lengths)])
        yield rows, Block(*(torch.from_numpy(array) for array in arrays))


def flat(lists: pl.Series) -> tuple[Array, Array]:
    """Row (m,) and value (m,) of all that lists of items hold, int64."""
    owner = np.repeat(np.arange(len(lists)), lists.list.len().to_numpy())
    return owner, lists.explode(empty_as_null=False).to_numpy().astype(np.int64)


def order(
    scores: Scores, queries: pl.DataFrame, n_items: int, *, masked: bool = True, top: int = TOP
) -> pl.DataFrame:
    """Columns part, user, rank, item, score, target: each query's first `top` items and all its targets.

    queries: as the table `queries`; masked: items of the history stand behind all others; a `top` of 0 gives
    the targets only, which is fast. Sorted by part, user, rank. Raises FloatingPointError for a score of NaN.
    """
    found = [
        ordered(scores(block), block, rows, masked, top)
        for rows, block in blocks(queries, max(1, CELLS // n_items))
    ]
    return pl.concat([NOTHING, *found]).sort("part", "user", "rank")


NOTHING = empty(Rankings).select("part", "user", "rank", "item", "score", "target")


def ordered(found: "Tensor", block: Block, rows: pl.DataFrame, masked: bool, top: int) -> pl.DataFrame:
    """`order` of one block, from its scores (n, items); rows are not yet sorted."""
    import torch

    found = found.float()
    if found.numel() and found.max().isnan():
        raise FloatingPointError("a score is not a number")
    if masked:
        found = without_seen(found, block)
    score, item = (held.cpu().numpy() for held in first(found, min(top, found.shape[1])))
    owner, target = sorted_pairs(*flat(rows["targets"]))
    placed = places(found, torch.from_numpy(owner), torch.from_numpy(target))
    rank, own = (held.cpu().numpy() for held in placed)
    inside = rank <= item.shape[1]
    wanted = np.zeros(item.shape, dtype=np.bool_)
    wanted[owner[inside], rank[inside] - 1] = True
    n, kept = item.shape
    listed = framed(rows, np.repeat(np.arange(n), kept), np.tile(np.arange(kept) + 1, n), item, score, wanted)
    below = (part[~inside] for part in (owner, rank, target, own, np.ones(len(rank), dtype=np.bool_)))
    return pl.concat([listed, framed(rows, *below)])


def framed(
    rows: pl.DataFrame, query: Array, rank: Array, item: Array, score: Array, target: Array
) -> pl.DataFrame:
    """Arrays of one length, `query` a place among the rows, as the columns of `order`."""
    return pl.DataFrame(
        {
            "part": rows["part"].gather(query),
            "user": rows["user"].gather(query),
            "rank": rank.astype(np.uint32),
            "item": item.ravel().astype(np.uint32),
            "score": pl.Series(score.ravel().astype(np.float64)).replace(-np.inf, None),
            "target": target.ravel(),
        }
    )


def sorted_pairs(owner: Array, item: Array) -> tuple[Array, Array]:
    """Pairs (m,), each once, by owner and item."""
    pairs = np.unique(np.stack([owner, item], axis=1), axis=0)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def without_seen(found: "Tensor", block: Block) -> "Tensor":
    """Scores (n, items), -inf for the items of each user's history; the model's own tensor is left alone."""
    import torch

    owner = torch.repeat_interleave(torch.arange(len(block.user)), block.offsets.diff())
    nothing = torch.tensor(-torch.inf, device=found.device)
    return found.index_put((owner.to(found.device), block.items.to(found.device)), nothing)


def first(found: "Tensor", top: int) -> tuple["Tensor", "Tensor"]:
    """Scores and items (n, top) of the first places of scores (n, items): a stable sort's, without the sort.

    Which of equal scores torch's selection takes is left to the device. So the selected are put in order of
    item where equal, and rows with equal scores on both sides of the cut are selected again by unique keys.
    """

    if not top:
        return found[:, :0], found[:, :0].long()
    if top >= found.shape[1]:
        held, items = found.sort(dim=1, descending=True, stable=True)
        return held, items
    held, items = largest(found, top + 1)
    again = (held[:, top - 1] == held[:, top]).nonzero()[:, 0]
    items[again, :top] = keys(found[again]).topk(top, dim=1).indices
    items = items[:, :top].sort(dim=1).values
    held, place = found.gather(1, items).sort(dim=1, descending=True, stable=True)
    return held, items.gather(1, place)


def largest(found: "Tensor", count: int) -> tuple["Tensor", "Tensor"]:
    """The `count` largest scores of each row (n, items), falling, and items that have them: `topk`, sooner.

    Items stand in groups, and the largest scores are in the groups of the largest maxima: only these are
    searched. With ties at the end an item may be another one than `topk` would name; the scores are the same.
    """
    import torch

    width = found.shape[1]
    groups = int((count * width) ** 0.5)  # as many maxima to search as scores in the groups that win
    size = width // groups
    if size < LEAST_GROUP:
        return found.topk(count, dim=1)
    rest = torch.arange(groups * size, width, device=found.device)  # what fills no group is searched too
    maxima = found[:, : groups * size].unflatten(1, (size, groups)).amax(1)
    winners = maxima.topk(count, dim=1, sorted=False).indices
    steps = groups * torch.arange(size, device=found.device)
    items = torch.cat([(winners[:, None] + steps[:, None]).flatten(1), rest.expand(len(found), -1)], 1)
    held, place = found.gather(1, items).topk(count, dim=1)
    return held, items.gather(1, place)


def keys(found: "Tensor") -> "Tensor":
    """Unique whole numbers (n, items) in the order of scores (n, items) float32; of equal scores the first
    item's is the largest."""
    import torch

    bits = (found + 0.0).view(torch.int32).long()  # adding zero makes -0.0 the same as 0.0
    level = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return level * 2**32 - torch.arange(found.shape[1], device=found.device)


def places(found: "Tensor", owner: "Tensor", item: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Ranks from 1 and scores (m,) of items (m,) in rows `owner` (m,) of scores (n, items), by counting.

    Pairs are taken as many at a time as there are rows, which bounds the memory.
    """
    import torch

    n, width = found.shape
    owner, item = owner.to(found.device), item.to(found.device)
    every = torch.arange(width, device=found.device, dtype=torch.int32)  # half the memory to pass over
    score, rank = found[owner, item], torch.empty_like(item)
    for part in torch.arange(len(item), device=found.device).split(max(1, n)):
        whole = len(part) == n and torch.equal(owner[part], torch.arange(n, device=found.device))
        line, own = found if whole else found[owner[part]], score[part, None]
        ahead = counted(torch.gt, line, own)
        tied = (counted(torch.ge, line, own) - ahead > 1).nonzero()[:, 0]
        before = (line[tied] == own[tied]) & (every < item[part][tied, None].int())
        ahead[tied] += before.sum(1)
        rank[part] = ahead + 1
    return rank, score


def counted(compare: Callable[..., "Tensor"], line: "Tensor", own: "Tensor") -> "Tensor":
    """In how many columns (n,) lines (n, items) compare so with `own` (n, 1).

    Summed as float32, which is exact below 16 million items and ten times faster than summing truth values.
    """
    import torch

    return compare(line, own, out=torch.empty_like(line)).sum(1).long()


def valid_ndcg_10(scores: Scores, queries: pl.DataFrame, n_items: int) -> float:
    """Mean NDCG@10 of the validation queries, seen items masked: what models stop early and choose by."""
    return mean_of(order(scores, queries.filter(part="valid"), n_items, top=0), "ndcg_10")


def write_rankings(
    out: Draft,
    method: str,
    scores: Scores,
    split: Artefact,
    settings: RankedSettings,
    more: Mapping[str, Scores] = MappingProxyType({}),
) -> None:
    """Rank all queries of the split and write table `rankings`, validation NDCG@10 and counts of lost targets.

    Variants: the stage's own, seen items masked, `seen_kept` (of a method `VARIANT_seen_kept`) where the
    settings ask for it, and `more`, by name, as the first.
    """
    queries, catalogue = split.table("queries"), split.table("catalogue")
    own, kept = out.variant, "seen_kept" if out.variant == "default" else f"{out.variant}_seen_kept"
    found = {
        variant: order(scores, queries, catalogue.height, masked=variant == own, top=settings.top)
        for variant in (own, *([kept] if settings.seen_kept else []))
    }
    found |= {
        variant: order(other, queries, catalogue.height, top=settings.top) for variant, other in more.items()
    }
    named = [
        rows.select(
            pl.lit(out.stage.track).alias("track"),
            pl.lit(method).alias("method"),
            pl.lit(variant).alias("variant"),
            pl.lit(out.seed, dtype=pl.UInt32).alias("seed"),
            pl.all(),
        )
        for variant, rows in found.items()
    ]
    out.table("rankings", pl.concat(named))
    out.metric(
        valid_ndcg_10=mean_of(found[own].filter(part="valid"), "ndcg_10"),
        **lost_targets(queries, catalogue),
    )


def lost_targets(queries: pl.DataFrame, catalogue: pl.DataFrame) -> dict[str, int]:
    """Items without training rows, and test targets that no model can find: seen before, or such an item."""
    cold = catalogue.filter(pl.col("train_rows") == 0)["item"]
    test = queries.filter(part="test")
    targets = test.select("history", item="targets").explode("item", empty_as_null=False)
    return {
        "cold_items": len(cold),
        "test_targets": targets.height,
        "test_targets_seen": targets.filter(pl.col("history").list.contains(pl.col("item"))).height,
        "test_targets_cold": targets.filter(pl.col("item").is_in(cold.implode())).height,
        "test_users_without_history": test.filter(pl.col("history").list.len() == 0).height,
    }


def pair_scores(scores: Scores, queries: pl.DataFrame, pairs: pl.DataFrame, n_items: int) -> pl.DataFrame:
    """The pairs (part, user, item, ...) with a column `score`, in their order; null where the model has none.

    Nothing is masked. Raises ValueError for a pair whose part and user are no query.
    """
    import torch

    key = ("part", "user")
    asked = queries.join(pairs.select(key).unique(), on=key, how="semi", maintain_order="left")
    numbered = pairs.with_row_index("place").join(
        asked.select("part", "user").with_row_index("query"), on=("part", "user"), how="left"
    )
    if numbered["query"].null_count():
        raise ValueError(f"{numbered['query'].null_count()} pairs belong to no query")
    found = np.empty(pairs.height)
    numbered = numbered.sort("query", maintain_order=True)
    query, item, place = (numbered[name].to_numpy().astype(np.int64) for name in ("query", "item", "place"))
    start = 0
    for rows, block in blocks(asked, max(1, CELLS // n_items)):
        own = slice(*np.searchsorted(query, [start, start + rows.height]))
        held = scores(block)
        at = (torch.from_numpy(query[own] - start).to(held.device), torch.from_numpy(item[own]).to(held.device))
        found[place[own]] = held[at].float().cpu().numpy()
        start += rows.height
    return pairs.with_columns(score=pl.Series(found).replace(-np.inf, None))


def every_query_ranked_once(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Each query is ranked once, in order, without a gap or a doubled item, and with its own targets marked."""
    queries = one(inputs["split"]).table("queries")
    rows = draft.read("rankings")
    broken = [
        f"{variant}: {count} {kind}"
        for (variant,), own in rows.partition_by("variant", as_dict=True, maintain_order=True).items()
        for kind, count in faults(own, queries).items()
    ]
    if queries.height and not rows.height:
        broken.append("nothing is ranked")
    return refusal(broken, rows.height)
