"""The curve over numbers of examples: nested draws, intervals, a picture, nothing where nothing is asked."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.pointwise import auc
from pipeline.llm.few_shot import first_of
from pipeline.stage import Artefact, StageFailed
from tests import toy_ctr

HOW = {
    "epochs": 1,
    "examples_per_step": 8,
    "evaluate_every": 1,
    "valid_rows": None,
    "learning_rate": 1e-2,
    "warm_up": 0,
    "dtype": "float32",
}


def made(folder: Path, shots: list[int], **how) -> Artefact:
    tallrec = {
        "variants": ["titles"],
        "prompts": {"train_rows": 40},
        "few_shot": {**HOW, **how, "shots": shots},
    }
    world = {"dataset": {"telling": True}}
    found = toy_ctr.make(
        folder, ("tallrec/prompts", "tallrec/few_shot"), data=world, methods={"tallrec": tallrec}
    )
    return found["tallrec/few_shot"]["titles"]


@given(st.integers(1, 60), st.integers(0, 9))
def test_fewer_examples_are_among_more(rows: int, seed: int) -> None:
    before: set[int] = set()
    for shots in range(0, rows + 1, 7):
        drawn = first_of(rows, shots, seed)
        assert len(set(drawn)) == len(drawn) == shots
        assert before <= set(drawn) <= set(range(rows))
        before = set(drawn)


def test_every_number_has_a_point_with_an_interval_for_both_parts(tmp_path: Path) -> None:
    artefact = made(tmp_path, [32, 8])
    table = artefact.table("few_shot")
    assert table.select("shots", "part").rows() == [(8, "valid"), (8, "test"), (32, "valid"), (32, "test")]
    assert table.select((pl.col("low") <= pl.col("auc")) & (pl.col("auc") <= pl.col("high"))).to_series().all()
    assert table["rows"].to_list() == [80, 100, 80, 100]
    assert artefact.metrics["test_auc_8"] == pytest.approx(table["auc"][1], abs=1e-6)
    assert artefact.file("pictures/few_shot.svg").exists()


def test_no_shots_cost_nothing_and_it_is_said(tmp_path: Path) -> None:
    artefact = made(tmp_path, [])
    assert artefact.table("few_shot").is_empty()
    assert "skipped" in artefact.manifest["checks"]["every_number_was_tried"]["description"]
    assert not artefact.file("pictures/few_shot.svg").exists()


def test_more_shots_than_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="64 shots of 40 training prompts: raise train_rows"):
        made(tmp_path, [16, 64])


def test_one_class_has_no_figure() -> None:
    from types import SimpleNamespace

    from pipeline.llm.few_shot import figures

    rows = pl.DataFrame({"user": [1, 2], "label": [1, 1], "part": ["test", "test"]})
    out = SimpleNamespace(stage=SimpleNamespace(method="m"), variant="v", seed=1)
    found = figures(rows, pl.Series([0.1, 0.2]), 8, out)  # type: ignore[arg-type]
    assert found["auc"] != found["auc"]
    two = figures(rows.with_columns(label=pl.Series([0, 1])), pl.Series([0.1, 0.2]), 8, out)  # type: ignore[arg-type]
    assert two["auc"] == auc([0, 1], [0.1, 0.2]) == 1.0
