"""The rerank section: a board for each kind of list, and the page that shows them."""

import re

import polars as pl
import pytest

from pipeline.evaluate.report import lists
from pipeline.evaluate.report.contained import loads
from pipeline.evaluate.results import Name


@pytest.fixture(scope="module")
def boards(ranked_study):
    return {board.name: board for board in lists.gather(ranked_study.everything)}


def test_every_kind_of_list_has_a_board_of_its_own_with_the_best_first(boards):
    assert list(boards) == ["random_10", "random_20", "retrieved_50"]
    for board in boards.values():
        assert {row.name for row in board.rows} == {Name("sasrec", "default"), Name("popularity", "default")}
        first, second = (row.figures["ndcg_10"]["value"] for row in board.rows)
        assert first > second
        assert {row.kind for row in board.rows} == {"baseline"}


def test_figures_are_those_of_the_leaderboard(boards, ranked_study):
    table = ranked_study.stages["rerank/leaderboard"][0].table("leaderboard")
    own = table.filter(track="rerank/random_20", method="popularity", part="test", metric="hr_1").row(
        0, named=True
    )
    (row,) = [row for row in boards["random_20"].rows if row.name.method == "popularity"]
    assert row.figures["hr_1"] == own
    assert row.figures.keys() == set(boards["random_20"].metrics)


def test_a_study_without_lists_has_no_board_and_no_section(plain):
    assert lists.gather(plain.everything) == []
    assert 'id="rerank"' not in plain.html


def test_the_page_shows_each_list_and_stays_one_safe_file(ranked_study):
    html = ranked_study.html
    (section,) = re.findall(r'<section id="rerank">.*?</section>', html, re.S)
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["random 10", "random 20", "retrieved 50"]
    assert section.count('<th scope="row">sasrec</th>') == 3
    assert section.count("HR@1<") == 3
    assert '<a href="#rerank">' in html
    assert loads(html) == []


def test_other_tracks_stay_out_of_the_section_on_the_catalogue(ranked_study):
    found = ranked_study.stages["next_item/leaderboard"][0].table("leaderboard")
    assert set(found["track"]) == {"next_item"}
    both = pl.concat([a.table("user_ranks") for a in ranked_study.everything if a.has("user_ranks")])
    assert both["track"].n_unique() == 4  # so that a curve over all of them would be wrong
