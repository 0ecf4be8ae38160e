"""The stage `report`: its checks judge, its identity follows the published figures, the warehouse reads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.evaluate import report as module
from pipeline.evaluate.report import (
    FILE,
    PUBLISHED,
    ReportSettings,
    every_method_is_shown,
    outside,
    published,
    self_contained,
)
from pipeline.evaluate.report import report as stage
from pipeline.evaluate.report.boards import Published
from pipeline.evaluate.results import Name
from pipeline.graph import Graph
from pipeline.store import Store
from pipeline.study import Study
from resources import warehouse
from tests.pipeline.evaluate.report.conftest import Browser
from tests.warehouse.synthetic import HOSTILE, ROOT

CSV = "method,variant,data,track,split,metric,value,source,note\nmf,default,d,ctr,test,auc,0.5,Paper,\n"


class Draft:
    """What a check needs of a draft: its files."""

    def __init__(self, folder, html: str) -> None:
        self.folder = folder
        self.file(FILE).write_text(html)

    def file(self, name: str):
        return self.folder / name


def judged(check, folder, html, made):
    return check(Draft(folder, html), {"everything": made.everything}, ReportSettings())


def test_report_of_the_study_passes_its_checks(full):
    checks = full.stages["report"][0].manifest["checks"]
    assert {name: found["passed"] for name, found in checks.items()} == {
        "self_contained": True,
        "every_method_is_shown": True,
    }


def test_title_that_slipped_in_as_markup_fails_the_check(full, tmp_path):
    for title in HOSTILE[:2]:
        html = full.html.replace("</main>", f"<p>{title}</p></main>")
        assert not judged(self_contained, tmp_path, html, full).passed


def test_escaped_titles_pass(full, tmp_path):
    assert judged(self_contained, tmp_path, full.html, full).passed


def test_page_that_loads_a_font_fails_the_check(full, tmp_path):
    html = full.html.replace("<title>", '<link rel="stylesheet" href="https://fonts.example/a.css"><title>')
    verdict = judged(self_contained, tmp_path, html, full)
    assert not verdict.passed
    assert "<link>" in verdict.description


def test_method_that_is_not_in_the_page_fails_the_check(full, tmp_path):
    html = full.html.replace("binllm (dotted)", "somebody")
    verdict = judged(every_method_is_shown, tmp_path, html, full)
    assert not verdict.passed
    assert verdict.description == "missing: binllm (dotted)"


def test_report_is_measured_and_counts_what_it_shows(full):
    artefact = full.stages["report"][0]
    assert stage.measured
    assert artefact.metrics == {"methods": 8, "checks": artefact.metrics["checks"], "failed": 1}
    assert artefact.measured["kilobytes"] > 50


def test_title_comes_from_the_study(full):
    assert "<h1>MovieLens-100K, small budget</h1>" in full.html


def test_published_figures_of_one_data_set_are_read(tmp_path):
    file = tmp_path / "published.csv"
    file.write_text(CSV + "mf,default,other,ctr,test,auc,0.9,Paper,\nmf,default,d,ctr,valid,auc,0.8,Paper,\n")
    assert published(file, "d") == [Published(Name("mf", "default"), "auc", 0.5, "Paper")]
    assert published(file, "absent") == []
    assert published(file, None) is None


def test_report_and_warehouse_read_the_same_published_figures():
    assert PUBLISHED == warehouse.PUBLISHED
    assert PUBLISHED.exists()


def test_identity_follows_the_template_and_the_published_file_where_it_is_asked_for(tmp_path, monkeypatch):
    figures, template = tmp_path / "published.csv", tmp_path / "page.html.j2"
    monkeypatch.setattr(module, "PUBLISHED", figures)
    monkeypatch.setattr(module, "TEMPLATE", template)
    figures.write_text(CSV)
    template.write_text("one")
    asked, plain = ReportSettings(published="d"), ReportSettings()
    first = outside(asked, tmp_path), outside(plain, tmp_path)
    figures.write_text(CSV + "\n")
    second = outside(asked, tmp_path), outside(plain, tmp_path)
    assert (first[0] != second[0], first[1] == second[1]) == (True, True)
    template.write_text("two")
    assert outside(plain, tmp_path) != second[1]


def identity(folder, **facts) -> str:
    study = Study(**{"name": "one", "title": "Title", **facts})
    (planned,) = Graph([stage]).plan(study, Store(folder), folder)
    return planned.spec.fingerprint


def test_identity_follows_the_studys_name_and_title_as_both_stand_in_the_page(tmp_path):
    assert len({identity(tmp_path), identity(tmp_path, name="two"), identity(tmp_path, title="Other")}) == 3


def test_name_on_the_page_is_the_studys(full):
    assert "study quickstart" in full.html


def test_leaderboard_view_carries_the_published_figures(full, plain, tmp_path):
    catalogue = warehouse.publish(full.store.root, tmp_path / "c.duckdb")
    rows = warehouse.query(catalogue, "select method, variant, published_auc from leaderboard").rows()
    assert ("binmf", "default", 0.7189) in rows
    assert ("binllm", "dotted", 0.7425) in rows
    assert ("binllm", "shuffled_codes", None) in rows
    other = warehouse.publish(plain.store.root, tmp_path / "d.duckdb")
    assert warehouse.query(other, "select count(published_auc) from leaderboard").item() == 0


def test_view_and_report_agree_on_costs(full, tmp_path):
    from pipeline.evaluate.report.facts import gather

    catalogue = warehouse.publish(full.store.root, tmp_path / "c.duckdb")
    costs = gather(full.everything, 0).boards[0].costs
    for row in warehouse.query(catalogue, "from costs").iter_rows(named=True):
        mine = costs[Name(row["method"], row["variant"])]
        assert row["seconds"] == pytest.approx(mine.seconds)
        assert row["seconds_with_inputs"] == pytest.approx(mine.seconds_with_inputs)
        assert row["trainable_parameters"] == mine.parameters
        assert row["tokens_seen"] == mine.tokens


def test_importing_the_stage_imports_nothing_heavy():
    heavy = {"torch", "matplotlib", "scipy", "sklearn"}
    code = f"import sys, pipeline.evaluate.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def requests(browser: Browser, page: Path, folder: Path) -> list[str]:
    """What a page asks the network for in a headless browser; the browser's own calls are left out."""
    folder.mkdir()
    log, shot = folder / "net.json", folder / "page.png"
    browser(page, folder, f"--screenshot={shot}", f"--log-net-log={log}", "--window-size=1200,1500")
    assert shot.stat().st_size > 1000
    started = [line for line in log.read_text().splitlines() if '"initiator"' in line and '"url":"http' in line]
    return [line for line in started if '"initiator":"not an origin"' not in line]


@pytest.mark.browser
def test_browser_shows_the_page_without_a_single_request(full, browser, tmp_path):
    page = full.stages["report"][0].file(FILE)
    assert requests(browser, page, tmp_path / "report") == []
    planted = tmp_path / "planted.html"
    planted.write_text('<img src="http://127.0.0.1:9/picture.png">')
    assert requests(browser, planted, tmp_path / "planted")
