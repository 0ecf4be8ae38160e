"""Matrix factorisation: learns what means cannot, treats the cold as said, resumes to the same bits."""

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import dataframely
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from pipeline.collab import mf as module
from pipeline.collab.encoders import vectors_of
from pipeline.collab.labelled import known, part_of
from pipeline.collab.mf import (
    MFSettings,
    better_than_chance,
    every_target_has_a_vector,
    learn,
    mf,
    vector_table,
)
from pipeline.evaluate.pointwise import auc
from pipeline.stage import StageFailed, run
from tests.contracts import EncoderContract
from tests.toy_pairs import HAND, SPLIT, draft_of, examples, files_of, make, passed, spec_of, store_with, taste

QUICK = {
    "dim": 4,
    "penalties": (0.1, 1.0),
    "lr": 0.05,
    "batch": 64,
    "epochs": 25,
    "patience": 25,
    "spread": 0.1,
}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory):
    return make(mf, taste(), tmp_path_factory.mktemp("mf"), **QUICK)


def test_it_learns_a_taste_that_means_cannot_see(artefact) -> None:
    test = artefact.table("pairs").join(warm_rows(), on="row", how="semi")
    assert auc(test["label"], test["score"]) > 0.9


def warm_rows() -> pl.DataFrame:
    frame = taste()
    return frame.filter(pl.col("part") == "test", pl.col("user") < 29, pl.col("item") < 23)


def test_all_checks_pass(artefact) -> None:
    assert passed(artefact) == {
        "every_pair_scored_once": True,
        "every_target_has_a_vector": True,
        "every_example_has_vectors": True,
        "better_than_chance": True,
    }


def test_vectors_and_offset_give_the_scores(artefact) -> None:
    held, pairs = vectors_of(artefact), artefact.table("pairs")
    users, items = (
        artefact.table(f"{entity}_vectors")["vector"].list.to_array(6).to_numpy() for entity in ("user", "item")
    )
    assert np.array_equal(users, held.user)
    assert np.array_equal(items, held.item)
    product = (users[pairs["user"]].astype(float) * items[pairs["item"]]).sum(1) + artefact.metrics["offset"]
    assert pairs["score"].to_numpy() == pytest.approx(product, abs=1e-9)
    assert pairs["probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-product)), abs=1e-12)


def test_the_cold_have_the_mean_vector_and_are_flagged_and_counted(artefact) -> None:
    for name, cold in (("user", 29), ("item", 23)):
        table = artefact.table(f"{name}_vectors")
        vectors = table["vector"].list.to_array(6).to_numpy()
        assert table.filter(~pl.col("trained"))[name].to_list() == [cold]
        assert vectors[cold] == pytest.approx(vectors[:cold].mean(0), abs=1e-6)
        assert artefact.metrics[f"cold_{name}s"] == 1
    assert artefact.metrics["test_rows_of_cold_users"] == 4


def test_the_search_and_the_curve_are_kept(artefact) -> None:
    tried, curve = artefact.table("search"), artefact.table("curve")
    assert tried["candidate"].to_list() == ["penalty=0.1", "penalty=1"]
    kept = tried.row(by_predicate=pl.col("chosen"), named=True)
    assert kept["valid_auc"] == tried["valid_auc"].max() == artefact.metrics["valid_auc"]
    best = curve.filter(phase=kept["candidate"], metric="valid_auc", step=kept["epochs"])
    assert best["value"].to_list() == [kept["valid_auc"]]
    assert artefact.metrics["penalty"] == float(kept["candidate"].split("=")[1])
    assert artefact.metrics["parameters"] == (30 + 24) * 6 + 1


def test_scores_on_validation_are_those_it_was_chosen_by(artefact) -> None:
    valid = artefact.table("pairs").filter(part="valid")
    assert auc(valid["label"], valid["score"]) == pytest.approx(artefact.metrics["valid_auc"], abs=1e-9)


def test_the_same_seed_gives_the_same_bits(artefact, tmp_path: Path) -> None:
    assert files_of(make(mf, taste(), tmp_path / "a", **QUICK)) == files_of(artefact)


def test_another_seed_gives_another_model(artefact, tmp_path: Path) -> None:
    other = make(mf, taste(), tmp_path / "a", seed=2, **QUICK)
    assert other.table("pairs")["seed"].unique().to_list() == [2]
    assert not other.table("pairs")["score"].equals(artefact.table("pairs")["score"])


@pytest.mark.parametrize("calls", [3, 30])
def test_a_killed_stage_goes_on_to_the_same_bits(
    calls: int, artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.collab import pairs

    monkeypatch.setattr(pairs.Saving, "__init__", eager(pairs.Saving))
    spec, done = spec_of(mf, store_with(taste(), tmp_path), **QUICK), []

    def dying(labels: Any, scores: Any) -> float:
        done.append(1)
        if len(done) == calls:
            raise KeyError("killed")
        return auc(labels, scores)

    monkeypatch.setattr(module, "auc", dying)
    with pytest.raises(StageFailed, match="killed"):
        run(spec)
    assert files_of(run(spec)[0]) == files_of(artefact)
    assert len(done) == calls + 2 * QUICK["epochs"] - (calls - 1)  # no epoch was trained twice


def eager(saving: Any) -> Any:
    """An initialiser that writes a checkpoint after every epoch."""
    plain = saving.__init__
    return lambda self, file: plain(self, file, 0)


def test_test_labels_change_no_score(artefact, tmp_path: Path) -> None:
    flipped = taste().with_columns(
        label=pl.when(pl.col("part") == "test").then(1 - pl.col("label")).otherwise("label").cast(pl.UInt8)
    )
    other = make(mf, flipped, tmp_path, **QUICK)
    assert other.table("pairs")["score"].equals(artefact.table("pairs")["score"])


def test_a_split_that_nothing_can_be_chosen_on_is_refused(tmp_path: Path) -> None:
    frame = examples(row for row in HAND if row[0] != "valid")
    with pytest.raises(StageFailed, match="do not hold both liked and disliked"):
        make(mf, frame, tmp_path, **QUICK)


def test_more_penalty_gives_smaller_vectors() -> None:
    frame = taste()
    parts, settings = (part_of(frame, "train"), part_of(frame, "valid")), MFSettings(**QUICK)
    sizes = [
        np.abs(learn(parts, known(frame), settings, penalty, seed=1)[0].users[:, :4]).mean()
        for penalty in (0.1, 50)
    ]
    assert sizes[1] < sizes[0] / 2


def vectors(entity: str, rows: int, width: int) -> pl.DataFrame:
    return vector_table(entity, np.ones((rows, width), np.float32), np.ones(rows, bool))


@pytest.mark.parametrize(
    ("users", "items", "width", "missing"),
    [(4, 5, 6, (0, 0)), (3, 5, 6, (1, 0)), (4, 1, 6, (0, 3)), (4, 5, 5, (4, 4))],
)
def test_a_missing_or_narrow_vector_fails_the_check(
    users: int, items: int, width: int, missing: tuple[int, int], tmp_path: Path
) -> None:
    split = store_with(examples(HAND), tmp_path).get("ctr/split", SPLIT)
    tables = {"user_vectors": vectors("user", users, width), "item_vectors": vectors("item", items, width)}
    verdict = every_target_has_a_vector(draft_of(mf, tmp_path, tables), {"split": split}, MFSettings(dim=4))
    assert verdict.passed == (missing == (0, 0))
    assert verdict.facts == {"users": missing[0], "items": missing[1]}


def test_a_vector_that_is_not_finite_is_refused_by_the_table(tmp_path: Path) -> None:
    broken = vector_table("item", np.array([[1.0, np.nan, 2.0]], np.float32), np.array([True]))
    with pytest.raises(dataframely.exc.ValidationError, match="inner_nan"):
        draft_of(mf, tmp_path, {"item_vectors": broken})


@pytest.mark.parametrize(("value", "fine"), [(0.5, False), (0.5001, True)])
def test_a_model_at_chance_fails_the_check(value: float, fine: bool, tmp_path: Path) -> None:
    draft = draft_of(mf, tmp_path, {}, valid_auc=value)
    assert better_than_chance(draft, {}, MFSettings()).passed == fine


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"lr": 0}, {"penalties": ()}, {"patience": 0}, {"dims": 3}])
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        MFSettings(**wrong)


def test_declaring_the_stages_loads_no_torch() -> None:
    code = (
        "import sys, pipeline.collab.mf, pipeline.codes.binary, pipeline.collab.means; "
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


@pytest.mark.shared_data
def test_on_the_real_split_it_is_well_above_the_papers_figure(shared_data: Path) -> None:
    from benchmarks.collm_ml1m import load

    frame = load(shared_data / "collm-ml1m")
    train, valid, test = (part_of(frame, part) for part in ("train", "valid", "test"))
    learnt, fit = learn((train, valid), known(frame), MFSettings(), penalty=3.0, seed=1)
    assert fit.best > 0.73
    assert auc(test.label, learnt.logits(test.user, test.item)) > 0.72  # the paper's MF: .6482


class TestEncoder(EncoderContract):
    stage = mf
    settings: ClassVar = QUICK | {"penalties": (1.0,)}
    width: ClassVar = 6

    def test_the_biases_are_the_last_columns_beside_ones(self, made) -> None:
        encoded = vectors_of(made)
        assert (encoded.user[:, 5] == 1).all()
        assert (encoded.item[:, 4] == 1).all()
        assert encoded.user[:, 4].std() > 0
