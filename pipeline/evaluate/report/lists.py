"""What the report says of the rerank track: one leaderboard for each kind of stored list.

artefacts -> gather -> Board -> lists.html.j2, a part of page.html.j2
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline.evaluate import reranking, tracks
from pipeline.evaluate.report.facts import holding, table
from pipeline.evaluate.report.findings import name_of
from pipeline.evaluate.results import Name, contenders
from pipeline.schema import Leaderboard
from pipeline.stage import Artefact

TEMPLATE = Path(__file__).with_name("lists.html.j2")


class Row(NamedTuple):
    """A method and variant: what it is, and its test figures by metric, as rows of the leaderboard."""

    name: Name
    kind: str
    figures: Mapping[str, Mapping[str, Any]]


class Board(NamedTuple):
    """The lists of one name: its metrics, and its methods, the best first."""

    name: str
    metrics: Sequence[str]
    rows: Sequence[Row]


def gather(everything: Sequence[Artefact]) -> list[Board]:
    """A board for each kind of list that methods have ordered."""
    test = table(everything, "leaderboard", Leaderboard).filter(
        pl.col("track").str.starts_with(f"{reranking.TRACK}/"), part="test"
    )
    return [board(rows, everything) for rows in test.partition_by("track", maintain_order=True)]


def board(test: pl.DataFrame, everything: Sequence[Artefact]) -> Board:
    """The test rows of one kind of list, sorted by the metric that decides."""
    track = tracks.of(test["track"][0])
    kinds = {one.name: one.kind for one in contenders(track, holding(everything, track.predictions))}
    figures: dict[Name, dict[str, Mapping[str, Any]]] = {}
    for row in test.to_dicts():
        figures.setdefault(name_of(row), {})[row["metric"]] = row
    rows = [Row(name, kinds[name], found) for name, found in figures.items()]
    rows.sort(key=lambda row: -row.figures[track.main]["value"])
    return Board(track.name.partition("/")[2], track.metrics, rows)
