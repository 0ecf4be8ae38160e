"""The report: everything a study found, in one HTML file that needs no network.

    every artefact of the study -> facts -> findings, boards, figures -> page -> report.html

`facts` gathers plain rows, `findings` says the verdict in words, `boards` lays out each track's section,
`figures` draws, `page` writes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from pipeline.evaluate.report import ranked
from pipeline.evaluate.report.boards import Published
from pipeline.evaluate.report.contained import loads
from pipeline.evaluate.report.facts import gather, holding
from pipeline.evaluate.report.findings import told
from pipeline.evaluate.report.page import TEMPLATE, page
from pipeline.evaluate.results import Name
from pipeline.stage import Artefact, Check, Draft, Every, Input, Settings, Verdict, hash_file, stage

__all__ = ["ReportSettings", "report"]

FILE = "report.html"
PUBLISHED = (
    Path(__file__).resolve().parents[3] / "warehouse" / "published.csv"
)  # as the warehouse's views read it


class ReportSettings(Settings):
    """What the report puts first."""

    title: str = Field("", description="head of the page; the study's title unless given")
    study: str = Field("", description="name on the page; the study's own unless given")
    metric: Literal["auc", "uauc"] = Field(
        "auc", description="metric of the verdict and of the order, on tracks that have it"
    )
    published: str | None = Field(
        None, description="name in published.csv of the data set whose data and split equal the study's"
    )
    prompts: int = Field(2, ge=0, description="example prompts of each method's variant")


def outside(settings: ReportSettings, root: Path) -> dict[str, str]:
    """Hashes of the page's template, and of the published figures where the study asks for them."""
    read = {"template": TEMPLATE} | ({"published": PUBLISHED} if settings.published else {})
    return {name: hash_file(file) for name, file in read.items()}


def published(file: Path, data: str | None) -> list[Published] | None:
    """Test figures of papers on a data set; None where the study names no such data set."""
    if data is None:
        return None
    rows = pl.read_csv(file, infer_schema=False).filter(data=data, split="test").iter_rows(named=True)
    return [
        Published(
            Name(r["method"], r["variant"]),
            r["metric"],
            float(r["value"]),
            r["source"],
            r["track"],
            r["note"] or "",
        )
        for r in rows
    ]


def self_contained(draft: Draft, inputs: Mapping[str, Input], settings: ReportSettings) -> Verdict:
    """The page loads nothing, runs nothing, and no title or answer stands in it as markup."""
    found = loads(draft.file(FILE).read_text())
    return Verdict(not found, "; ".join(found[:5]) or "one file, no request", {"loads": len(found)})


def every_method_is_shown(draft: Draft, inputs: Mapping[str, Input], settings: ReportSettings) -> Verdict:
    """Each method and variant on the leaderboard stands in the page."""
    html, missing = draft.file(FILE).read_text(), []
    for artefact in holding(listed(inputs["everything"]), "leaderboard"):
        for name in artefact.table("leaderboard").select("method", "variant").unique().iter_rows():
            if f'<th scope="row">{told(Name(*name))}</th>' not in html:
                missing.append(told(Name(*name)))
    return Verdict(
        not missing, f"missing: {', '.join(sorted(missing))}" if missing else "", {"missing": len(missing)}
    )


def listed(source: Input) -> list[Artefact]:
    return source if isinstance(source, list) else [source]


@stage(
    "report",
    settings=ReportSettings,
    section="evaluate",
    version=11,
    inputs={"everything": Every()},
    checks=(Check(self_contained), Check(every_method_is_shown)),
    shared={"title": "title", "study": "name"},
    outside=outside,
    measured=True,
)
def report(everything: list[Artefact], settings: ReportSettings, out: Draft) -> None:
    """Write all that the study found as one HTML page: verdict, figures, costs, checks, settings."""
    facts = gather(everything, settings.prompts)
    figures = published(PUBLISHED, settings.published)
    shown = {one.track.name: ranked.gather(everything, one) for one in facts.boards}
    beside = {name: found for name, found in shown.items() if found}
    html = page(settings.study, settings.title, settings.metric, facts, figures, beside)
    out.file(FILE).write_text(html, encoding="utf-8")
    out.metric(
        methods=sum(len(board.kinds) for board in facts.boards),
        checks=len(facts.checks),
        failed=sum(not c.passed for c in facts.checks),
    )
    out.measure(kilobytes=len(html.encode()) // 1024)
