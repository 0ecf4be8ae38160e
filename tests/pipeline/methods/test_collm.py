"""CoLLM: whose vectors a prompt shows, what each variant tunes, and that vectors teach what text cannot."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from pipeline.collab.encoders import vectors_of
from pipeline.evaluate.pointwise import auc
from pipeline.llm.soft_tokens import FILE
from pipeline.llm.tune import LORA_FILES
from pipeline.methods import collm
from pipeline.stage import Artefact
from pipeline.text.cleaning import SOFT_TOKEN
from tests import toy_ctr
from tests.contracts import MethodContract, PromptContract, ScorerContract

QUICK = {"steps": 3, "examples_per_step": 4, "evaluate_every": 3, "valid_rows": 20, "warm_up": 0}
LEARNING = {**QUICK, "steps": 12, "evaluate_every": 2, "learning_rate": 2e-2}
TINY = {
    "collm": {"variants": list(collm.prompts.variants), "prompts": {"train_rows": 40}, "adapter": QUICK},
    "tallrec": {"variants": ["titles"], "prompts": {"train_rows": 40}, "adapter": LEARNING},
}
STAGES = ("collm/prompts", "collm/adapter", "collm/predictions", "tallrec/prompts", "tallrec/adapter")
Made = Mapping[str, Mapping[str, Artefact]]
SOFT = tuple(variant for variant in collm.prompts.variants if variant != "without_vectors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("collm")
    return toy_ctr.make(folder, STAGES, data={"dataset": {"telling": True}}, methods=TINY)


@pytest.fixture(scope="module")
def examples(made: Made) -> pl.DataFrame:
    return made["ctr/split"]["default"].table("examples")


@pytest.fixture(scope="module")
def prompted(made: Made) -> Mapping[str, Artefact]:
    return made["collm/prompts"]


@pytest.fixture(scope="module")
def scored(made: Made) -> Mapping[str, Artefact]:
    return made["collm/predictions"]


class TestCollm(MethodContract, PromptContract, ScorerContract):
    stages: ClassVar = (collm.prompts, collm.adapter, collm.predictions)


def test_the_prompt_is_the_papers(prompted: Mapping[str, Artefact], examples: pl.DataFrame) -> None:
    asked = examples.filter(row=479).row(0, named=True)
    liked = [i for i, y in zip(asked["history"], asked["history_labels"], strict=True) if y][-10:]
    titles = ", ".join(f'"Film {i} (19{i:02})"' for i in liked) or "unknown"
    item = asked["item"]
    assert prompted["mf"].table("prompts").filter(row=479)["prompt"].item() == (
        f"#Question: A user has given high ratings to the following films: {titles}. Additionally, we have "
        f"information about the user's preferences encoded in the feature {SOFT_TOKEN}. Using all available "
        f'information, make a prediction about whether the user would enjoy the film titled "Film {item} '
        f'(19{item:02})" with the feature {SOFT_TOKEN}? Answer with "Yes" or "No". \n#Answer:'
    )


@pytest.mark.parametrize("variant", collm.ENCODERS)
def test_a_prompt_shows_its_users_and_its_targets_vector(made: Made, variant: str) -> None:
    held = vectors_of(made[collm.ENCODERS[variant]]["default"])
    shown = made["collm/prompts"][variant].tensors("vectors")["vectors"].numpy()
    table = made["collm/prompts"][variant].table("prompts")
    user, item = np.array(table["vectors"].to_list()).T
    assert np.array_equal(shown[user], held.user[held.user_of_row[table["row"].to_numpy()]])
    assert np.array_equal(shown[item], held.item[table["item"].to_numpy()])


def test_shuffled_vectors_are_those_of_unlike_others_the_same_in_all_parts(made: Made) -> None:
    plain, shuffled = (made["collm/prompts"][v].table("prompts") for v in ("mf", "shuffled_vectors"))
    assert plain["prompt"].equals(shuffled["prompt"])
    shown = made["collm/prompts"]["mf"].tensors("vectors")["vectors"].numpy()
    for place, entity in enumerate(("user", "item")):
        own, other = (shown[table["vectors"].list.get(place).to_numpy()] for table in (plain, shuffled))
        assert (own != other).any(axis=1).all()
        by_entity = pl.DataFrame({"id": plain[entity], "taken": shuffled["vectors"].list.get(place)})
        assert by_entity.unique().height == plain[entity].n_unique()
    assert made["collm/prompts"]["shuffled_vectors"].metrics["share_changed"] == 1.0


def test_without_vectors_asks_what_the_first_step_asked(made: Made) -> None:
    first, control = made["tallrec/prompts"]["titles"], made["collm/prompts"]["without_vectors"]
    assert first.table("prompts").equals(control.table("prompts"))
    assert not control.file("vectors.safetensors").exists()


def lora(artefact: Artefact) -> bytes:
    return artefact.file(LORA_FILES[0]).read_bytes()


def test_step_two_leaves_the_low_rank_weights_of_step_one(made: Made) -> None:
    first = lora(made["tallrec/adapter"]["titles"])
    for variant in SOFT:
        assert (lora(made["collm/adapter"][variant]) == first) == (variant != "one_step"), variant


def test_each_variant_tunes_what_it_says(made: Made) -> None:
    for variant in SOFT:
        found = load_file(made["collm/adapter"][variant].file(FILE))
        assert ("vectors" in found) == (variant in ("tuned_vectors", "fresh_vectors")), variant
        assert {name.split(".")[0] for name in found} - {"vectors"} == {"projector"}
    assert not made["collm/adapter"]["without_vectors"].file(FILE).exists()


def test_fresh_vectors_are_not_the_encoders(made: Made) -> None:
    shown = made["collm/prompts"]["mf"].tensors("vectors")["vectors"]
    tuned, fresh = (
        load_file(made["collm/adapter"][v].file(FILE))["vectors"] for v in ("tuned_vectors", "fresh_vectors")
    )
    assert (tuned - shown).abs().max() < 0.1
    assert (fresh - shown).abs().max() > 0.5


def test_scores_move_with_the_vectors(scored: Mapping[str, Artefact]) -> None:
    plain, shuffled = (scored[v].table("pairs")["score"] for v in ("mf", "shuffled_vectors"))
    assert (plain != shuffled).mean() > 0.9


def test_several_tokens_may_show_one_vector(tmp_path: Path) -> None:
    methods = {
        "collm": {"variants": ["mf"], "prompts": {"train_rows": 20, "soft_tokens": 3}, "adapter": QUICK},
        "tallrec": {"variants": ["titles"], "prompts": {"train_rows": 20}, "adapter": QUICK},
    }
    made = toy_ctr.make(tmp_path, STAGES, methods=methods)
    (width,) = set(made["collm/prompts"]["mf"].table("prompts")["vectors"].list.len())
    assert width == 6
    assert load_file(made["collm/adapter"]["mf"].file(FILE))["projector.2.bias"].shape == (3 * 32,)
    assert made["collm/predictions"]["mf"].table("pairs")["score"].is_finite().all()


def test_only_the_encoders_that_are_asked_for_are_made(tmp_path: Path) -> None:
    methods = {
        "collm": {"variants": ["sasrec"], "prompts": {"train_rows": 20}, "adapter": QUICK},
        "tallrec": {"variants": ["titles"], "prompts": {"train_rows": 20}, "adapter": QUICK},
    }
    wanted = toy_ctr.GRAPH.wanted(toy_ctr.study(methods=methods, leave_out=["mf"]))
    assert "ctr/sasrec" in wanted
    assert not wanted & {"ctr/lightgcn", "ctr/din", "mf"}


def test_vectors_teach_what_text_cannot(tmp_path: Path) -> None:
    """Yes where both bits are set, and all titles alike: only the vectors know."""
    tuning = {
        "steps": 60,
        "examples_per_step": 16,
        "evaluate_every": 20,
        "valid_rows": None,
        "learning_rate": 1e-2,
        "dropout": 0.0,
        "batch_tokens": 4096,
        "dtype": "float32",
    }
    plain = {"history": 0, "train_rows": None}
    methods = {
        "collm": {"variants": ["mf", "without_vectors"], "prompts": plain, "adapter": tuning},
        "tallrec": {"variants": ["titles"], "prompts": plain, "adapter": {**tuning, "steps": 10}},
    }
    made = toy_ctr.make(tmp_path, STAGES, methods=methods)["collm/predictions"]
    found = {v: a.table("pairs").filter(part="test") for v, a in made.items()}
    areas = {v: auc(pairs["label"], pairs["score"].round(4)) for v, pairs in found.items()}
    assert areas["mf"] > 0.99
    assert areas["without_vectors"] == 0.5
