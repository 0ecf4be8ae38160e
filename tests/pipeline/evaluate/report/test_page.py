"""The page as a reader and as a browser meet it."""

import re
from html.parser import HTMLParser

import pytest

from pipeline.evaluate.report import ranked
from pipeline.evaluate.report.facts import gather
from pipeline.evaluate.report.page import asked, costs, count, environment, memory, page, signed, when
from tests.warehouse.synthetic import HOSTILE

LISTS = ["rerank-random-10", "rerank-random-20", "rerank-retrieved-50"]
SECTIONS = [
    "ctr",
    "help",
    "cost",
    "learning",
    "codes",
    "semantic-ids",
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
    html = page("quickstart", HOSTILE[0], "auc", facts, None, {})
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
    html = page("quickstart", "t", "auc", facts, None, {})
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
    assert "CoLLM, Zhang et al., TKDE 2025, arXiv 2310.19488v3, Table II<" in table
    assert ">codes alone, 32 bits, no language model<" in table  # how it was measured


def test_without_a_published_data_set_a_note_stands_there(plain):
    assert ">published 0" not in plain.html
    assert "does not name a published data set" in plain.html


def test_baselines_only_still_make_a_whole_page(plain):
    outline = Outline(plain.html)
    assert outline.open == []
    found = [attrs["id"] for tag, attrs in outline.tags if tag == "section"]
    assert found == [name for name in SECTIONS if name != "semantic-ids"]
    assert "No method with a control was run" in plain.html
    assert "No language model was asked" in plain.html


def test_empty_study_still_makes_a_page():
    html = page("empty", "", "auc", gather([], prompts=2), None, {})
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


# ---- a study of the one track, of the other, and of both


@pytest.fixture(scope="module")
def lists_only(ranked_study) -> str:
    """The page of a study that asks for the next item only."""
    own = [a for a in ranked_study.everything if a.stage.startswith(("next_item/", "dataset", "source"))]
    [board] = gather(own, 0).boards
    lists = ranked.gather(own, board)
    assert lists is not None
    return page("lists", "", "auc", gather(own, 0), None, {"next_item": lists})


def text_of(html: str) -> str:
    return " ".join("".join(Outline(html).text).split())


def test_both_tracks_have_a_verdict_a_section_and_costs(ranked_study):
    outline, html = Outline(ranked_study.html), ranked_study.html
    sections = [attrs["id"] for tag, attrs in outline.tags if tag == "section"]
    assert sections == ["ctr", "next-item", *LISTS, *SECTIONS[1:]]
    assert len(outline.ids) == len(set(outline.ids))
    head = text_of(html[html.index('<div id="verdict"') : html.index("<nav")])
    assert re.search(r"Highest on the test part: \w+, AUC", head)
    assert re.search(r"Highest on the test part: \w+, NDCG@10", head)
    assert "Rerank" not in head
    assert [html.count("by construction"), html.count('id="rerank-retrieved-50"')] == [1, 1]
    panel = html[html.index('<section id="cost">') : html.index('<section id="learning">')]
    for words in ("AUC on test", "NDCG@10 on test", ">next item</td>", ">ctr</td>"):
        assert words in panel


def test_a_study_of_lists_speaks_of_nothing_else(lists_only):
    assert Outline(lists_only).open == []
    text = text_of(lists_only)
    assert re.search(r"Highest on the test part: \w+, NDCG@10", text)
    assert "Events, for the task next item" in text
    for word in ("ctr", "AUC", "log loss", "Log loss", "liked or not", "No split has been made"):
        assert word not in text


def test_a_study_of_pairs_speaks_of_no_lists(full):
    text = text_of(full.html)
    for word in ("NDCG", "catalogue", "next item", "Next item", "Events"):
        assert word not in text


def test_costs_stand_by_track_the_dearest_first(ranked_study):
    found = costs(gather(ranked_study.everything, 0))
    assert [row["track"] for row in found] == sorted(row["track"] for row in found)
    own = [row["cost"].seconds for row in found if row["track"] == "next_item"]
    assert own == sorted(own, reverse=True)


def test_comparisons_of_competing_models_stand_with_their_track_alone(ranked_study, full):
    assert asked(gather(ranked_study.everything, 0), "baseline") == []
    [(words, rows)] = asked(gather(full.everything, 0), "baseline")
    assert words.startswith("Like or not")
    assert rows
