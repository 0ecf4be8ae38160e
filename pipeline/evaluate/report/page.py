"""Facts and findings -> one HTML page that needs nothing but itself.

Everything that comes from data goes through jinja2's autoescape; only the pictures made here are trusted as
markup. `page.html.j2` beside this file is the page.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.evaluate.report import figures
from pipeline.evaluate.report.boards import Published, differences, layout, section
from pipeline.evaluate.report.facts import FIRST_DATE, Facts, Setting
from pipeline.evaluate.report.findings import WORDS, duration, p, room, task, told, verdict
from pipeline.evaluate.report.ranked import Ranked
from pipeline.evaluate.results import Name

TEMPLATE = Path(__file__).with_name("page.html.j2")
MINUS = "\N{MINUS SIGN}"


def page(
    study: str,
    title: str,
    metric: str,
    facts: Facts,
    published: Sequence[Published] | None,
    ranked: Mapping[str, Ranked],
) -> str:
    """The report of a study.

    published: figures of papers on equal data and split, None where not known; ranked: track -> what it shows
    beside its figures.
    """
    return (
        environment()
        .get_template(TEMPLATE.name)
        .render(
            study=study,
            title=title or study,
            facts=facts,
            verdict=verdict(facts, metric),
            tracks=[section(one, metric, published) for one in facts.boards],
            ranked={name: shown_of(found, name) for name, found in ranked.items()},
            passed=sum(one.passed for one in facts.checks),
            verdicts=sum(one.artefacts for one in facts.checks),
            controls=asked(facts, "control"),
            baselines=asked(facts, "baseline"),
            costs=costs(facts),
            pictures=pictures(facts),
            stages=[(name, list(of)) for name, of in groupby(facts.stages, key=lambda one: one.section)],
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
        "levels": levels,
        "duration": duration,
        "memory": memory,
        "p": p,
        "when": when,
        "told": told,
        "plain": plain,
        "room": room,
    }
    return made


# ---- rows of the tables


def asked(facts: Facts, question: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each track's task, and its methods' answers to a question; tracks with none are left out.

    Where models compete, all are compared with the best baseline, and that stands with the track.
    """
    boards = [one for one in facts.boards if question == "control" or not one.compete]
    found = [(task(one), differences(one, question)) for one in boards]
    return [(words, rows) for words, rows in found if rows]


def costs(facts: Facts) -> list[dict[str, Any]]:
    """One row for each method and variant of each track, the dearest of a track first."""
    return [
        {"track": board.track.name, "name": name, "kind": board.kinds[name], "cost": cost}
        for board in facts.boards
        for name, cost in sorted(board.costs.items(), key=lambda one: -one[1].seconds)
    ]


def seeds(one: Setting) -> list[str]:
    return [cell.rpartition("seed ")[2] for cell, _ in one.cells if "seed " in cell]


# ---- pictures


def shown_of(ranked: Ranked, track: str) -> dict[str, Any]:
    """What the section of a track of ranked lists shows beside its figures."""
    exposed = ranked.exposure.group_by("method", "variant", "metric").agg(pl.col("value").mean())
    exposure: dict[Name, dict[str, float]] = {}
    for method, variant, metric, value in exposed.iter_rows():
        exposure.setdefault(Name(method, variant), {})[metric] = value
    return {
        "exposure": exposure,
        "activity": Markup(figures.with_bands(ranked.activity, f"activity-{track}", "items used before")),
        "popularity": Markup(
            figures.with_bands(ranked.popularity, f"taste-{track}", "training rows of the next item")
        ),
        "overlap": Markup(figures.heat(ranked.overlap, f"overlap-{track}")),
        "readers": ranked.readers,
        "parts": ranked.parts,
        "shares": ranked.shares,
    }


def pictures(facts: Facts) -> dict[str, Any]:
    """Every other picture of the page, trusted as markup; those without data are None or left out."""
    cost = [
        (metric, figures.against_cost(board, metric))
        for board in facts.boards
        for metric in layout(board.track).barred
    ]
    return {
        "cost": [(metric, Markup(svg)) for metric, svg in cost if svg],
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


def levels(values: Sequence[float]) -> str:
    """Shares, one a level, in whole percent; the sign stands at the head of the column."""
    return " · ".join(str(round(100 * value)) for value in values)


def memory(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1024 else f"{megabytes:.0f} MB"


def when(at: float) -> str:
    """A date for unix seconds, the number for an order."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" if at > FIRST_DATE else count(at)


def plain(name: str) -> str:
    """`no_future_in_histories` as words."""
    return name.replace("_", " ")
