"""Facts and findings -> one HTML page that needs nothing but itself.

Everything that comes from data goes through jinja2's autoescape; only the pictures made here are trusted as
markup. `page.html.j2` beside this file is the page.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.evaluate.report import figures
from pipeline.evaluate.report.facts import FIRST_DATE, Facts, Setting
from pipeline.evaluate.report.findings import WORDS, duration, findings, name_of, p, shown, told
from pipeline.evaluate.report.ranked import Ranked
from pipeline.evaluate.results import Name

TEMPLATE = Path(__file__).with_name("page.html.j2")
RANKED_BARS = ("ndcg_10", "hr_10")
BARRED = ("auc", "uauc")  # metrics with an interval bar in the leaderboard
MINUS = "\N{MINUS SIGN}"
ROOM = 0.06  # of a bar's width left free at both ends


class Published(NamedTuple):
    """A figure that a paper printed."""

    name: Name
    metric: str
    value: float
    source: str
    track: str = "ctr"


class Bar(NamedTuple):
    """An interval and its value on a line from 0 to 1, and where the guide stands."""

    low: float
    value: float
    high: float
    guide: float | None


def page(
    study: str,
    title: str,
    metric: str,
    facts: Facts,
    published: Sequence[Published] | None,
    ranked: Ranked | None = None,
) -> str:
    """The report of a study. published: figures of papers on equal data and split, None where not known."""
    pointwise = [one for one in published or () if one.track == "ctr"]
    return (
        environment()
        .get_template(TEMPLATE.name)
        .render(
            study=study,
            title=title or study,
            metric=metric,
            facts=facts,
            findings=findings(facts, metric),
            board=board(facts, metric, pointwise),
            published_known=published is not None,
            papers=papers(pointwise),
            ranked=ranked and section(ranked, [one for one in published or () if one.track != "ctr"]),
            passed=sum(one.passed for one in facts.checks),
            verdicts=sum(one.artefacts for one in facts.checks),
            controls=differences(facts, "control"),
            baselines=differences(facts, "baseline"),
            costs=sorted(facts.costs.items(), key=lambda one: -one[1].seconds),
            pictures=pictures(facts),
            stages=[(section, list(of)) for section, of in groupby(facts.stages, key=lambda one: one.section)],
            seeds=sorted({cell_seed for one in facts.stages for cell_seed in seeds(one)}),
        )
    )


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["word"] = WORDS
    made.filters |= {
        "figure": figure,
        "signed": signed,
        "count": count,
        "share": share,
        "duration": duration,
        "memory": memory,
        "p": p,
        "when": when,
        "told": told,
        "plain": plain,
    }
    return made


# ---- rows of the tables


def board(facts: Facts, metric: str, published: Sequence[Published]) -> list[dict[str, Any]]:
    """One row for each method and variant, the best on test first."""
    test = facts.leaderboard.filter(part="test")
    named = {name: {row["metric"]: row for row in rows} for name, rows in by_name(test).items()}
    scales = {one: scale(test.filter(metric=one)) for one in BARRED}
    guides = {one: guide(facts, one) for one in BARRED}
    rows = [
        {
            "name": name,
            "kind": facts.kinds.get(name, "baseline"),
            "figures": figures_of,
            "bars": {m: bar(figures_of[m], scales[m], guides[m]) for m in BARRED if m in figures_of},
            "published": best_published(name, published),
        }
        for name, figures_of in named.items()
    ]
    return sorted(rows, key=lambda row: -row["figures"].get(metric, {"value": 0})["value"])


def best_published(name: Name, published: Sequence[Published]) -> dict[str, float]:
    """Metric -> the highest figure that any paper printed for this method and variant."""
    ours = sorted((one for one in published if one.name == name), key=lambda one: one.value)
    return {one.metric: one.value for one in ours}


def papers(published: Sequence[Published]) -> list[dict[str, Any]]:
    """Published figures, one row for each method, variant and source, the best first."""
    found: dict[tuple[Name, str], dict[str, Any]] = {}
    for one in published:
        key = (one.name, one.source)
        row = found.setdefault(key, {"name": one.name, "source": one.source, **dict.fromkeys(BARRED)})
        row[one.metric] = one.value
    return sorted(found.values(), key=lambda row: -(row[BARRED[0]] or 0))


def by_name(test: pl.DataFrame) -> dict[Name, list[dict[str, Any]]]:
    found: dict[Name, list[dict[str, Any]]] = {}
    for row in test.to_dicts():
        found.setdefault(name_of(row), []).append(row)
    return found


def guide(facts: Facts, metric: str) -> float | None:
    """Test value of the baseline that comparisons of this metric are made with: the best on validation."""
    tests = facts.comparisons.filter(question="baseline", metric=metric)
    chosen = tests.select(method="versus_method", variant="versus_variant").unique()
    value = facts.leaderboard.filter(part="test", metric=metric).join(chosen, on=["method", "variant"])["value"]
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


def differences(facts: Facts, question: str) -> list[dict[str, Any]]:
    """One row for each comparison of a question in AUC or UAUC, with its bar around zero."""
    rows = facts.comparisons.filter(pl.col("metric").is_in(BARRED), question=question).to_dicts()
    ends = spread([0.0, *(row[bound] for row in rows for bound in ("low", "high"))])
    return [{**row, "bar": bar(row, ends, 0.0), "finding": finding(row)} for row in rows]


def finding(row: Mapping[str, Any]) -> str:
    if not shown(row):
        return "no difference could be shown"
    return "better" if row["difference"] > 0 else "worse"


def seeds(one: Setting) -> list[str]:
    return [cell.rpartition("seed ")[2] for cell, _ in one.cells if "seed " in cell]


# ---- the catalogue, ranked


def section(ranked: Ranked, published: Sequence[Published]) -> dict[str, Any]:
    """What the section on orders of the catalogue prints."""
    test = ranked.leaderboard.filter(part="test")
    scales = {metric: scale(test.filter(metric=metric)) for metric in RANKED_BARS}
    return {
        "board": sorted(
            (ranked_row(name, rows, ranked, scales) for name, rows in by_name(test).items()),
            key=lambda row: -row["figures"]["ndcg_10"]["value"],
        ),
        "tests": ranked_tests(ranked),
        "papers": sorted(
            published, key=lambda one: (one.metric != "ndcg_10", one.metric != "hr_10", one.metric, -one.value)
        ),
        "activity": Markup(figures.with_bands(ranked.activity, "activity", "items used before")),
        "popularity": Markup(figures.with_bands(ranked.popularity, "taste", "training rows of the next item")),
        "overlap": Markup(figures.heat(ranked.overlap, "overlap")),
        "readers": ranked.readers,
        "lists": ranked.lists,
    }


def ranked_row(
    name: Name, rows: Sequence[Mapping[str, Any]], ranked: Ranked, scales: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """One row for a method and variant: figures, bars, and what its lists show of the catalogue."""
    found = {row["metric"]: row for row in rows}
    shown = ranked.exposure.filter(**name._asdict()).group_by("metric").agg(pl.col("value").mean())
    return {
        "name": name,
        "kind": ranked.kinds.get(name, "baseline"),
        "figures": found,
        "bars": {metric: bar(found[metric], scales[metric], None) for metric in RANKED_BARS},
        "exposure": dict(shown.iter_rows()),
        "seconds": ranked.seconds.get(name, 0.0),
    }


def ranked_tests(ranked: Ranked) -> list[dict[str, Any]]:
    rows = ranked.comparisons.filter(pl.col("metric").is_in(RANKED_BARS)).to_dicts()
    ends = spread([0.0, *(row[bound] for row in rows for bound in ("low", "high"))])
    return [{**row, "bar": bar(row, ends, 0.0), "finding": finding(row)} for row in rows]


# ---- pictures


def pictures(facts: Facts) -> dict[str, Any]:
    """Every picture of the page, trusted as markup; those without data are None or left out."""
    cost = {m: figures.against_cost(facts.leaderboard, m, facts.kinds, facts.costs) for m in BARRED}
    return {
        "cost": {metric: Markup(svg) for metric, svg in cost.items() if svg},
        "curves": curves(facts.curves),
        "timeline": Markup(figures.over_time(facts.timeline) or ""),
        "bits": [
            (one, Markup(figures.bit_balance(one.ones, f"bits{place}")))
            for place, one in enumerate(facts.codes)
            if one.seed == facts.codes[0].seed
        ],
    }


def curves(table: pl.DataFrame) -> list[tuple[str, str, Markup]]:
    """Stage, metric and picture of every learning curve."""
    groups = table.partition_by("stage", "metric", as_dict=True, maintain_order=True)
    return [
        (str(stage), str(metric), Markup(figures.learning(curve, f"curve{place}")))
        for place, ((stage, metric), curve) in enumerate(groups.items())
    ]


# ---- how a value is written


def figure(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)


def count(value: float | None) -> str:
    return "" if value is None else f"{round(value):,}"


def share(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.1f} %"


def memory(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1024 else f"{megabytes:.0f} MB"


def when(at: float) -> str:
    """A date for unix seconds, the number for an order."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" if at > FIRST_DATE else count(at)


def plain(name: str) -> str:
    """`no_future_in_histories` as words."""
    return name.replace("_", " ")
