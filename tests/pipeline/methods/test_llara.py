"""LLaRA: what it asks, when it shows vectors, what it names; all variants on a small world."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm.load import load_tokenizer
from pipeline.llm.soft_tokens import encode_slots
from pipeline.methods import llara
from pipeline.methods.llara import (
    TEMPLATES,
    hybrid_shares,
    moved,
    shows_vectors,
    without_years,
)
from pipeline.stage import Artefact
from tests import toy_lists
from tests.contracts import MethodContract
from tests.toy_ctr import failed

Made = Mapping[str, Mapping[str, Artefact]]
STAGES = (llara.prompts, llara.adapter, llara.predictions)
QUICK: dict[str, Any] = {
    "prompts": {"lists": "random_10", "history": 4, "train_rows": 8},
    "adapter": {
        "steps": 6,
        "examples_per_step": 4,
        "evaluate_every": 3,
        "valid_rows": 6,
        "warm_up": 0,
        "rank": 2,
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    settings = {"variants": list(llara.prompts.variants), **QUICK, "predictions": {"generated": True}}
    return toy_lists.make(tmp_path_factory.mktemp("llara"), STAGES, settings)


class TestLlara(MethodContract):
    stages: ClassVar = STAGES

    def test_every_stage_is_checked_and_the_last_one_predicts(self) -> None:
        assert all(stage.checks for stage in self.stages)
        assert [stage.predicts for stage in self.stages] == [None, None, "orders"]


def rows(artefact: Artefact) -> pl.DataFrame:
    return artefact.table("choice_prompts")


def test_no_check_fails_but_those_that_a_random_model_may_fail(made: Made) -> None:
    for name, variants in made.items():
        for variant, artefact in variants.items():
            assert set(failed(artefact)) <= {"better_than_chance", "the_curriculum_climbs"}, (name, variant)


# --- titles


def test_years_are_cut_and_articles_put_first_as_in_the_paper() -> None:
    titles = {1: "Godfather, The (1972)", 2: "Heat (1995)", 3: "2001: A Space Odyssey (1968)", 4: "Untitled"}
    assert list(without_years(titles).values()) == [
        "The Godfather",
        "Heat",
        "2001: A Space Odyssey",
        "Untitled",
    ]


def test_two_items_keep_their_years_where_they_would_have_one_title() -> None:
    titles = {1: "Sabrina (1954)", 2: "Sabrina (1995)", 3: "Heat (1995)", 4: "Heat, The (1995)"}
    assert list(without_years(titles).values()) == ["Sabrina (1954)", "Sabrina (1995)", "Heat", "The Heat"]


# --- prompts


def test_a_prompt_says_history_and_candidates_with_a_vector_behind_each(made: Made) -> None:
    table = rows(made["llara/prompts"]["hybrid"])
    own = made["llara/prompts"]["hybrid"].table("candidates")
    for row in table.head(6).iter_rows(named=True):
        listed = own.filter(part=row["part"], user=row["user"]).sort("place")["item"].to_list()
        shown = ", ".join(f'"The Film {item}" <|soft|>' for item in listed)
        past = ", ".join(f'"The Film {item}" <|soft|>' for item in row["shown"])
        assert shown in row["prompt"]
        assert past in row["prompt"]
        assert row["vectors"] == [*row["shown"], *listed]
        assert "film" in row["prompt"]
        assert row["item"] in listed


def test_words_alone_hold_no_reserved_token(made: Made) -> None:
    plain, hybrid = (rows(made["llara/prompts"][variant]) for variant in ("text_only", "hybrid"))
    assert not plain["prompt"].str.contains("soft", literal=True).any()
    assert (
        plain["prompt"].to_list() == hybrid["prompt"].str.replace_all(" <|soft|>", "", literal=True).to_list()
    )
    easy = made["llara/prompts"]["hybrid"].table("easy")
    assert easy.equals(plain.filter(part="train"))


def test_all_three_templates_are_asked_and_say_how_many_titles_they_list(made: Made) -> None:
    texts = rows(made["llara/prompts"]["hybrid"])["prompt"]
    assert (
        texts.str.contains("following 10 film titles").sum()
        == texts.str.starts_with("This user has watched").sum()
    )
    endings = texts.str.extract(r"(\S+ \S+:)$")
    assert len(TEMPLATES) == endings.n_unique() == 3


def test_valid_and_test_rows_are_those_of_the_stored_lists(made: Made) -> None:
    stored = made["rerank/candidates"]["default"].table("candidates").filter(list="random_10")
    asked = rows(made["llara/prompts"]["hybrid"]).filter(pl.col("part") != "train")
    assert (
        asked.select("part", "user")
        .sort("part", "user")
        .equals(stored.select("part", "user").unique().sort("part", "user"))
    )


def test_a_hostile_title_adds_no_token_and_no_line(tmp_path) -> None:
    settings = {"variants": ["hybrid"], "prompts": QUICK["prompts"]}
    hostile = toy_lists.make(tmp_path, STAGES[:1], settings, data={"dataset": {"hostile": True}})
    artefact = hostile["llara/prompts"]["hybrid"]
    assert failed(artefact) == {}
    assert rows(artefact)["prompt"].str.contains("Answer: 'Film 4'", literal=True).any()
    encode_slots(load_tokenizer(hostile["language_model"]["default"].file("model")), rows(artefact))


def test_shuffled_vectors_are_those_of_other_items(made: Made) -> None:
    own, other = (
        made["llara/prompts"][v].tensors("vectors")["vectors"] for v in ("hybrid", "shuffled_vectors")
    )
    assert own.shape == other.shape == (toy_lists.ITEMS, 8)
    assert made["llara/prompts"]["shuffled_vectors"].metrics["share_changed"] > 0.9
    assert torch.equal(own.sort(dim=0).values, other.sort(dim=0).values)
    assert not made["llara/prompts"]["text_only"].file("vectors.safetensors").exists()


def test_items_with_equal_vectors_count_as_one_owner() -> None:
    vectors = np.array([[0.0], [0.0], [1.0], [2.0]], dtype=np.float32)
    for seed in range(8):
        found = moved(vectors, seed)
        assert (found != vectors).all()
        assert sorted(found.ravel()) == [0, 0, 1, 2]


# --- the curriculum


def test_the_share_of_hybrid_steps_is_a_half_and_climbs_with_the_step() -> None:
    shown = np.array([[shows_vectors("hybrid", seed, step, 400) for step in range(400)] for seed in range(10)])
    assert 0.47 < shown.mean() < 0.53  # standard deviation .007
    tenths = shown.reshape(10, 10, 40).mean((0, 2))
    assert np.allclose(tenths, np.arange(0.05, 1, 0.1), atol=0.1)  # standard deviation at most .025
    assert not shown[:, 0].any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), step=st.integers(0, 999))
def test_one_draw_a_step_of_seed_and_step_alone(seed: int, step: int) -> None:
    assert shows_vectors("hybrid", seed, step, 1000) == shows_vectors("shuffled_vectors", seed, step, 1000)
    assert shows_vectors("direct", seed, step, 1000)
    assert not shows_vectors("text_only", seed, step, 1000)
    longer = [shows_vectors("hybrid", seed, step, steps) for steps in (step + 1, 2 * step + 2, 10**9)]
    assert longer == sorted(longer, reverse=True)  # the more steps are to come, the rarer


def test_shares_of_halves_by_hand() -> None:
    assert hybrid_shares([False, False, True, True, True]) == {
        "hybrid_share": 0.6,
        "hybrid_share_early": 0.0,
        "hybrid_share_late": 1.0,
    }
    assert hybrid_shares([]) == {}


def test_the_share_of_the_steps_taken_is_told(made: Made) -> None:
    told = {v: a.metrics["hybrid_share"] for v, a in made["llara/adapter"].items()}
    steps = [shows_vectors("hybrid", 1, step, 6) for step in range(6)]
    assert told["direct"] == 1
    assert told["text_only"] == 0
    assert told["hybrid"] == told["shuffled_vectors"] == pytest.approx(np.mean(steps), abs=1e-6)


def test_the_projector_is_tuned_with_the_low_rank_weights_and_not_by_words_alone(made: Made) -> None:
    for variant, artefact in made["llara/adapter"].items():
        assert artefact.file("adapter_model.safetensors").exists()
        assert artefact.file("soft.safetensors").exists() == (variant != "text_only")


# --- orders


def test_every_variant_orders_every_list(made: Made) -> None:
    stored = made["rerank/candidates"]["default"].table("candidates").filter(list="random_10")
    for variant, artefact in made["llara/predictions"].items():
        orders = artefact.table("rankings")
        for name in (variant, f"{variant}_generated"):
            assert orders.filter(variant=name).height == stored.height
        assert orders.filter(variant=variant)["score"].null_count() == 0


def test_scores_move_with_the_vectors(made: Made) -> None:
    scores = {
        variant: artefact.table("rankings")
        .filter(variant=variant)
        .sort("part", "user", "item")["score"]
        .to_list()
        for variant, artefact in made["llara/predictions"].items()
    }
    moving = ("hybrid", "text_only", "shuffled_vectors")
    assert len({tuple(scores[variant]) for variant in moving}) == 3


def test_figures_are_those_of_the_orders(made: Made) -> None:
    artefact = made["llara/predictions"]["hybrid"]
    own = artefact.table("rankings").filter(pl.col("target"), variant="hybrid", part="test")
    assert artefact.metrics["test_hr_1"] == pytest.approx((own["rank"] == 1).mean(), abs=1e-6)
    assert 0 <= artefact.metrics["test_valid_ratio"] <= 1


def test_settings_of_the_paper_are_the_defaults() -> None:
    tuning: Any = llara.adapter.settings()
    assert (tuning.rank, tuning.alpha, tuning.dropout, tuning.middle, tuning.activation) == (
        8,
        32,
        0.1,
        "model",
        "gelu",
    )
    assert llara.prompts.settings.model_fields["history"].default == 10
