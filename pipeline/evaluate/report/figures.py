"""The report's pictures, as SVG text to stand inside the page.

Text stays text, ids are unique to their picture, nothing is loaded from anywhere. Each picture is one panel, so
that a phone shows them below each other at a readable size.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.evaluate.report.facts import BINS, FIRST_DATE, Board, Cost
from pipeline.evaluate.report.findings import WORDS, name_of, told
from pipeline.evaluate.results import Name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DAY = 86_400
TICK_ROOM = 0.09  # of an axis that a number needs
DATES = 6  # that stand beside each other
NAME_HEIGHT = 0.2  # inches of a line of text beside a panel
INK, FAINT = "#1f2933", "#9aa5b1"
KINDS = {"method": "#0b5fa5", "baseline": "#5f6b7a", "control": "#b45309", "aside": "#9aa5b1"}
MARKS = {"method": "o", "baseline": "s", "control": "^", "aside": "x"}
PARTS = {"train": "#9fb3c8", "valid": "#e0a64b", "test": "#0b5fa5"}
LINES = ("#0b5fa5", "#b45309", "#2f7d4f", "#8a4baf", "#5f6b7a", "#c2385a")
TICKS = {
    **{0.01: "0.01 s", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"},
    **{3600: "1 h", 36_000: "10 h", 360_000: "100 h"},
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e9edf2",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


class Canvas:
    """One panel to draw on; `svg` is the picture once the panel is closed."""

    def __init__(self, ax: "Axes") -> None:
        self.ax = ax
        self.svg = ""


@contextmanager
def panel(name: str, width: float, height: float) -> Iterator[Canvas]:
    """A panel of a size in inches, without any global state of matplotlib's."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        canvas = Canvas(figure.subplots())
        yield canvas
        held = StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(held, format="svg", metadata=nothing, transparent=True)
    canvas.svg = inline(held.getvalue(), name)


def inline(svg: str, name: str) -> str:
    """An SVG file as an element of a page: no prologue, own ids, as wide as its place."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(
        r'<svg (.*?)width="[^"]*" height="[^"]*"|<svg height="[^"]*"', r"<svg \1", svg, count=1, flags=re.S
    )


def against_cost(board: Board, metric: str) -> str | None:
    """Test figure over seconds (logarithmic) with intervals; each point is named in the right margin."""
    kinds, costs = board.kinds, board.costs
    rows = board.leaderboard.filter(part="test", metric=metric).sort("value").to_dicts()
    rows = [row for row in rows if name_of(row) in costs]
    if not rows:
        return None
    height = max(3.4, NAME_HEIGHT * len(rows) + 0.7)  # so that the names beside the points fit
    with panel(f"cost-{board.track.name}-{metric}", 5.2, height) as canvas:
        ax = canvas.ax
        for row in rows:
            kind, x = kinds.get(name_of(row), "baseline"), place(row, costs)
            ax.plot([x, x], [row["low"], row["high"]], color=KINDS[kind], lw=1, alpha=0.5)
            ax.plot(x, row["value"], MARKS[kind], color=KINDS[kind], ms=6)
        ax.set_xscale("log")
        ax.set_xticks(list(TICKS), list(TICKS.values()))
        ax.minorticks_off()
        ax.set_xlim(*around([place(row, costs) for row in rows]))  # after the ticks, which widen it
        ax.set_xlabel("time, with all it was made from")
        ax.set_ylabel(f"{WORDS[metric]} on test")
        places = [place(row, costs) for row in rows]
        name_points(ax, rows, places, kinds, NAME_HEIGHT / (height - 0.7))  # of the axis, less its labels
    return canvas.svg


def place(row: Mapping[str, Any], costs: Mapping[Name, Cost]) -> float:
    return max(costs[name_of(row)].seconds_with_inputs, 0.01)


def around(places: Sequence[float]) -> tuple[float, float]:
    """Ends of a logarithmic axis around the places, at least a factor of thirty apart, so that ticks differ."""
    low, high = min(places), max(places)
    spare = max(1.6, (30 * low / high) ** 0.5)
    return low / spare, high * spare


def name_points(
    ax: "Axes",
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[float],
    kinds: Mapping[Name, str],
    gap: float,
) -> None:
    """Write the names of rows sorted by value beside the panel, a gap apart, each with a line to its point."""
    low, high = ax.get_ylim()
    heights = apart([(row["value"] - low) / (high - low) for row in rows], gap)
    for row, x, height in zip(rows, places, heights, strict=True):
        colour = KINDS[kinds.get(name_of(row), "baseline")]
        ax.annotate(
            told(row),
            (x, row["value"]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.3, "lw": 0.6},
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved as little as needed to lie at least `gap` apart, around their common middle."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    shift = (sum(heights) - sum(moved)) / max(len(moved), 1)
    return [height + shift for height in moved]


def learning(curve: pl.DataFrame, name: str) -> str:
    """One metric of a stage over steps: a colour for each variant and phase, a line for each seed."""
    lines = curve.partition_by("variant", "phase", "seed", as_dict=True, maintain_order=True)
    told_apart = [column for column in ("variant", "phase") if curve[column].n_unique() > 1]
    labels: dict[str, Any] = {}
    with panel(name, 4, 2.5) as canvas:
        for line in lines.values():
            label = ", ".join(dict.fromkeys(str(line[column][0]) for column in told_apart))
            colour = LINES[list({**labels, label: None}).index(label) % len(LINES)]
            mark = "o" if line.height == 1 else ""  # a line of one point cannot be seen
            (labels[label],) = canvas.ax.plot(
                line["step"], line["value"], color=colour, lw=1.4, alpha=0.9, marker=mark, ms=3
            )
        canvas.ax.set_xlabel("step")
        canvas.ax.margins(x=0.02)
        if len(labels) > 1:
            canvas.ax.legend(labels.values(), labels.keys(), fontsize=8)
    return canvas.svg


def over_time(timeline: pl.DataFrame) -> str | None:
    """Rows of train, valid and test in equal stretches of time, stacked."""
    if not timeline.height:
        return None
    wide = timeline.pivot("part", index="at", values="rows", maintain_order=True).fill_null(0).sort("at")
    dated = float(wide["at"][0]) > FIRST_DATE
    at = wide["at"].to_numpy() / (DAY if dated else 1)  # matplotlib counts dates in days since 1970
    width = (at[-1] - at[0]) / BINS if len(at) > 1 else 1.0
    with panel("timeline", 7, 2.2) as canvas:
        below = pl.zeros(wide.height, eager=True)
        for part, colour in PARTS.items():
            if part in wide.columns:
                canvas.ax.bar(at, wide[part], width=width, bottom=below, color=colour, label=part)
                below = below + wide[part]
        canvas.ax.set_ylabel("rows")
        canvas.ax.set_xlabel("" if dated else "order")
        if dated:
            from matplotlib.dates import AutoDateFormatter, AutoDateLocator

            days = AutoDateLocator(maxticks=DATES)
            canvas.ax.xaxis.set_major_locator(days)
            canvas.ax.xaxis.set_major_formatter(AutoDateFormatter(days))
        canvas.ax.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return canvas.svg


def bit_balance(ones: Sequence[float], name: str) -> str:
    """Share of codes in which each bit is set; one half is best."""
    with panel(name, 5, 1.7) as canvas:
        colours = ["#c2385a" if share in (0, 1) else "#9fb3c8" for share in ones]
        canvas.ax.bar(range(1, len(ones) + 1), [max(share, 0.01) for share in ones], color=colours)
        canvas.ax.axhline(0.5, color=INK, lw=0.8, ls=":")
        canvas.ax.set_xlim(0.3, len(ones) + 0.7)
        canvas.ax.set_ylim(0, 1)
        canvas.ax.set_xlabel("bit")
    return canvas.svg


def with_bands(points: Sequence[Any], name: str, axis: str) -> str:
    """A line with a 95 % band for each method; points: `ranked.Point`, those of a method together."""
    with panel(name, 5, 3.2) as canvas:
        methods = list(dict.fromkeys(point.method for point in points))
        for place, method in enumerate(methods):
            own = sorted((p for p in points if p.method == method), key=lambda p: p.at)
            at, colour = [p.at for p in own], LINES[place % len(LINES)]
            style = ("-", "--", ":")[place // len(LINES) % 3]
            canvas.ax.fill_between(
                at, [p.low for p in own], [p.high for p in own], color=colour, alpha=0.12, lw=0
            )
            canvas.ax.plot(
                at, [p.value for p in own], style, color=colour, lw=1.5, marker="o", ms=3, label=method
            )
        canvas.ax.set_xscale("symlog", linthresh=1)
        groups = spaced({p.at for p in points if p.method == methods[0]}) if methods else []
        canvas.ax.set_xticks(groups, [f"{at:.0f}" for at in groups])  # a decade has too few of its own
        canvas.ax.minorticks_off()
        canvas.ax.set_xlabel(axis)
        canvas.ax.set_ylabel(WORDS["ndcg_10"])
        canvas.ax.set_ylim(bottom=0)
        canvas.ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return canvas.svg


def spaced(groups: Iterable[float]) -> list[float]:
    """Those of the places that have room for a number of their own on an axis that is logarithmic from 1 on."""
    ordered = sorted(groups)
    along = [at if at < 1 else 1 + math.log10(at) for at in ordered]
    kept: list[int] = []
    for place, at in enumerate(along):
        if not kept or at - along[kept[-1]] >= TICK_ROOM * (along[-1] - along[0]):
            kept.append(place)
    return [ordered[place] for place in kept]


def heat(shares: Mapping[tuple[str, str], float], name: str) -> str:
    """A square of shares in 0..1, each written in its cell."""
    names = list(dict.fromkeys(one for one, _ in shares))
    side = max(4.5, 0.5 * len(names) + 1.1)
    with panel(name, side, side) as canvas:
        table = [[shares[one, other] for other in names] for one in names]
        canvas.ax.pcolormesh(table, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
        for row, line in enumerate(table):
            for column, value in enumerate(line):
                colour = "white" if value > 0.6 else INK
                canvas.ax.text(
                    column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8
                )
        middles = [place + 0.5 for place in range(len(names))]
        canvas.ax.set_xticks(middles, names, rotation=45, ha="right")
        canvas.ax.set_yticks(middles, names)
        canvas.ax.invert_yaxis()
        canvas.ax.grid(False)
        canvas.ax.set_aspect("equal")
    return canvas.svg
