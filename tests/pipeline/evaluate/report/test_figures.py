"""Pictures are plain SVG elements, equal for equal data, and read where they are put."""

import xml.etree.ElementTree as ET
from functools import cache
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.report import figures
from pipeline.evaluate.report.contained import loads
from pipeline.evaluate.report.facts import Board, Cost, gather
from pipeline.evaluate.results import Name
from pipeline.evaluate.tracks import CTR, NEXT_ITEM
from pipeline.schema import Comparisons, Leaderboard, empty

CURVE = pl.DataFrame(
    {
        "stage": "mf",
        "variant": ["a", "a", "b", "b"],
        "seed": 1,
        "phase": "fit",
        "step": [1, 2, 1, 2],
        "metric": "train_loss",
        "value": [0.7, 0.6, 0.7, 0.5],
    }
)
TIMELINE = pl.DataFrame({"part": ["train", "train", "test"], "at": [9e8, 9.1e8, 9.2e8], "rows": [5, 6, 7]})


def board_of(values: dict[str, float]) -> Board:
    """A board of the next_item track: models with these test figures, all of a second."""
    facts = {"track": "next_item", "variant": "default", "part": "test", "metric": "ndcg_10", "seeds": 1}
    counts = {"seed_deviation": None, "users": 9, "users_skipped": 0, "rows": 9}
    rows = [
        {**facts, **counts, "method": name, "value": value, "low": value - 0.01, "high": value + 0.01}
        for name, value in values.items()
    ]
    names = [Name(name, "default") for name in values]
    return Board(
        NEXT_ITEM,
        pl.DataFrame(rows, schema=empty(Leaderboard).schema),
        empty(Comparisons),
        dict.fromkeys(names, "baseline"),
        dict.fromkeys(names, Cost(1, 1, 100, None, None, "cpu")),
    )


@cache
def drawn() -> dict[str, str]:
    return {
        "curve": figures.learning(CURVE, "curve"),
        "timeline": figures.over_time(TIMELINE) or "",
        "bits": figures.bit_balance([0.0, 0.5, 1.0], "bits"),
    }


@pytest.mark.parametrize("name", ["curve", "timeline", "bits"])
def test_picture_is_one_svg_element_of_no_fixed_size(name):
    root = ET.fromstring(drawn()[name])
    assert root.tag.endswith("svg")
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)


def test_pictures_load_nothing_and_carry_no_metadata():
    for svg in drawn().values():
        assert loads(svg) == []
        assert "Matplotlib v" not in svg
        assert "purl.org" not in svg


def test_ids_start_with_the_picture_and_every_reference_is_kept():
    for name, svg in drawn().items():
        root = ET.fromstring(svg)
        ids = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
        used = {v[1:] for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")}
        used |= {e.attrib["clip-path"][5:-1] for e in root.iter() if "clip-path" in e.attrib}
        assert used
        assert used <= ids
        assert all(one.startswith(f"{name}-") for one in ids)


def test_same_data_same_picture():
    assert drawn() == drawn.__wrapped__()


def test_text_stays_text():
    svg = figures.learning(CURVE, "curve")
    assert ">step<" in svg
    assert ">a<" in svg
    assert ">b<" in svg


def test_one_variant_needs_no_legend():
    assert ">a<" not in figures.learning(CURVE.filter(variant="a"), "curve")


def test_a_phase_of_its_variants_name_is_named_once():
    phases = CURVE.with_columns(phase=pl.when(variant="a").then(pl.lit("a")).otherwise(pl.lit("text")))
    svg = figures.learning(phases, "curve")
    assert ">a<" in svg
    assert ">b, text<" in svg


def test_a_line_of_one_point_is_seen():
    whole, one = (figures.learning(CURVE.head(rows), "curve") for rows in (2, 1))
    assert one.count(figures.LINES[0]) > whole.count(figures.LINES[0])  # the mark's own stroke and fill


def test_names_with_dollars_and_markup_are_drawn_as_they_are():
    named = CURVE.with_columns(variant=pl.col("variant").replace({"a": "$x^2$", "b": "<script>"}))
    svg = figures.learning(named, "curve")
    assert "$x^2$" in svg
    assert "&lt;script&gt;" in svg


def test_dates_are_written_for_times_and_numbers_for_orders():
    assert "1998" in (figures.over_time(TIMELINE) or "")
    ordered = figures.over_time(TIMELINE.with_columns(at=pl.Series([0.0, 50.0, 100.0]))) or ""
    assert ">order<" in ordered
    assert "1970" not in ordered


def test_nothing_to_draw_draws_nothing():
    assert figures.over_time(TIMELINE.clear()) is None
    nothing = Board(CTR, empty(Leaderboard), empty(Comparisons), {}, {})
    assert figures.against_cost(nothing, "auc") is None


def test_single_stretch_of_time_is_drawn():
    assert figures.over_time(TIMELINE.head(1))


def test_every_method_is_named_beside_the_costs(full):
    [board] = gather(full.everything, 0).boards
    svg = figures.against_cost(board, "uauc") or ""
    for name in ("binllm (dotted)", "binllm (shuffled_codes)", "tallrec (titles)", "mf", "means"):
        assert f">{name}<" in svg
    assert ">1 min<" in svg


@given(st.lists(st.floats(0, 1), max_size=20).map(sorted), st.floats(0.01, 0.2))
def test_names_lie_apart_in_order_around_their_middle(heights, gap):
    moved = figures.apart(heights, gap)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights))


def test_names_that_lie_apart_stay():
    assert figures.apart([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=9))
def test_time_axis_holds_all_places_and_more_than_one_tick(places):
    low, high = figures.around(places)
    assert low < min(places)
    assert high > max(places)
    assert high / low >= 29


def test_picture_leaves_no_style_behind():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.learning(CURVE, "curve")
    assert dict(matplotlib.rcParams) == before


@given(st.sets(st.floats(0, 1e5), max_size=9))
def test_numbers_on_an_axis_have_room_and_the_first_is_kept(places):
    kept = figures.spaced(places)
    assert kept == sorted(kept)
    assert set(kept) <= places
    assert kept[:1] == sorted(places)[:1]


def test_numbers_that_stand_too_close_give_way():
    assert figures.spaced([9, 10, 90, 1000]) == [9, 90, 1000]
