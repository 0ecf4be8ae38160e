"""The track `rerank`: short lists with one item to be found, stored so that every method orders the same ones.

    queries -> the first target of each + items the user never used -> target's place by seed -> candidates

Never used: neither before nor after, in no part, and not by an interaction that the split's filters left out.
Others are drawn evenly from the items with events; where items are split apart, from those of the query's
part, since a known item among unknown ones would tell itself apart. A draw hangs on seed, part, user and its
own number alone: a longer list holds the items of a shorter one. A study may ask for the lists of a sample of
users; more users leave the lists of fewer as they were.
"""

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.data.histories import slices
from pipeline.data.negatives import mixed
from pipeline.schema import PARTS, Candidates
from pipeline.stage import Check, Draft, Settings, Verdict, stage
from pipeline.store import Artefact

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANDOM = {"random_20": 20, "random_10": 10}  # lists of random items: name and length, the target among them
DRAWS = 32  # of one query at once
ROUNDS = 8  # of draws, before a user is taken to have used nearly everything
QUERIES_AT_ONCE = 50_000  # bounds memory


class CandidatesSettings(Settings):
    seed: int = Field(
        default=1, ge=0, description="of the users and items drawn and of the target's place in each list"
    )
    users: int | None = Field(
        default=None,
        ge=1,
        description="how many users have lists, drawn by seed, so that a method to which a list is dear can "
        "order those that all others order; null for all",
    )


# --- what was used -----------------------------------------------------------------------------------------


class Used:
    """Which user used which item, ever. interactions: frame with user and item."""

    def __init__(self, interactions: pl.DataFrame) -> None:
        self.keys = np.unique(self.key(interactions))

    @staticmethod
    def key(rows: pl.DataFrame) -> "NDArray[np.int64]":
        """User and item as one number (rows,)."""
        return (rows["user"].to_numpy().astype(np.int64) << 32) | rows["item"].to_numpy()

    def holds(self, rows: pl.DataFrame) -> pl.Series:
        """True where the user of a row used its item (rows,)."""
        key = self.key(rows)
        place = np.minimum(np.searchsorted(self.keys, key), self.keys.size - 1)
        return pl.Series("used", self.keys[place] == key)


def asked(queries: pl.DataFrame) -> pl.DataFrame:
    """Columns part, user, target: the first target of each query."""
    return queries.select("part", "user", target=pl.col("targets").list.first())


def sampled(queries: pl.DataFrame, users: int | None, seed: int) -> pl.DataFrame:
    """The queries of so many users, drawn by a hash of the user; all for None. Every part of a user or none."""
    if users is None:
        return queries
    ids = queries.select(pl.col("user").unique().sort())
    salt = np.full(ids.height, zlib.crc32(b"users"))
    ids = ids.with_columns(place=pl.Series(mixed(seed, ids["user"].to_numpy(), salt)))
    drawn = ids.sort("place", "user").head(users)
    return queries.join(drawn, on="user", how="semi", maintain_order="left")


def pools(events: pl.DataFrame, kind: str) -> dict[str, "NDArray[np.uint32]"]:
    """The items to draw from for the queries of each part, in order."""
    if kind != "cold_item":
        items = events["item"].unique().sort().to_numpy()
        return dict.fromkeys(PARTS[1:], items)
    return {part: events.filter(part=part)["item"].unique().sort().to_numpy() for part in PARTS[1:]}


# --- random lists ------------------------------------------------------------------------------------------


def random_list(
    name: str,
    queries: pl.DataFrame,
    used: Used,
    pools: Mapping[str, "NDArray[np.uint32]"],
    seed: int,
) -> pl.DataFrame:
    """Table `candidates` of one list: the target and items drawn from its part's pool that the user never used.

    A user who used nearly everything gets a shorter list.
    """
    found = [
        random_others(rows, used, pools[part], RANDOM[name] - 1, seed)
        for part in PARTS[1:]
        for rows in pieces(asked(queries).filter(pl.col("part") == part))
    ]
    return placed(name, asked(queries), pl.concat(found), seed)


def pieces(rows: pl.DataFrame) -> list[pl.DataFrame]:
    return [rows[cut] for cut in slices(rows.height, QUERIES_AT_ONCE)]


def random_others(
    rows: pl.DataFrame, used: Used, pool: "NDArray[np.uint32]", count: int, seed: int
) -> pl.DataFrame:
    """Columns part, user, nth, item: for each row (part, user) of one part, up to `count` unused items."""
    found = pl.DataFrame(schema={"part": pl.String, "user": pl.UInt32, "draw": pl.Int64, "item": pl.UInt32})
    open_rows = rows.select("part", "user")
    for start in range(0, ROUNDS * DRAWS, DRAWS):
        more = draw(open_rows, pool, start, seed)
        found = fresh(pl.concat([found, more.filter(~used.holds(more))]), count)
        open_rows = lacking(rows, found, count)
        if open_rows.is_empty():
            break
    else:
        last = [whole(part, user, pool, seed) for part, user in open_rows.iter_rows()]
        more = pl.concat(last) if last else found.clear()
        found = fresh(pl.concat([found, more.filter(~used.holds(more))]), count)
    return found.select("part", "user", "item", nth=pl.int_range(pl.len()).over("user"))


def draw(rows: pl.DataFrame, pool: "NDArray[np.uint32]", start: int, seed: int) -> pl.DataFrame:
    """Columns part, user, draw, item: `DRAWS` items of the pool for each row, numbered from `start`."""
    asked = rows.select(pl.all().repeat_by(DRAWS).explode())
    number = np.tile(np.arange(start, start + DRAWS), rows.height)
    place = mixed(seed, part_number(asked), asked["user"].to_numpy(), number) % np.uint64(pool.size)
    return asked.with_columns(draw=pl.Series(number), item=pl.Series(pool[place.astype(np.int64)]))


def part_number(rows: pl.DataFrame) -> "NDArray[np.int64]":
    """The parts of rows as numbers (rows,)."""
    return rows["part"].replace_strict({part: n for n, part in enumerate(PARTS)}).to_numpy()


def whole(part: str, user: int, pool: "NDArray[np.uint32]", seed: int) -> pl.DataFrame:
    """The whole pool as draws of one user, in order of a hash: for a user who used nearly everything."""
    rows = pl.DataFrame({"item": pool}).with_columns(part=pl.lit(part), user=pl.lit(user, dtype=pl.UInt32))
    order = mixed(seed, part_number(rows), rows["user"].to_numpy(), pool, np.full(pool.size, -1))
    after = order.argsort(kind="stable").argsort() + ROUNDS * DRAWS
    return rows.select("part", "user", pl.Series("draw", after), "item")


def fresh(draws: pl.DataFrame, count: int) -> pl.DataFrame:
    """The first `count` different items of each user, in order of draw."""
    first = draws.sort("user", "draw").unique(["user", "item"], keep="first", maintain_order=True)
    return first.group_by("user", maintain_order=True).head(count).select(draws.columns)


def lacking(rows: pl.DataFrame, found: pl.DataFrame, count: int) -> pl.DataFrame:
    """The rows (part, user) for which fewer than `count` items were found."""
    full = found.group_by("user").len().filter(pl.col("len") == count)
    return rows.join(full, on="user", how="anti", maintain_order="left").select("part", "user")


# --- a retriever's list ------------------------------------------------------------------------------------


def retrieved_list(
    rankings: pl.DataFrame, queries: pl.DataFrame, used: Used, seed: int, size: int = 50
) -> pl.DataFrame:
    """Table `candidates` of the list `retrieved_<size>`: a retriever's first items that the user never used.

    rankings: as the table, of one method, variant and seed, at least `size` places deep. The target is always
    in the list, also where the retriever has not found it (its rank is in `rankings`). The others stand in
    the retriever's order. Raises ValueError for rankings of several retrievers, or of other queries.
    """
    if rankings.select("method", "variant", "seed").n_unique() != 1:
        raise ValueError("candidates are retrieved by one method, variant and seed")
    rows = asked(queries)
    strangers = rows.join(rankings, on=["part", "user"], how="anti").height
    if strangers:
        raise ValueError(f"{strangers:,} queries have no ranking")
    found = rankings.drop("target").join(rows, on=["part", "user"], how="inner")
    found = found.filter(~used.holds(found) & pl.col("score").is_not_null())
    found = found.filter(pl.col("item") != pl.col("target")).sort("part", "user", "rank")
    found = found.with_columns(nth=pl.int_range(pl.len()).over("part", "user"))
    others = found.filter(pl.col("nth") < size - 1).select("part", "user", "item", "nth")
    return placed(f"retrieved_{size}", rows, others, seed)


# --- places ------------------------------------------------------------------------------------------------


def placed(name: str, rows: pl.DataFrame, others: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Table `candidates` of one list: each row's target (part, user, target) put among its others.

    others: part, user, item, nth from 0. The target's place is drawn evenly; the others keep their order.
    """
    keys = ["part", "user"]
    rows = rows.join(others.group_by(keys).len("others"), on=keys, how="left", maintain_order="left")
    length = rows["others"].fill_null(0).to_numpy().astype(np.uint64) + np.uint64(1)
    salt = np.full(rows.height, zlib.crc32(name.encode()))
    hashed = mixed(seed, part_number(rows), rows["user"].to_numpy(), salt)
    targets = rows.select(*keys, item="target").with_columns(place=pl.Series(hashed % length + np.uint64(1)))
    around = others.join(targets.select(*keys, at="place"), on=keys).with_columns(place=pl.col("nth") + 1)
    around = around.with_columns(pl.col("place") + (pl.col("place") >= pl.col("at")).cast(pl.Int64))
    found = [
        frame.select(*keys, pl.col("place").cast(pl.UInt32), "item", label=pl.lit(label, dtype=pl.UInt8))
        for frame, label in ((targets, 1), (around, 0))
    ]
    whole = pl.concat(found).with_columns(list=pl.lit(name))
    return whole.select(Candidates.column_names()).sort("list", "part", "user", "place")


# --- checks ------------------------------------------------------------------------------------------------


def the_target_once_and_nothing_used(draft: Draft, inputs: Mapping[str, Any], settings: Settings) -> Verdict:
    """Every query asked has every list, with its first target once and otherwise items that its user never
    used."""
    found, queries = draft.read("candidates"), due_queries(inputs, settings)
    lists = found.group_by("list", "part", "user").agg(
        target=pl.col("item").filter(pl.col("label") == 1).first(),
        targets=pl.col("label").sum(),
        repeated=pl.len() - pl.col("item").n_unique(),
        gaps=pl.col("place").sort() != pl.int_range(1, pl.len() + 1),
    )
    due = queries.select("part", "user", target=pl.col("targets").list.first())
    due = due.join(found.select(pl.col("list").unique()), how="cross")
    interactions = inputs["dataset"].table("interactions").select("user", "item").unique()
    others = found.filter(pl.col("label") == 0)
    events = inputs["split"].table("events")
    faults = {
        "lists have not their query's first target once": due.join(
            lists.filter(pl.col("targets") == 1), on=["list", "part", "user", "target"], how="anti"
        ).height,
        "lists are of no query": lists.join(queries, on=["part", "user"], how="anti").height,
        "lists hold an item twice": lists.filter(pl.col("repeated") > 0).height,
        "lists have gaps between places": lists.filter(pl.col("gaps").list.any()).height,
        "items were used by their user": others.join(interactions, on=["user", "item"], how="semi").height,
        "items have no event": found.join(events, on="item", how="anti").height,
    }
    said = [f"{count:,} {fault}" for fault, count in faults.items() if count]
    return Verdict(not said, "; ".join(said), {"lists": lists.height})


def due_queries(inputs: Mapping[str, Any], settings: Settings) -> pl.DataFrame:
    """The queries that lists are made for: of the users drawn, or of those with random lists already."""
    queries = inputs["split"].table("queries")
    if isinstance(settings, CandidatesSettings):
        return sampled(queries, settings.users, settings.seed)
    return with_lists(queries, inputs["candidates"].table("candidates"))


def with_lists(queries: pl.DataFrame, lists: pl.DataFrame) -> pl.DataFrame:
    """The queries for which there are lists, in their order."""
    return queries.join(lists, on=["part", "user"], how="semi", maintain_order="left")


def lists_are_full(draft: Draft, inputs: Mapping[str, Any], settings: Settings) -> Verdict:
    """No list is shorter than its name says, as it is where a user used nearly everything."""
    counts = {name: count for name, count in draft.metrics.items() if name.endswith("_short")}
    short = {name.removesuffix("_short"): count for name, count in counts.items()}
    said = [f"{count:,} lists of {name} are short" for name, count in short.items() if count]
    return Verdict(not said, "; ".join(said), short)


# --- the stage ---------------------------------------------------------------------------------------------


@stage(
    "rerank/candidates",
    settings=CandidatesSettings,
    section="data",
    version=1,
    inputs={"dataset": "dataset", "split": "next_item/split"},
    tables={"candidates": Candidates},
    checks=(Check(the_target_once_and_nothing_used), Check(lists_are_full, blocking=False)),
)
def candidates(dataset: Artefact, split: Artefact, settings: CandidatesSettings, out: Draft) -> None:
    """Stored lists of random items around each query's first target."""
    used = Used(dataset.table("interactions"))
    queries = sampled(split.table("queries"), settings.users, settings.seed)
    pool = pools(split.table("events"), split.metrics["kind"])
    lists = {name: random_list(name, queries, used, pool, settings.seed) for name in RANDOM}
    out.table("candidates", pl.concat(lists.values()))
    for name, frame in lists.items():
        lengths = frame.group_by("part", "user").len()["len"]
        out.metric(**{f"{name}_lists": lengths.len(), f"{name}_short": (lengths < RANDOM[name]).sum()})
