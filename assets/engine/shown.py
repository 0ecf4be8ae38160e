"""What the Dagster UI shows of a stage and of its artefacts: columns, numbers, pictures, first rows, checks.

Everything that comes from data is escaped: the UI renders Markdown, and titles are written by strangers.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import dagster as dg
import polars as pl

from pipeline.schema import Table
from pipeline.stage import Check, Stage
from pipeline.store import Artefact

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 12
CELL_LENGTH = 60
NOT_JUDGED = {
    "passed": False,
    "blocking": False,
    "description": "not judged: made before this check; raise the stage's version to judge it",
    "facts": {},
}
COST = {"seconds", "cpu_seconds", "peak_memory_mb", "memory_before_mb", "device", "started"}
PICTURE_BYTES = 200_000
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")


def columns(schema: type[Table]) -> dg.TableSchema:
    """A table's columns as Dagster's Columns tab shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                type=str(column.dtype),
                description=column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable, unique=column.primary_key and len(schema.primary_key()) == 1
                ),
            )
            for name, column in schema.columns().items()
        ]
    )


def definition(stage: Stage) -> dict[str, Any]:
    """Metadata known before a run: columns and grain of every table, the first in Dagster's own place."""
    shown: dict[str, Any] = {"version": stage.version, "settings": settings_table(stage)}
    for place, (name, schema) in enumerate(stage.tables.items()):
        key = "dagster/column_schema" if place == 0 else f"{name}/columns"
        shown[key] = columns(schema)
        shown[f"{name}/grain"] = schema.grain
    return shown


def settings_table(stage: Stage) -> dg.MetadataValue:
    """The stage's settings, their defaults and meaning."""
    rows = [
        [
            name,
            "" if field.is_required() else repr(field.get_default(call_default_factory=True)),
            field.description,
        ]
        for name, field in stage.settings.model_fields.items()
    ]
    return dg.MetadataValue.md(table(["setting", "default", "meaning"], rows, longest=300) if rows else "none")


def describe(
    artefacts: Sequence[Artefact], hits: Sequence[bool], seconds: float, stage: Stage
) -> dict[str, Any]:
    """Metadata of one materialisation; numbers become plots over time."""
    if not artefacts:
        return {"note": "not in this study", "cells": 0, "computed": 0, "reused": 0, "took_seconds": seconds}
    facts: dict[str, Any] = {
        "cells": len(artefacts),
        "computed": hits.count(False),
        "reused": hits.count(True),
        "took_seconds": round(seconds, 3),
        "path": dg.MetadataValue.path(str(artefacts[0].path)),
        "fingerprint": artefacts[0].fingerprint,
    }
    return metrics(artefacts) | rows(artefacts, stage) | cost(artefacts) | facts | views(artefacts, stage)


def rows(artefacts: Sequence[Artefact], stage: Stage) -> dict[str, int]:
    """Rows of every table, over all cells."""
    counts = {name: sum(count(artefact, name) for artefact in artefacts) for name in stage.tables}
    first = next(iter(counts), None)
    main = {"dagster/row_count": counts[first]} if first else {}
    return main | {f"{name}/rows": rows for name, rows in counts.items()}


def count(artefact: Artefact, name: str) -> int:
    return artefact.manifest["tables"].get(name, {"rows": 0})["rows"]


def cost(artefacts: Sequence[Artefact]) -> dict[str, Any]:
    """What making these artefacts took, when they were made."""
    measured = [artefact.measured for artefact in artefacts]
    return {
        "seconds": round(sum(m["seconds"] for m in measured), 3),
        "peak_memory_mb": max(m["peak_memory_mb"] for m in measured),
        "device": ", ".join(sorted({str(m["device"]) for m in measured})),
    }


def metrics(artefacts: Sequence[Artefact]) -> dict[str, Any]:
    """Metrics and measures: plain for one cell, mean and a table by cell for several."""
    facts = [dict(a.metrics) | {k: v for k, v in a.measured.items() if k not in COST} for a in artefacts]
    names = sorted({name for one in facts for name in one})
    means = {name: average([one.get(name) for one in facts]) for name in names}
    shown: dict[str, Any] = {name: value for name, value in means.items() if value is not None}
    if len(artefacts) > 1 and names:
        by_cell = [
            [cell(a), *(one.get(name) for name in names)] for a, one in zip(artefacts, facts, strict=True)
        ]
        shown["by_cell"] = dg.MetadataValue.md(table(["cell", *names], by_cell))
    return shown


def average(values: Sequence[Any]) -> float | int | str | None:
    """The one value, the mean of several numbers, or None where that has no meaning."""
    known = [value for value in values if value is not None]
    if len(known) == 1 or (known and all(value == known[0] for value in known)):
        alone = known[0]
        return str(alone) if isinstance(alone, float) and not math.isfinite(alone) else alone
    numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in known)
    return fmean(known) if known and numbers else None


def cell(artefact: Artefact) -> str:
    return ", ".join(f"{key} {value}" for key, value in artefact.manifest["cell"].items()) or "all"


def views(artefacts: Sequence[Artefact], stage: Stage) -> dict[str, Any]:
    """First rows of each table and the pictures, of the first cell."""
    first = artefacts[0]
    shown = {
        f"{name}/preview": dg.MetadataValue.md(preview(first, name)) for name in stage.tables if first.has(name)
    }
    for picture in sorted(first.path.glob("pictures/*.svg")):
        if picture.stat().st_size <= PICTURE_BYTES:
            shown[f"picture/{picture.stem}"] = dg.MetadataValue.md(inline(picture.stem, picture.read_bytes()))
    return shown


def inline(title: str, svg: bytes) -> str:
    return f"![{escape(title)}](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})"


def preview(artefact: Artefact, name: str) -> str:
    frame = artefact.scan(name).head(PREVIEW_ROWS).collect()
    kept = frame.columns[:PREVIEW_COLUMNS]
    return table(kept, frame.select(kept).rows()) if kept else "no columns"


def table(header: Sequence[str], lines: Sequence[Sequence[Any]], longest: int = CELL_LENGTH) -> str:
    """A Markdown table of escaped cells."""
    head = "| " + " | ".join(escape(name) for name in header) + " |"
    body = ["| " + " | ".join(escape(show(value, longest)) for value in line) + " |" for line in lines]
    return "\n".join([head, "|" + " --- |" * len(header), *body])


def show(value: Any, longest: int = CELL_LENGTH) -> str:
    """A value in few characters: floats with four digits, long things cut."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, pl.Series):
        value = value.to_list()
    text = ", ".join(show(v) for v in value[:20]) if isinstance(value, list) else str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def escape(text: str) -> str:
    """Text that Markdown and HTML show as written, on one line."""
    flat = " ".join(text.split())
    return MARKDOWN.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def check_specs(stage: Stage, key: Sequence[str]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            check.name, asset=dg.AssetKey(key), blocking=check.blocking, description=first_line(check)
        )
        for check in stage.checks
    ]


def first_line(check: Check) -> str:
    return check.description.split("\n")[0]


def check_results(stage: Stage, artefacts: Sequence[Artefact]) -> list[dg.AssetCheckResult]:
    """Each check over all cells: passed where it passed in each."""
    return [one_result(check, [(cell(a), verdict(a, check)) for a in artefacts]) for check in stage.checks]


def verdict(artefact: Artefact, check: Check) -> Mapping[str, Any]:
    return artefact.manifest["checks"].get(check.name, NOT_JUDGED)


def one_result(check: Check, found: Sequence[tuple[str, Mapping[str, Any]]]) -> dg.AssetCheckResult:
    failed = [(where, verdict) for where, verdict in found if not verdict["passed"]]
    told = failed or list(found)
    several = len(found) > 1
    lines = [f"{where}: {v['description']}" if several else v["description"] for where, v in told]
    facts = {name: value for _, verdict in told[:1] for name, value in verdict["facts"].items()}
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=not failed,
        severity=severity(check, failed),
        description="; ".join(lines[:5]) or "nothing to check in this study",
        metadata={"cells": len(found), "cells_failed": len(failed)} | {k: plain(v) for k, v in facts.items()},
    )


def severity(check: Check, failed: Sequence[tuple[str, Mapping[str, Any]]]) -> dg.AssetCheckSeverity:
    """An error stops what is downstream; an artefact that was never judged does not."""
    judged_bad = any(verdict is not NOT_JUDGED for _, verdict in failed)
    return dg.AssetCheckSeverity.ERROR if check.blocking and judged_bad else dg.AssetCheckSeverity.WARN


def plain(value: Any) -> Any:
    """A fact as Dagster's metadata takes it."""
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return dg.MetadataValue.text(show(value)) if value is not None else "none"
