"""A track's section: order, bars, and which published figures stand where."""

from dataclasses import replace

import polars as pl

from pipeline.evaluate.report.boards import (
    LAYOUTS,
    Published,
    bar,
    best_published,
    differences,
    layout,
    papers,
    rows,
    section,
)
from pipeline.evaluate.report.facts import gather
from pipeline.evaluate.results import Name
from pipeline.evaluate.tracks import NEXT_ITEM, TRACKS


def test_published_results_of_one_method_are_one_row_for_each_source():
    mf = Name("mf", "default")
    printed = [Published(mf, "auc", 0.6, "A"), Published(mf, "uauc", 0.5, "A"), Published(mf, "auc", 0.7, "B")]
    assert papers(printed, ["auc", "uauc"]) == [
        {"name": mf, "source": "B", "note": "", "figures": {"auc": 0.7, "uauc": None}},
        {"name": mf, "source": "A", "note": "", "figures": {"auc": 0.6, "uauc": 0.5}},
    ]
    assert best_published(mf, printed) == {"auc": 0.7, "uauc": 0.5}
    assert best_published(Name("mf", "other"), printed) == {}


def test_board_is_sorted_by_the_metric(full):
    [board] = gather(full.everything, 0).boards
    for metric in ("auc", "uauc"):
        values = [row["figures"][metric]["value"] for row in rows(board, metric, [])]
        assert values == sorted(values, reverse=True)


def test_published_figure_belongs_to_its_variant(full):
    [board] = gather(full.everything, 0).boards
    found = rows(board, "auc", [Published(Name("binllm", "dotted"), "auc", 0.7425, "paper")])
    assert [r["name"].variant for r in found if r["published"]] == ["dotted"]


def test_bar_keeps_its_order_inside_the_line():
    found = bar({"low": 0.6, "value": 0.7, "high": 0.8}, (0.5, 0.9), 0.5)
    assert found.guide is not None
    assert 0 < found.guide < found.low < found.value < found.high < 1


def test_differences_share_one_scale_with_zero_on_it(full):
    found = differences(gather(full.everything, 0).boards[0], "control")
    assert len(found) == 4
    assert len({row["bar"].guide for row in found}) == 1
    for row in found:
        assert (row["bar"].value > row["bar"].guide) == (row["difference"] > 0)


def test_rows_do_not_depend_on_the_order_of_artefacts(full):
    [one], [other] = (gather(each, 0).boards for each in (full.everything, full.everything[::-1]))
    assert isinstance(one.leaderboard, pl.DataFrame)
    assert rows(one, "auc", []) == rows(other, "auc", [])


def test_a_track_that_nobody_laid_out_shows_its_main_metric_first():
    unknown = replace(NEXT_ITEM, name="rerank")
    assert layout(unknown).barred == ("ndcg_10", unknown.metrics[0])
    assert {*layout(unknown).barred, *layout(unknown).more} == set(unknown.metrics)


def test_layouts_name_metrics_of_their_tracks():
    for name, plan in LAYOUTS.items():
        assert {*plan.barred, *plan.plain, *plan.more} <= set(TRACKS[name].metrics)


def test_published_figures_stay_with_their_track_and_their_protocol(ranked_study):
    _, board, *_ = gather(ranked_study.everything, 0).boards
    printed = [
        Published(Name("sasrec", "default"), "ndcg_10", 0.03, "A", "next_item", "history filtered"),
        Published(Name("sasrec", "seen_kept"), "hr_10", 0.06, "A", "next_item", "history not filtered"),
        Published(Name("sasrec", "default"), "auc", 0.7, "A", "ctr"),
    ]
    found = section(board, "auc", printed)
    assert found["paper_columns"] == ["hr_10", "ndcg_10"]
    assert [row["note"] for row in found["papers"]] == ["history not filtered", "history filtered"]
    beside = {str(row["name"]): row["published"] for row in found["rows"] if row["published"]}
    assert beside == {"sasrec/default": {"ndcg_10": 0.03}, "sasrec/seen_kept": {"hr_10": 0.06}}
    assert section(board, "auc", None)["published_known"] is False
