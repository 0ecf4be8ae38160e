"""A track's section: how it is laid out, and the rows of its tables, with bars.

    Board, published figures -> section -> what page.html.j2 prints for the track

Every track has the same section; `LAYOUTS` says what stands in its columns. The lists of `rerank` are not
there: each shows its main metric and HR@1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.evaluate.report.facts import Board
from pipeline.evaluate.report.findings import leading, name_of, shown, task
from pipeline.evaluate.results import Name, Track

ROOM = 0.06  # of a bar's width left free at both ends


class Published(NamedTuple):
    """A figure that a paper printed; `note` says how it was measured."""

    name: Name
    metric: str
    value: float
    source: str
    track: str = "ctr"
    note: str = ""


class Bar(NamedTuple):
    """An interval and its value on a line from 0 to 1, and where the guide stands."""

    low: float
    value: float
    high: float
    guide: float | None


class Layout(NamedTuple):
    """What a leaderboard says before and below its table, and its columns.

    barred: metrics with an interval bar; plain: numbers beside them; more: those in a table of their own,
    behind a fold; rows: what is counted.
    """

    lede: str
    barred: tuple[str, ...]
    plain: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    rows: str = "rows"
    note: str = ""


LAYOUTS = {
    "ctr": Layout(
        "AUC pools all rows; UAUC is the mean of each user's own AUC, users of one class left out.",
        barred=("auc", "uauc"),
        plain=("log_loss", "accuracy"),
        note="A dash: the method gives an order but no probability.",
    ),
    "next_item": Layout(
        "Each user's next item is looked for among all items of the catalogue; items used before stand last. "
        "Rows marked “aside” keep those in the list: another protocol, shown and not compared.",
        barred=("ndcg_10", "hr_10"),
        more=("ndcg_5", "ndcg_20", "hr_5", "hr_20", "mrr_20"),
        rows="items to be found",
    ),
    "cold_item": Layout(
        "Some items are held out with all their events: no training row and no history holds one, only their "
        "texts are known. Each user's last of them is looked for among all items of the catalogue.",
        barred=("ndcg_10", "hr_10"),
        more=("ndcg_5", "ndcg_20", "hr_5", "hr_20", "mrr_20"),
        rows="items to be found",
        note="A model of ids cannot know such an item and has 0. With a share rule no more of any list are "
        "items without training rows; a model that reads texts alone ranks all items alike.",
    ),
}


LISTS = (
    "Every method orders the very same stored lists, each with one item that came next. Figures of different "
    "lists cannot be compared with each other, nor with those of the whole catalogue."
)
RETRIEVED = (
    "The others in a list are what the retriever put first, so its own model stands low by construction: a "
    "target that it had not found comes last."
)


def layout(track: Track) -> Layout:
    """How a track's section is laid out."""
    others = tuple(metric for metric in track.metrics if metric != track.main)
    note = RETRIEVED if "/retrieved_" in track.name else ""
    lists = Layout(LISTS, barred=(track.main, *others[:1]), more=others[1:], rows="lists", note=note)
    return LAYOUTS.get(track.name, lists)


def section(board: Board, metric: str, published: Sequence[Published] | None) -> dict[str, Any]:
    """What a track's section prints.

    published: test figures of papers on the study's data and split, None where it names no such data set.
    """
    plan, sorted_by = layout(board.track), leading(board, metric)
    printed = [one for one in published or () if one.track == board.track.name]
    columns = [one for one in board.track.metrics if any(p.metric == one for p in printed)]
    return {
        "id": board.track.name.replace("_", "-").replace("/", "-"),
        "task": task(board),
        "board": board,
        "layout": plan,
        "sorted_by": sorted_by,
        "rows": rows(board, sorted_by, printed),
        "published_known": published is not None,
        "paper_columns": columns,
        "papers": papers(printed, columns),
        "tests": differences(board, "baseline") if board.compete else [],
    }


def rows(board: Board, metric: str, published: Sequence[Published]) -> list[dict[str, Any]]:
    """One row for each method and variant, the best on test first."""
    test, barred = board.leaderboard.filter(part="test"), layout(board.track).barred
    named = {name: {row["metric"]: row for row in held} for name, held in by_name(test).items()}
    scales = {one: scale(test.filter(metric=one)) for one in barred}
    guides = {one: guide(board, one) for one in barred}
    found = [
        {
            "name": name,
            "kind": board.kinds.get(name, "baseline"),
            "figures": figures_of,
            "bars": {m: bar(figures_of[m], scales[m], guides[m]) for m in barred if m in figures_of},
            "published": best_published(name, published),
        }
        for name, figures_of in named.items()
    ]
    return sorted(found, key=lambda row: -row["figures"].get(metric, {"value": 0})["value"])


def best_published(name: Name, published: Sequence[Published]) -> dict[str, float]:
    """Metric -> the highest figure that any paper printed for this method and variant."""
    ours = sorted((one for one in published if one.name == name), key=lambda one: one.value)
    return {one.metric: one.value for one in ours}


def papers(published: Sequence[Published], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Published figures in these metrics, one row for each method, variant, source and note, the best first."""
    found: dict[tuple[Name, str, str], dict[str, Any]] = {}
    for one in published:
        blank = {"name": one.name, "source": one.source, "note": one.note, "figures": dict.fromkeys(columns)}
        row = found.setdefault((one.name, one.source, one.note), blank)
        row["figures"][one.metric] = one.value
    return sorted(found.values(), key=lambda row: [-(row["figures"][metric] or 0) for metric in columns])


def by_name(test: pl.DataFrame) -> dict[Name, list[dict[str, Any]]]:
    found: dict[Name, list[dict[str, Any]]] = {}
    for row in test.to_dicts():
        found.setdefault(name_of(row), []).append(row)
    return found


def guide(board: Board, metric: str) -> float | None:
    """Test value of the baseline that comparisons of this metric are made with: the best on validation."""
    tests = board.comparisons.filter(question="baseline", metric=metric)
    chosen = tests.select(method="versus_method", variant="versus_variant").unique()
    value = board.leaderboard.filter(part="test", metric=metric).join(chosen, on=["method", "variant"])["value"]
    return float(value[0]) if len(value) else None


def scale(rows: pl.DataFrame) -> tuple[float, float]:
    """Ends of the line that all bars of a column share."""
    return spread(rows["low"].to_list() + rows["high"].to_list())


def spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def bar(row: Mapping[str, Any], ends: tuple[float, float], guide: float | None) -> Bar:
    """The row's interval on a line between the ends."""

    def at(value: float) -> float:
        return ROOM + (1 - 2 * ROOM) * min(max((value - ends[0]) / (ends[1] - ends[0]), 0), 1)

    centre = row["value"] if "value" in row else row["difference"]
    return Bar(at(row["low"]), at(centre), at(row["high"]), None if guide is None else at(guide))


def differences(board: Board, question: str) -> list[dict[str, Any]]:
    """One row for each comparison of a question in the barred metrics, with its bar around zero."""
    barred = pl.col("metric").is_in(layout(board.track).barred)
    tests = board.comparisons.filter(barred, question=question).to_dicts()
    ends = spread([0.0, *(row[bound] for row in tests for bound in ("low", "high"))])
    return [{**row, "bar": bar(row, ends, 0.0), "finding": finding(row)} for row in tests]


def finding(row: Mapping[str, Any]) -> str:
    if not shown(row):
        return "no difference shown"
    return "better" if row["difference"] > 0 else "worse"
