"""What the command line prints: status, plans, events of a run, the leaderboard, results of SQL."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import polars as pl
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from pipeline.forecasts import Told
from pipeline.graph import Status
from pipeline.machine import Machine, gib
from pipeline.store import Artefact, Store

COLOURS = {"fresh": "green", "stale": "yellow", "missing": "red"}
SIGNS = {"good": "green", "note": "yellow", "bad": "red"}
# in the order of interest
LEADING = ("auc", "uauc", "log_loss", "accuracy", "ndcg_10", "hr_1", "hr_10", "mrr_10")
BOUNDED = 2  # of them stand with their intervals, so that a line fits into 80 columns
LOWER_IS_BETTER = {"log_loss"}


def table(*header: str, whole: int = 0) -> Table:
    """An empty table; the first columns, as many as `whole`, are never folded."""
    made = Table(header_style="bold", box=None, pad_edge=False)
    for place, name in enumerate(header):
        made.add_column(name, overflow="fold", no_wrap=place < whole)
    return made


def status_table(statuses: Sequence[Status], store: Store, only: Iterable[str] | None = None) -> Table:
    """One line per asset: its worst state, cells, why, failed checks, and what its artefacts took."""
    made = table("asset", "state", "cells", "why", "took", whole=2)
    kept = None if only is None else set(only)
    for name, group in groupby(statuses, key=lambda s: s.planned.stage.name):
        cells = list(group)
        if kept is None or name in kept:
            made.add_row(*status_row(name, cells, store))
    return made


def status_row(name: str, cells: Sequence[Status], store: Store) -> list[str]:
    state = worst(cells)
    artefacts = [a for s in cells if s.state == "fresh" and (a := found(s, store)) is not None]
    why = "; ".join(dict.fromkeys(s.why for s in cells if s.why))
    told = [escape(why)] if why else []
    told += failures(artefacts)
    took = f"{sum(a.measured['seconds'] for a in artefacts):.1f} s" if artefacts else ""
    fresh = sum(s.state == "fresh" for s in cells)
    count = f"{len(cells)}" if fresh in (0, len(cells)) else f"{fresh} of {len(cells)} fresh"
    return [name, f"[{COLOURS[state]}]{state}[/]", count, "; ".join(told), took]


def forecast_table(told: Sequence[Told], machine: Machine) -> Table:
    """One line per asset that foretells what it takes, and their sum; what does not fit is red."""
    made = table("asset", "cells", "memory", "time", "paced by", whole=4)
    for one in told:
        colour = "red" if one.refused else "default"
        size = gib(one.memory) if one.forecasts else "not known yet"
        made.add_row(one.asset, str(one.cells), f"[{colour}]{size}[/]", lasting(one.seconds), one.paced_by)
    known = [one.seconds for one in told if one.seconds is not None]
    total = lasting(sum(known)) if known else ""
    made.add_row("[dim]together[/dim]", "", f"[dim]{gib(machine.free)} free[/dim]", total, "")
    return made


def lasting(seconds: float | None) -> str:
    """`about 3 min`; nothing where it is unknown."""
    if seconds is None:
        return ""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {max(1, seconds):.0f} s"


def failures(artefacts: Iterable[Artefact]) -> list[str]:
    """Checks that failed, those that block before those that only warn."""
    found = {
        (not verdict["blocking"], name)
        for artefact in artefacts
        for name, verdict in artefact.manifest["checks"].items()
        if not verdict["passed"]
    }
    blocking, warning = ([name for warns, name in sorted(found) if warns == kind] for kind in (False, True))
    told = [f"[red]check failed: {', '.join(blocking)}[/red]"] if blocking else []
    return told + ([f"[yellow]check warns: {', '.join(warning)}[/yellow]"] if warning else [])


def worst(cells: Sequence[Status]) -> str:
    states = {s.state for s in cells}
    return next(state for state in ("missing", "stale", "fresh") if state in states)


def found(status: Status, store: Store) -> Artefact | None:
    return store.find(status.planned.stage.name, status.planned.spec.fingerprint)


def leaderboard(store: Store, study: str, track: str = "ctr", part: str = "test") -> Group | None:
    """The study's leaderboard of a track with 95 % intervals, best first; None where it has none yet.

    A track of several stored lists has a table for each.
    """
    frame = board(store, study, track, part)
    if frame is None or frame.is_empty():
        return None
    tables = [part_of(rows, study, part) for rows in frame.partition_by("track", maintain_order=True)]
    return Group(*(line for one in tables for line in ("", one)[one is tables[0] :]))


def part_of(frame: pl.DataFrame, study: str, part: str) -> Group:
    """The rows of one track as a table under its title."""
    shown = [name for name in LEADING if name in frame["metric"].unique()]
    made = table("method", *shown, whole=1)
    made.padding = (0, 1, 0, 0)  # one blank between columns, for 80 of them
    for method, variant, figures in ranked(frame, shown[0]):
        cells = [figure(figures.get(name), bounds=place < BOUNDED) for place, name in enumerate(shown)]
        made.add_row(method if variant == "default" else f"{method} ({variant})", *cells)
    track = frame["track"][0]
    title = f"[bold]Leaderboard of {study}[/bold], {track}, {part} part, 95 % intervals over users"
    return Group(title, made)


def board(store: Store, study: str, track: str, part: str) -> pl.DataFrame | None:
    for head in store.head(study, f"{track}/leaderboard") or []:
        artefact = store.find(f"{track}/leaderboard", head["fingerprint"])
        if artefact is not None:
            return artefact.table("leaderboard").filter(pl.col("part") == part)
    return None


Figure = Mapping[str, float]


def ranked(frame: pl.DataFrame, metric: str) -> list[tuple[str, str, dict[str, Figure]]]:
    """(method, variant, metric -> figure), best by the metric first."""
    lines: list[tuple[str, str, dict[str, Figure]]] = [
        (str(method), str(variant), {row["metric"]: row for row in group.to_dicts()})
        for (method, variant), group in frame.group_by("method", "variant", maintain_order=True)
    ]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(
        lines, key=lambda line: sign * line[2][metric]["value"] if metric in line[2] else float("inf")
    )


def figure(value: Figure | None, bounds: bool) -> str:
    """`0.7012`, with bounds `0.7012 .655-.747`."""
    if value is None or value["value"] is None:
        return ""
    ends = "-".join(f"{value[end]:.3f}".removeprefix("0") for end in ("low", "high"))
    return f"{value['value']:.4f} [dim]{ends}[/dim]" if bounds else f"{value['value']:.4f}"


def frame_table(frame: pl.DataFrame, most: int = 200) -> Table:
    """Rows of a query, the first `most` of them."""
    made = table(*frame.columns)
    for row in frame.head(most).iter_rows():
        made.add_row(*(escape(cell(value)) for value in row))
    return made


def cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def diagnosis(state: str, what: str, found: str, mend: str) -> Table:
    """A finding of the doctor's, aligned with those before it, and below it how to mend it."""
    made = Table(box=None, pad_edge=False, show_header=False)
    for width in (4, 28, None):
        made.add_column(min_width=width, max_width=width, overflow="fold")
    told = escape(found) + (f"\n-> {escape(mend)}" if mend else "")
    made.add_row(f"[{SIGNS[state]}]{state}[/]", escape(what), told)
    return made


def console() -> Console:
    """The terminal; wide and plain where the output goes to a file or a pipe, so that tables do not fold."""
    return Console() if sys.stdout.isatty() else Console(width=160, no_color=True)
