"""The next_item section: curves, overlap and lists by hand, and the page of a study of two tracks."""

from dataclasses import replace

import polars as pl
import pytest

from pipeline.evaluate.report import ranked
from pipeline.evaluate.report.contained import loads
from pipeline.evaluate.report.facts import gather
from pipeline.evaluate.report.page import page
from pipeline.evaluate.report.ranked import curve, overlap, parts, target_popularity
from pipeline.evaluate.results import Name
from pipeline.evaluate.tracks import CTR, NEXT_ITEM
from tests.toy_ranked import catalogue, queries


def board_of(made, track, **changes):
    """The study's board of a track, perhaps as if the track were another."""
    [board] = [one for one in gather(made.everything, 0).boards if one.track == track]
    return replace(board, track=replace(track, **changes))


@pytest.fixture(scope="module")
def facts(ranked_study):
    found = ranked.gather(ranked_study.everything, board_of(ranked_study, NEXT_ITEM))
    assert found is not None
    return found


FIGURES = pl.DataFrame(
    {
        "method": ["a"] * 6 + ["b"] * 3,
        "user": [0, 1, 2, 0, 1, 2, 0, 1, 2],
        "seed": [1, 1, 1, 2, 2, 2, 0, 0, 0],
        "ndcg_10": [1.0, 0.0, 0.5, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0],
    }
)


def test_a_curve_averages_seeds_first_and_groups_users_by_where_they_stand():
    points = curve(FIGURES, pl.DataFrame({"user": [0, 1, 2], "at": [3, 3, 80]}))
    assert [(p.method, p.at, p.value, p.users) for p in points] == [
        ("a", 3.0, 0.25, 2),
        ("a", 80.0, 0.5, 1),
        ("b", 3.0, 1.0, 2),
        ("b", 80.0, 1.0, 1),
    ]
    assert (points[0].low, points[0].high) == (0.0, 0.5)


def test_a_users_targets_are_as_popular_as_their_mean():
    asked = queries([("test", 5, [], [0, 2]), ("test", 6, [], [3])])
    found = target_popularity(asked, catalogue([10, 7, 4, 0])).sort("user")
    assert found.rows() == [(5, 7.0), (6, 0.0)]


def test_methods_and_baselines_are_shown_by_name_controls_and_asides_are_not():
    kinds = {
        Name("tiger", "rqkmeans"): "method",
        Name("tiger", "random_ids"): "control",
        Name("sasrec", "default"): "baseline",
        Name("sasrec", "seen_kept"): "aside",
    }
    rows = pl.DataFrame([(*name, 0) for name in [*kinds, Name("gone", "default")]], orient="row")
    rows.columns = ["method", "variant", "user"]
    found = ranked.named(rows, ranked.shown(kinds))
    assert found["method"].to_list() == ["tiger (rqkmeans)", "sasrec"]
    assert ranked.named(rows, ranked.shown({})).is_empty()


def test_overlap_is_the_share_of_places_in_common():
    first = pl.DataFrame(
        {
            "method": ["a", "a", "a", "a", "b", "b", "b", "b"],
            "user": [0, 0, 1, 1, 0, 0, 1, 1],
            "rank": [1, 2] * 4,
            "item": [5, 6, 7, 8, 6, 5, 9, 7],
            "target": [False] * 8,
        }
    )
    found = overlap(first)
    assert found["a", "a"] == 1
    assert found["a", "b"] == found["b", "a"] == 3 / 4


def test_only_the_tracks_own_figures_are_gathered(facts, ranked_study):
    assert set(facts.exposure["track"]) == {"next_item"}
    assert ranked.gather(ranked_study.everything, board_of(ranked_study, CTR)) is None
    assert (
        ranked.gather(ranked_study.everything, board_of(ranked_study, NEXT_ITEM, name="elsewhere")) is None
    )  # nobody was asked


def test_parts_are_counted_in_their_order(facts, ranked_study):
    events = ranked_study.stages["next_item/split"][0].table("events")
    assert [(part["part"], part["rows"]) for part in facts.parts] == [
        (name, events.filter(part=name).height) for name in ("train", "valid", "test")
    ]
    train, _, test = facts.parts
    assert (train["asked"], train["cold_items"], test["asked"]) == (None, 0, events["user"].n_unique())


def test_events_of_items_without_training_rows_are_cold():
    events = pl.DataFrame({"part": "test", "user": [0, 1], "item": [0, 1], "at": [5, 7]})
    asked = queries([("test", 0, [2], [0]), ("test", 1, [], [1])])
    [found] = parts(events, asked, catalogue([3, 0]))
    assert (found["cold_items"], found["asked"], found["history"], found["last"]) == (0.5, 2, 0.5, 7)


SHARES = pl.DataFrame(
    [
        ("b", "x", 1, "test", 0.1, "hr_10", 0.4),
        ("b", "x", 2, "test", 0.1, "hr_10", 0.2),
        ("b", "x", 1, "valid", 0.1, "hr_10", 0.9),
        ("a", "y", 1, "test", 0.5, "hr_10", 0.7),
        ("a", "y", 1, "test", 0.0, "hr_10", 0.0),
        ("a", "y", 1, "test", 0.5, "ndcg_10", 0.25),
        ("a", "y", 1, "test", 0.5, "hr_5", 0.6),
    ],
    schema=["method", "variant", "seed", "part", "share", "metric", "value"],
    orient="row",
)


def test_shares_of_cold_items_are_test_figures_averaged_over_seeds():
    rates, gains = ranked.cold_shares(SHARES)
    assert (rates.metric, rates.columns, list(rates.rows)) == ("hr_10", [0, 0.1, 0.5], [("a", "y"), ("b", "x")])
    assert rates.rows[Name("a", "y")] == {0: 0, 0.5: 0.7}
    assert rates.rows[Name("b", "x")] == {0.1: pytest.approx(0.3)}
    assert gains == ("ndcg_10", [0.5], {("a", "y"): {0.5: 0.25}})
    assert ranked.cold_shares(SHARES.clear()) == []


def test_the_page_shows_shares_of_cold_items_where_a_study_has_them(facts, ranked_study):
    own = replace(facts, shares=ranked.cold_shares(SHARES))
    html = page("lists", "", "auc", gather(ranked_study.everything, 0), None, {"next_item": own})
    rows = html[html.index("What each share of cold items brings") :]
    none = f'<td class="n">{chr(0x2013)}</td>'
    assert f'<td>b (x)</td>{none}<td class="n">0.3000</td>{none}' in rows
    assert "What each share of cold items brings" not in ranked_study.html


def test_a_readers_lists_mark_what_came_next(facts, ranked_study):
    assert len(facts.readers) == ranked.READERS
    split = ranked_study.stages["next_item/split"][0].table("queries").filter(part="test")
    titles = dict(ranked_study.stages["dataset"][0].table("items").select("item", "title").iter_rows())
    one = facts.readers[0]
    row = split.filter(user=int(one.user_id.removeprefix("u"))).row(0, named=True)
    assert one.targets == [titles[item] for item in row["targets"]]
    assert one.used == len(row["history"])


def test_a_list_marks_the_target_and_names_what_has_no_title():
    query = {"user": 4, "history": [*range(20), 7], "targets": [8]}
    first = pl.DataFrame(
        {
            "method": ["a", "a", "a", "b"],
            "user": [4, 4, 5, 4],
            "rank": [1, 2, 1, 1],
            "item": [8, 9, 8, 7],
            "target": [True, False, True, False],
        }
    )
    found = ranked.reader(query, first, {7: "Seven", 8: "Eight"}, {})
    assert found == ranked.Reader(
        "4",
        [*(str(item) for item in range(11, 20)), "Seven"],
        21,
        ["Eight"],
        {"a": [("Eight", True), ("9", False)], "b": [("Seven", False)]},
    )


def test_the_page_shows_the_track_and_stays_one_safe_file(ranked_study):
    html = ranked_study.html
    assert loads(html) == []
    assert '<section id="next-item">' in html
    assert html.count('<th scope="row">sasrec (seen_kept)</th>') == 2  # its figures, its cost
    assert "<script>" not in html
    assert "NDCG@10" in html
    checks = ranked_study.stages["report"][0].manifest["checks"]
    assert all(verdict["passed"] for verdict in checks.values())


def test_a_study_without_the_track_has_no_such_section(full):
    [board] = gather(full.everything, 0).boards
    assert ranked.gather(full.everything, board) is None
    assert "next-item" not in full.html
