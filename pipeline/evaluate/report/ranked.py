"""What the report shows of a track of ranked lists beside its figures: curves, overlap, a few users' lists.

    artefacts, a track's board -> gather -> Ranked -> pictures, and a part of the section in page.html.j2

Curves and lists show the test part, of every method and baseline, not of controls and asides; lists are those
of each method's first seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline import schema
from pipeline.evaluate import statistics
from pipeline.evaluate.report.facts import Board, holding, table
from pipeline.evaluate.report.findings import told
from pipeline.evaluate.results import Name, Track
from pipeline.evaluate.statistics import UserMean
from pipeline.schema import PARTS, Catalogue, Events, Exposure, Items, Queries, Rankings, UserRanks, Users
from pipeline.stage import Artefact

SHOWN = 10  # places of a list that are compared and printed
GROUPS = 6  # of users, about equally large, in a curve
READERS = 6  # users whose lists are printed
DRAWS = 400  # of users, behind the bands of a curve
SEED = 1
KINDS = ("method", "baseline")  # whose lists are shown
METRICS = ("hr_10", "ndcg_10")  # printed at every share of cold items


class Point(NamedTuple):
    """Mean NDCG@10 of a group of users, with 95 % bounds; `at` is the group's mean on the axis."""

    method: str
    at: float
    value: float
    low: float
    high: float
    users: int


class Reader(NamedTuple):
    """A user: the last items used, what came next, and each method's first places as (title, is target)."""

    user_id: str
    history: Sequence[str]
    used: int
    targets: Sequence[str]
    lists: Mapping[str, Sequence[tuple[str, bool]]]


class ColdShares(NamedTuple):
    """A test figure of methods that let cold items into their lists, mean over seeds, by the share allowed."""

    metric: str
    columns: Sequence[float]
    rows: Mapping[Name, Mapping[float, float]]


@dataclass(frozen=True)
class Ranked:
    """What a track of ranked lists shows beside its figures."""

    exposure: pl.DataFrame
    activity: Sequence[Point]
    popularity: Sequence[Point]
    overlap: Mapping[tuple[str, str], float]
    readers: Sequence[Reader]
    parts: Sequence[Mapping[str, Any]]
    shares: Sequence[ColdShares]


def gather(everything: Sequence[Artefact], board: Board) -> Ranked | None:
    """The track's lists in facts; None where it scores pairs, or where nobody was asked anything."""
    track, names = board.track, shown(board.kinds)
    queries = of_track(everything, track, "queries", Queries)
    if track.predictions != "rankings" or queries.is_empty():
        return None
    asked = queries.filter(part="test")
    catalogue = of_track(everything, track, "catalogue", Catalogue)
    chosen = {"track": track.name, "part": "test"}
    figures = named(table(everything, "user_ranks", UserRanks).filter(**chosen), names)
    first = lists(everything, chosen, names)
    return Ranked(
        exposure=table(everything, "exposure", Exposure).filter(track=track.name, part="test"),
        activity=curve(figures, asked.select("user", at=pl.col("history").list.len())),
        popularity=curve(figures, target_popularity(asked, catalogue)),
        overlap=overlap(first),
        readers=readers(first, asked, everything),
        parts=parts(of_track(everything, track, "events", Events), queries, catalogue),
        shares=cold_shares(table(letting_in(everything, track), "cold_shares", schema.ColdShares)),
    )


def shown(kinds: Mapping[Name, str]) -> pl.DataFrame:
    """The methods and baselines of a track, and what the page calls them: method, variant, name."""
    rows = [(*name, told(name)) for name, kind in kinds.items() if kind in KINDS]
    return pl.DataFrame(rows, schema=dict.fromkeys(("method", "variant", "name"), pl.String), orient="row")


def named(rows: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """The rows of what is shown, `method` being what the page calls it."""
    kept = rows.join(names, on=("method", "variant"), maintain_order="left")
    return kept.drop("method").rename({"name": "method"})


def of_track(everything: Sequence[Artefact], track: Track, name: str, schema: Any) -> pl.DataFrame:
    """A table over the artefacts of the track's own stages."""
    own = [a for a in everything if a.stage.startswith(f"{track.name}/")]
    return table(own, name, schema)


def parts(events: pl.DataFrame, queries: pl.DataFrame, catalogue: pl.DataFrame) -> list[dict[str, Any]]:
    """One row of facts for train, valid and test: events, and users asked with what they used before."""
    cold = catalogue.select("item", cold=pl.col("train_rows") == 0)
    counted = (
        events.join(cold, on="item", how="left")
        .group_by("part")
        .agg(
            rows=pl.len(),
            users=pl.col("user").n_unique(),
            items=pl.col("item").n_unique(),
            cold_items=pl.col("cold").mean(),
            first=pl.col("at").min(),
            last=pl.col("at").max(),
        )
    )
    asked = queries.group_by("part").agg(asked=pl.len(), history=pl.col("history").list.len().mean())
    found = counted.join(asked, on="part", how="left").to_dicts()
    return sorted(found, key=lambda facts: PARTS.index(facts["part"]))


def letting_in(everything: Sequence[Artefact], track: Track) -> list[Artefact]:
    """What lets cold items into lists of the track."""
    return [
        a
        for a in holding(everything, "cold_shares")
        if a.scan("rankings").filter(track=track.name).head(1).collect().height
    ]


def cold_shares(rows: pl.DataFrame) -> list[ColdShares]:
    """The test part of a table of figures at shares, for each metric that is printed."""
    found = []
    for metric in METRICS:
        own: dict[Name, dict[float, float]] = {}
        test = rows.filter(part="test", metric=metric).group_by("method", "variant", "share")
        for method, variant, share, value in test.agg(pl.col("value").mean()).sort(pl.all()).rows():
            own.setdefault(Name(method, variant), {})[share] = value
        columns = sorted({share for values in own.values() for share in values})
        found += [ColdShares(metric, columns, own)] if own else []
    return found


def target_popularity(queries: pl.DataFrame, catalogue: pl.DataFrame) -> pl.DataFrame:
    """Mean training rows of each user's targets: user, at."""
    targets = queries.select("user", item="targets").explode("item", empty_as_null=False)
    known = targets.join(catalogue, on="item", how="left")
    return known.group_by("user").agg(at=pl.col("train_rows").mean())


def curve(figures: pl.DataFrame, where: pl.DataFrame) -> list[Point]:
    """NDCG@10 of every method over a number of each user (user, at), in groups of about equal size."""
    seeds = figures.group_by("method", "user").agg(value=pl.col("ndcg_10").mean())
    rows = seeds.join(where, on="user").sort("method", "user")
    edges = np.unique(np.quantile(where["at"].to_numpy(), np.linspace(0, 1, GROUPS + 1)[1:-1]))
    grouped = rows.with_columns(group=pl.Series(np.searchsorted(edges, rows["at"].to_numpy(), "left")))
    return [
        point(str(method), rows)
        for (method, _), rows in sorted(grouped.partition_by("method", "group", as_dict=True).items())
    ]


def point(method: str, rows: pl.DataFrame) -> Point:
    values = rows["value"].to_numpy()
    measure = UserMean(values, np.ones(len(values)))
    draws = statistics.bootstrap([measure], len(values), DRAWS, SEED)[0]
    low, high = statistics.interval(draws, 0.95, len(values))
    at = float(rows["at"].cast(pl.Float64).to_numpy().mean())
    return Point(method, at, float(values.mean()), float(low), float(high), len(values))


def lists(everything: Sequence[Artefact], chosen: Mapping[str, str], names: pl.DataFrame) -> pl.DataFrame:
    """The first places of each method's first seed: method, user, rank, item, target.

    chosen: the track and part whose lists they are; names: as of `shown`.
    """
    kept = [
        a.scan("rankings")
        .filter(pl.col("rank") <= SHOWN, **chosen)
        .filter(pl.col("score").is_not_null())
        .collect()
        for a in holding(everything, "rankings")
    ]
    rows = named(pl.concat([Rankings.create_empty(), *kept], how="vertical_relaxed"), names)
    one = rows.filter(pl.col("seed") == pl.col("seed").min().over("method"))
    return one.select("method", "user", "rank", "item", "target").sort("method", "user", "rank")


def overlap(first: pl.DataFrame) -> dict[tuple[str, str], float]:
    """Share of its first places that a list has in common with another method's, mean over users."""
    own = {
        str(m): rows.select("user", "item")
        for (m,), rows in first.partition_by("method", as_dict=True, maintain_order=True).items()
    }
    return {
        (one, other): rows.join(their, on=("user", "item")).height / max(rows.height, their.height)
        for one, rows in own.items()
        for other, their in own.items()
    }


def readers(first: pl.DataFrame, queries: pl.DataFrame, everything: Sequence[Artefact]) -> list[Reader]:
    """A few users, drawn by seed, with every method's list in titles."""
    titles = dict(table(everything, "items", Items).select("item", "title").iter_rows())
    names = dict(table(everything, "users", Users).select("user", "user_id").iter_rows())
    ordered = queries.sort("user")
    chosen = np.sort(np.random.default_rng(SEED).permutation(ordered.height)[:READERS])
    return [reader(query, first, titles, names) for query in ordered[chosen.tolist()].to_dicts()]


def reader(
    query: Mapping[str, Any], first: pl.DataFrame, titles: Mapping[int, str], names: Mapping[int, str]
) -> Reader:
    def told(items: Sequence[int]) -> list[str]:
        return [titles.get(item, str(item)) for item in items]

    own = first.filter(user=query["user"])
    found = {
        str(m): list(zip(told(rows["item"].to_list()), rows["target"].to_list(), strict=True))
        for (m,), rows in own.partition_by("method", as_dict=True, maintain_order=True).items()
    }
    last = query["history"][-SHOWN:]
    user_id = names.get(query["user"], str(query["user"]))
    return Reader(user_id, told(last), len(query["history"]), told(query["targets"]), found)
