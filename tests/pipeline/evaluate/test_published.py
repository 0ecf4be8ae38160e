"""The table of published figures: its shape, and that our own names in it exist."""

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.collab.mf import mf
from pipeline.evaluate.tracks import TRACKS
from pipeline.methods import binllm, tallrec, tiger

DATA = {
    "ctr": ("ml-1m-collm", "tallrec-movie"),
    "next_item": ("amazon-beauty", "amazon-sports", "amazon-toys", "ml-1m-sasrec"),
}
FILE = Path(__file__).parents[3] / "warehouse" / "published.csv"
COLUMNS = ["method", "variant", "data", "track", "split", "metric", "value", "source", "note"]
RANKERS = {"tallrec": tallrec.prompts, "binllm": binllm.prompts}
OURS = {
    mf.name: ("default",),
    "binmf": ("default",),
    "tiger": (*tiger.predictions.variants, "seen_kept"),
    **{name: stage.variants for name, stage in RANKERS.items()},
}
KEY = ("method", "variant", "data", "track", "split", "metric")


@pytest.fixture(scope="module")
def published() -> pl.DataFrame:
    return pl.read_csv(FILE)


def broken_rules(table: pl.DataFrame) -> list[str]:
    """Names of the rules that the table breaks."""
    ours = table.filter(pl.col("method").is_in(list(OURS)))
    rules: dict[str, Callable[[], bool]] = {
        "columns": lambda: table.columns == COLUMNS,
        "values in 0..1": lambda: table["value"].is_between(0, 1).all(),
        "known data": lambda: set(table["data"]) == {*DATA["ctr"], *DATA["next_item"]},
        "metrics of the track": lambda: all(
            metric in TRACKS[track].metrics and data in DATA[track]
            for track, metric, data in table.select("track", "metric", "data").iter_rows()
        ),
        "test figures": lambda: set(table["split"]) == {"test"},
        "a protocol where a catalogue is ranked": lambda: all(
            re.search("leave-last-two.+history (not )?filtered", note or "")
            for note in table.filter(track="next_item").to_dict().get("note", [])
        ),
        "a source with its place": lambda: table["source"].str.contains(r"arXiv \d{4}\.\d{5}(v\d)?, .+").all(),
        "one row per key": lambda: not table.select(KEY).is_duplicated().any(),
        "our variants exist": lambda: all(
            v in OURS[m] for m, v in ours.select("method", "variant").iter_rows()
        ),
    }
    return [name for name, holds in rules.items() if not holds()]


def test_the_table_keeps_all_rules(published):
    assert broken_rules(published) == []


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("columns", lambda t: t.drop("note")),
        ("values in 0..1", lambda t: t.with_columns(value=pl.col("value") * 100)),
        ("known data", lambda t: t.with_columns(data=pl.lit("ml-2m"))),
        ("metrics of the track", lambda t: t.with_columns(metric=pl.lit("auc"))),
        ("a protocol where a catalogue is ranked", lambda t: t.with_columns(note=pl.lit("5-core"))),
        ("test figures", lambda t: t.with_columns(split=pl.lit("valid"))),
        ("a source with its place", lambda t: t.with_columns(source=pl.lit("CoLLM"))),
        ("one row per key", lambda t: pl.concat([t, t[:1]])),
        ("our variants exist", lambda t: t.with_columns(variant=pl.lit("doted"))),
    ],
)
def test_each_rule_can_be_broken(published, rule, spoil):
    assert rule in broken_rules(spoil(published))


@pytest.mark.parametrize(
    ("method", "variant", "auc", "uauc"),
    [
        ("mf", "default", 0.6482, 0.6361),
        ("binmf", "default", 0.7189, 0.6654),
        ("tallrec", "titles", 0.7097, 0.6818),
        ("binllm", "dotted", 0.7425, 0.6956),
        ("binllm", "codes_only", 0.7307, 0.6797),
        ("binllm", "one_step", 0.7286, 0.6842),
    ],
)
def test_figures_of_our_own_methods_on_collms_split(published, method, variant, auc, uauc):
    rows = published.filter(method=method, variant=variant, data="ml-1m-collm")
    assert dict(rows.select("metric", "value").iter_rows()) == {"auc": auc, "uauc": uauc}


def test_no_control_has_a_published_figure(published):
    controls = {(name, variant) for name, stage in RANKERS.items() for variant in stage.controls}
    assert not controls & set(published.select("method", "variant").iter_rows())
