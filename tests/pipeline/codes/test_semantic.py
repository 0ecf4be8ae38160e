"""Stages of semantic ids: what each writes, and what its checks find."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from pipeline.codes import semantic
from pipeline.codes.ids import read_ids
from pipeline.codes.semantic import IdSettings, LshSettings, codes_for
from pipeline.schema import SemanticIds
from pipeline.stage import Stage
from tests.toy_items import crowds, draft_of, make
from tests.toy_pairs import files_of, passed

STAGES = (semantic.rqvae, semantic.balanced, semantic.lsh, semantic.rqkmeans, semantic.random)
QUICK = {"semantic_ids/rqvae": {"epochs": 3, "hidden": [16], "latent": 4}}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_maker_writes_ids_that_pass_their_checks(stage: Stage, tmp_path: Path) -> None:
    artefact = make(stage, crowds(), tmp_path, codes_a_level=16, **QUICK.get(stage.name, {}))
    ids = read_ids(artefact)
    SemanticIds.validate(artefact.table("semantic_ids"))
    assert ids.items.tolist() == list(range(120))
    assert ids.codes.shape == (120, 4)
    assert ids.sizes == (16, 16, 16, artefact.metrics["largest_group"])
    assert (ids.codes < np.array(ids.sizes)).all()
    blocking = {check.name for check in stage.checks if check.blocking}
    assert all(found for name, found in passed(artefact).items() if name in blocking)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(stage: Stage, tmp_path: Path) -> None:
    one, again, other = (
        make(stage, crowds(), tmp_path / name, seed=seed, codes_a_level=16, **QUICK.get(stage.name, {}))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert files_of(one) == files_of(again)
    assert not one.table("semantic_ids").equals(other.table("semantic_ids"))


def test_figures_are_those_of_the_learnt_codes(tmp_path: Path) -> None:
    artefact = make(semantic.rqkmeans, crowds(), tmp_path, codes_a_level=8, levels=2)
    codes = read_ids(artefact).codes[:, :2]
    groups = np.unique(codes, axis=0, return_counts=True)[1]
    assert artefact.metrics["unique_share"] == len(groups) / 120
    assert artefact.metrics["largest_group"] == groups.max() == artefact.metrics["digits"]
    assert artefact.metrics["usage_1"] == len(np.unique(codes[:, 0])) / 8
    assert artefact.metrics["perplexity_1"] == pytest.approx(8, abs=0.1)  # eight crowds of one size


def test_digits_do_not_follow_the_order_of_items(tmp_path: Path) -> None:
    ids = read_ids(make(semantic.rqkmeans, crowds(), tmp_path, codes_a_level=16, levels=1)).codes
    held = [ids[ids[:, 0] == code, 1].tolist() for code in range(16)]
    assert all(sorted(digits) == list(range(len(digits))) for digits in held)
    assert sum(digits != sorted(digits) for digits in held) > 5


def test_code_books_are_kept(tmp_path: Path) -> None:
    artefact = make(semantic.rqkmeans, crowds(), tmp_path, codes_a_level=8, levels=2)
    assert {name: tuple(book.shape) for name, book in artefact.tensors("books").items()} == {
        "level_1": (8, 6),
        "level_2": (8, 6),
    }


@pytest.mark.parametrize(("items", "k"), [(1, 8), (128, 8), (1682, 64), (4096, 256), (12101, 256)])
def test_a_small_catalogue_has_fewer_codes(items: int, k: int) -> None:
    assert codes_for(IdSettings(), items) == k
    assert codes_for(IdSettings(codes_a_level=100), items) == 100


GOOD = pl.DataFrame({"item": [0, 1, 2], "codes": [[0, 3, 0], [0, 3, 1], [2, 1, 0]]})
FACTS = {
    **{"levels": 2, "codes_a_level": 4, "digits": 2, "usage_1": 0.8, "usage_2": 0.9},
    **{"steps": 900, "steps_forward": 60, "steps_backward": 40},
}


@pytest.mark.parametrize(
    ("codes", "broken"),
    [
        ([[0, 3, 0], [0, 3, 1], [2, 1, 0]], set()),
        ([[0, 3, 0], [0, 3, 0], [2, 1, 0]], {"no_two_items_share_an_id"}),
        ([[0, 4, 0], [0, 3, 1], [2, 1, 0]], {"codes_in_range"}),
        ([[0, 3, 2], [0, 3, 1], [2, 1, 0]], {"codes_in_range"}),
        ([[0, 3], [0, 1], [2, 1, 0]], {"codes_in_range"}),
        ([[0, 3, 0], [0, 3, 1]], {"every_item_coded_once"}),
    ],
)
def test_planted_faults_are_found(codes: list[list[int]], broken: set[str], tmp_path: Path) -> None:
    table = pl.DataFrame({"item": range(len(codes)), "codes": codes})
    draft = draft_of(semantic.random, tmp_path, {"semantic_ids": table}, **FACTS)
    assert found_in(draft) == broken


def test_an_item_coded_in_anothers_place_is_found(tmp_path: Path) -> None:
    table = GOOD.with_columns(item=pl.Series([0, 2, 3]))
    assert found_in(draft_of(semantic.random, tmp_path, {"semantic_ids": table}, **FACTS)) == {
        "every_item_coded_once"
    }


@pytest.mark.parametrize(
    ("facts", "broken"),
    [
        ({"digits": 4}, set()),
        ({"digits": 5}, {"digits_are_enough"}),
        ({"usage_2": 0.79}, {"most_codes_used"}),
        ({"steps_forward": 100, "steps_backward": 30}, {"ids_hold_no_order"}),
        ({"steps_forward": 30, "steps_backward": 100}, {"ids_hold_no_order"}),
        ({"steps_forward": 9, "steps_backward": 0}, set()),
    ],
)
def test_too_many_digits_and_too_few_codes_are_found(
    facts: dict[str, float], broken: set[str], tmp_path: Path
) -> None:
    draft = draft_of(semantic.random, tmp_path, {"semantic_ids": GOOD}, **{**FACTS, **facts})
    assert found_in(draft) == broken


def found_in(draft) -> set[str]:
    """Checks that a draft of three items fails."""
    vectors = pl.DataFrame({"item": pl.Series([0, 1, 2], dtype=pl.UInt32)})
    inputs = {"vectors": type("Vectors", (), {"table": lambda self, name: vectors})()}
    checks = semantic.random.checks
    return {check.name for check in checks if not check.run(draft, inputs, IdSettings()).passed}


def test_what_says_little_of_the_ids_worth_does_not_block() -> None:
    for stage in STAGES:
        warnings = [check.name for check in stage.checks if not check.blocking]
        assert warnings == ["most_codes_used", "ids_hold_no_order"]


def test_codes_of_texts_tell_of_categories_and_random_ones_do_not(tmp_path: Path) -> None:
    by_text = make(semantic.rqkmeans, crowds(), tmp_path / "a", codes_a_level=8).metrics
    by_chance = make(semantic.random, crowds(), tmp_path / "b", codes_a_level=8).metrics
    assert by_text["category_information_1"] > 0.95  # every crowd is of even items or of odd ones
    assert abs(by_chance["category_information_1"]) < 0.1
    assert by_text["variance_left_1"] < 0.05 < 0.8 < by_chance["variance_left_1"]
    assert by_text["steps"] == by_chance["steps"] == 40 * 9
    assert "error" not in by_chance
    assert by_text["error"] == pytest.approx(by_text["variance_left_3"], abs=0.01)


def test_the_network_learns_and_its_picture_is_there(tmp_path: Path) -> None:
    told = {"hidden": [32], "latent": 4, "codes_a_level": 8, "batch": 32, "epochs": 40, "lr": 5e-3}
    artefact = make(semantic.rqvae, crowds(), tmp_path, **told)
    curve = artefact.table("curve").filter(metric="explained")["value"]
    assert curve.max() > max(curve[0], 0.9)  # type: ignore[operator]
    assert artefact.metrics["error"] == pytest.approx(1 - curve.max())  # type: ignore[operator]
    assert artefact.file("pictures/levels.svg").exists()
    assert set(artefact.tensors("books")) > {"books", "mean", "scale"}


def test_hyperplanes_want_a_power_of_two() -> None:
    assert LshSettings(codes_a_level=64).codes_a_level == 64
    with pytest.raises(ValidationError, match="48 is no power of 2"):
        LshSettings(codes_a_level=48)
