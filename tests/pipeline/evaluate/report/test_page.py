"""The page as a reader and as a browser meet it."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest

from pipeline.evaluate.report.facts import gather
from pipeline.evaluate.report.page import (
    Published,
    bar,
    best_published,
    board,
    count,
    differences,
    environment,
    memory,
    page,
    papers,
    signed,
    when,
)
from pipeline.evaluate.results import Name
from tests.warehouse.synthetic import HOSTILE

SECTIONS = [
    "leaderboard",
    "help",
    "cost",
    "learning",
    "codes",
    "data",
    "checks",
    "prompts",
    "settings",
    "reproduce",
]
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Outline(HTMLParser):
    """Open tags that were never closed, ids, section ids and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def outline(full) -> Outline:
    return Outline(full.html)


def test_every_element_is_closed(outline):
    assert outline.open == []


def test_no_id_stands_twice(outline):
    assert len(outline.ids) == len(set(outline.ids))


def test_all_sections_are_there_in_order_and_linked(outline):
    found = [attrs["id"] for tag, attrs in outline.tags if tag == "section"]
    linked = [attrs["href"][1:] for tag, attrs in outline.tags if tag == "a"]
    assert found == linked == SECTIONS


def test_verdict_comes_before_everything(full):
    assert full.html.index('id="verdict"') < full.html.index("<h2")


def test_titles_are_written_as_text_never_as_markup(full):
    facts = gather(full.everything, prompts=10_000)
    html = page("quickstart", HOSTILE[0], "auc", facts, None)
    outline = Outline(html)
    text = "".join(outline.text)
    for title in HOSTILE:
        assert title in text
    assert HOSTILE[0] not in html
    assert HOSTILE[1] not in html
    assert not [tag for tag, _ in outline.tags if tag in ("script", "img")]
    assert "49" not in re.findall(r"(\S+) &lt;\|im_start", html)  # {{ 7 * 7 }} was not worked out


def test_quarantined_value_is_escaped(full):
    facts = gather(full.everything, prompts=0)
    facts.quarantine[0]["value"] = "<b>0</b>"
    html = page("quickstart", "t", "auc", facts, None)
    assert "<b>0</b>" not in html
    assert "&lt;b&gt;0&lt;/b&gt;" in html


def test_pictures_and_bars_say_what_they_show(outline):
    svgs = [attrs for tag, attrs in outline.tags if tag == "svg" and "bar" in (attrs.get("class") or "")]
    figures = [attrs for tag, attrs in outline.tags if tag == "figure"]
    assert len(svgs) > 16
    assert len(figures) > 10
    assert all(attrs.get("aria-label") for attrs in (*svgs, *figures))


def test_tables_have_headers_with_scopes(outline):
    headers = [attrs for tag, attrs in outline.tags if tag == "th"]
    assert len(headers) > 100
    assert all(attrs.get("scope") in ("col", "row") for attrs in headers)


def test_page_forbids_itself_to_load_anything(outline):
    policies = [
        a["content"]
        for t, a in outline.tags
        if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_page_fits_a_phone_and_paper(full):
    assert '<meta name="viewport" content="width=device-width' in full.html
    assert "@media print" in full.html


def test_published_figures_stand_beside_ours(full):
    row = re.search(r'<th scope="row">binmf</th><td><span class="kind.*?</tr>', full.html, re.S)
    assert row
    assert ">published 0.7189<" in row.group()
    assert ">published 0.6654<" in row.group()


def test_all_published_results_are_listed_with_their_sources(full):
    table = full.html[full.html.index("Published as") :]
    assert '<th scope="row">sasrec</th>' in table
    assert "<td>CoLLM, Zhang et al., TKDE 2025, arXiv 2310.19488v3, Table II</td>" in table


def test_published_results_of_one_method_are_one_row_for_each_source():
    mf = Name("mf", "default")
    printed = [Published(mf, "auc", 0.6, "A"), Published(mf, "uauc", 0.5, "A"), Published(mf, "auc", 0.7, "B")]
    assert papers(printed) == [
        {"name": mf, "source": "B", "auc": 0.7, "uauc": None},
        {"name": mf, "source": "A", "auc": 0.6, "uauc": 0.5},
    ]
    assert best_published(mf, printed) == {"auc": 0.7, "uauc": 0.5}
    assert best_published(Name("mf", "other"), printed) == {}


def test_without_a_published_data_set_a_note_stands_there(plain):
    assert ">published 0" not in plain.html
    assert "does not name a published data set" in plain.html


def test_baselines_only_still_make_a_whole_page(plain):
    outline = Outline(plain.html)
    assert outline.open == []
    assert [attrs["id"] for tag, attrs in outline.tags if tag == "section"] == SECTIONS
    assert "No method with a control was run" in plain.html
    assert "No language model was asked" in plain.html


def test_empty_study_still_makes_a_page():
    html = page("empty", "", "auc", gather([], prompts=2), None)
    assert Outline(html).open == []
    assert "No method has been scored" in html
    assert "<h1>empty</h1>" in html


def test_study_of_two_seeds_shows_their_deviation(full, plain):
    assert "over 2 seeds" in full.html
    assert "seeds 1, 2" in full.html
    assert "over 2 seeds" not in plain.html


def test_failed_check_is_marked(full):
    assert '<span class="warn">! warning</span></td><th scope="row">binary_codes</th>' in full.html


def test_every_fingerprint_is_in_the_settings(full):
    for artefact in full.everything:
        assert f'title="{artefact.fingerprint}"' in full.html


def test_board_is_sorted_by_the_metric(full):
    facts = gather(full.everything, 0)
    for metric in ("auc", "uauc"):
        values = [row["figures"][metric]["value"] for row in board(facts, metric, [])]
        assert values == sorted(values, reverse=True)


def test_published_figure_belongs_to_its_variant(full):
    facts = gather(full.everything, 0)
    rows = board(facts, "auc", [Published(Name("binllm", "dotted"), "auc", 0.7425, "paper")])
    assert [r["name"].variant for r in rows if r["published"]] == ["dotted"]


def test_bar_keeps_its_order_inside_the_line():
    found = bar({"low": 0.6, "value": 0.7, "high": 0.8}, (0.5, 0.9), 0.5)
    assert found.guide is not None
    assert 0 < found.guide < found.low < found.value < found.high < 1


def test_differences_share_one_scale_with_zero_on_it(full):
    rows = differences(gather(full.everything, 0), "control")
    assert len(rows) == 4
    assert len({row["bar"].guide for row in rows}) == 1
    for row in rows:
        assert (row["bar"].value > row["bar"].guide) == (row["difference"] > 0)


def test_undefined_names_in_the_template_are_errors():
    with pytest.raises(Exception, match="undefined"):
        environment().from_string("{{ nothing_of_that_name }}").render()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (signed(-0.5), "\N{MINUS SIGN}0.5000"),
        (signed(0.25), "+0.2500"),
        (count(1234567), "1,234,567"),
        (count(None), ""),
        (memory(512), "512 MB"),
        (memory(2048), "2.0 GB"),
        (when(893_286_638), "1998-04-22"),
        (when(12_345), "12,345"),
    ],
)
def test_values_are_written_for_people(written, expected):
    assert written == expected


def test_page_does_not_depend_on_the_order_of_artefacts_in_a_table(full):
    facts = gather(full.everything, 0)
    assert isinstance(facts.leaderboard, pl.DataFrame)
    assert board(facts, "auc", []) == board(gather(list(reversed(full.everything)), 0), "auc", [])
