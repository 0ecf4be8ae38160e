"""The track cold_item whole, on the circles of `tests.toy_cold`: what chance, ids, texts and TIGER find."""

from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.collab.cold_floors import lots, nearest_known, random_order
from pipeline.collab.ranked import Block
from pipeline.stage import Artefact
from tests import toy_cold
from tests.toy_ctr import failed

Made = Mapping[str, Mapping[str, Artefact]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return toy_cold.make(tmp_path_factory.mktemp("cold"))


@pytest.fixture(scope="module")
def figures(made: Made) -> Mapping[tuple[str, str, str], float]:
    """(method, variant, metric) -> value on the test part."""
    board = made["cold_item/leaderboard"]["default"].table("leaderboard").filter(part="test")
    return {row[:3]: row[3] for row in board.select("method", "variant", "metric", "value").rows()}


def block(*histories: list[int]) -> Block:
    items = torch.tensor([item for history in histories for item in history], dtype=torch.int64)
    return Block(
        torch.arange(len(histories)), items, torch.tensor([0, *np.cumsum([len(h) for h in histories])])
    )


# --- the whole track


def test_all_blocking_checks_pass(made: Made) -> None:
    for stage, variants in made.items():
        for variant, artefact in variants.items():
            checks = artefact.manifest["checks"]
            broken = {name: c for name, c in checks.items() if c["blocking"] and not c["passed"]}
            assert broken == {}, (stage, variant)
    assert failed(made["cold_item/split"]["default"]) == {}


def test_what_is_learnt_from_is_the_splits_training_rows_and_nothing_else(made: Made) -> None:
    split, warm = (made[name]["default"] for name in ("cold_item/split", "warm_items/split"))
    train = split.table("events").filter(part="train").sort("row")
    assert warm.table("events").sort("row").drop("part").equals(train.drop("part"))
    assert warm.table("queries")["part"].unique().to_list() == ["valid"]
    cold = split.table("catalogue").filter(train_rows=0)["item"]
    assert len(cold) == 8
    asked = split.table("queries")
    assert asked["targets"].explode().is_in(cold.implode()).all()
    assert not asked["history"].explode().is_in(cold.implode()).any()


def test_ids_find_nothing_and_texts_find_more_than_chance(figures: Mapping) -> None:
    assert figures["sasrec", "default", "hr_20"] == 0
    assert figures["random", "default", "hr_20"] > 0
    assert figures["content_knn", "default", "ndcg_10"] > 2 * figures["random", "default", "ndcg_10"]


def test_the_share_rule_brings_what_ids_cannot(made: Made, figures: Mapping) -> None:
    assert figures["sasrec", "with_share", "hr_20"] > 0
    assert figures["tiger", "rqkmeans", "hr_20"] > 0
    share = made["tiger/cold_predictions"]["rqkmeans"].table("cold_shares").filter(part="test", metric="hr_20")
    assert share["share"].to_list() == [0.0, 0.2, 1.0]
    assert share["value"][0] == 0
    assert share["value"].is_sorted()


@pytest.mark.parametrize("metric", ["hr_5", "hr_10", "hr_20", "ndcg_10"])
def test_the_table_of_shares_agrees_with_the_leaderboard(made: Made, figures: Mapping, metric: str) -> None:
    for variant, artefact in made["tiger/cold_predictions"].items():
        own = artefact.table("cold_shares").filter(part="test", metric=metric, share=0.2)
        assert own["value"].item() == pytest.approx(figures["tiger", variant, metric])


def test_no_list_holds_more_cold_items_than_its_share(made: Made) -> None:
    cold = made["cold_item/split"]["default"].table("catalogue").filter(train_rows=0)["item"]
    for stage, variant, share in (
        ("tiger/cold_predictions", "rqkmeans", 0.2),
        ("cold_item/sasrec", "with_share", 0.5),
    ):
        rows = pl.concat(one.table("rankings") for one in made[stage].values()).filter(variant=variant)
        rows = rows.drop_nulls("score").sort("part", "user", "rank")
        met = pl.col("item").is_in(cold.implode()).cum_sum().over("part", "user")
        shares = rows.select(share=met / pl.col("rank"))["share"].to_numpy()
        assert 0 < shares.max() <= share + 1e-9


def test_every_method_is_compared_with_the_best_baseline_and_with_its_control(made: Made) -> None:
    tests = made["cold_item/leaderboard"]["default"].table("comparisons")
    own = tests.filter(method="tiger", variant="rqkmeans", metric="ndcg_10").sort("question")
    versus = own.select("question", "versus_method", "versus_variant").rows()
    assert versus == [("baseline", "content_knn", "default"), ("control", "tiger", "random_ids")]


# --- chance


def test_lots_are_even_and_hang_on_seed_user_and_item_alone() -> None:
    scores = lots(500, seed=1)
    both = scores(block([0], [1, 2]))
    assert both.shape == (2, 500)
    assert both[1:].equal(lots(500, seed=1)(Block(torch.tensor([1]), torch.tensor([]), torch.tensor([0, 0]))))
    assert not both[0].equal(both[1])
    assert not both.equal(lots(500, seed=2)(block([0], [1, 2])))
    assert float(both.mean()) == pytest.approx(0.5, abs=0.03)
    assert (both.sort(dim=1).values[:, 250] - 0.5).abs().max() < 0.07
    assert random_order.seeded


# --- the share rule on a model of ids

VECTORS = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8], [0, 0]], dtype=np.float32)
KNOWN = np.array([True, True, False, False, False])


def test_a_cold_item_is_grouped_with_the_known_one_that_it_is_most_like() -> None:
    assert nearest_known(VECTORS, KNOWN).tolist() == [0, 1, 0, 1, -1]
