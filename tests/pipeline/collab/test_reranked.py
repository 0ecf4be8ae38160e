"""Lists of the rerank track by fitted models: what is retrieved, and in what order each model puts a list."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.collab.markov import markov
from pipeline.collab.ranked_popularity import ranked_popularity
from pipeline.collab.reranked import (
    OrdersSettings,
    RetrievedSettings,
    hit_rate,
    in_order,
    orders,
    orders_of,
    retrieved,
)
from pipeline.evaluate.reranking import every_list_ordered_once
from pipeline.schema import Candidates
from pipeline.study import StudyError
from tests.toy_next import CIRCLE, ITEMS, LEARNT, artefact, circles, draft, make, split_of, toy
from tests.toy_ranked import ROW, queries

Inputs = dict[str, Any]


def candidates(*rows: tuple[str, str, int, int, int, int]) -> pl.DataFrame:
    """Rows of (list, part, user, place, item, label)."""
    names = ["list", "part", "user", "place", "item", "label"]
    return Candidates.validate(pl.DataFrame(list(rows), schema=names, orient="row"), cast=True)


def test_a_list_is_ordered_by_score_then_item_and_the_unknown_come_last() -> None:
    scored = pl.DataFrame(
        {
            "list": ["random_10"] * 4 + ["random_20"],
            "part": "test",
            "user": [7] * 5,
            "item": [9, 4, 2, 8, 4],
            "label": [0, 1, 0, 0, 1],
            "score": [0.5, None, 0.5, 0.9, 0.1],
        }
    )
    assert in_order(scored).drop("part", "user").rows() == [
        ("rerank/random_10", 1, 8, 0.9, False),
        ("rerank/random_10", 2, 2, 0.5, False),
        ("rerank/random_10", 3, 9, 0.5, False),
        ("rerank/random_10", 4, 4, None, True),
        ("rerank/random_20", 1, 4, 0.1, True),
    ]


# train rows of items 0 to 3: 1, 2, 2, 1; none of 4 and 5
WALKS = toy([[0, 1, 2, 3], [2, 1, 0, 4], [2, 3, 4, 1]], 6)


def test_a_fitted_model_scores_the_items_of_a_list_and_nothing_is_masked(tmp_path: Path) -> None:
    made = make(ranked_popularity, WALKS, tmp_path)
    lists = candidates(
        ("random_10", "test", 0, 1, 5, 0),
        ("random_10", "test", 0, 2, 3, 1),
        ("random_10", "test", 0, 3, 1, 0),  # used before: its score counts all the same
        ("random_10", "valid", 1, 1, 0, 1),
        ("random_10", "valid", 1, 2, 3, 0),
    )
    found = orders_of(made, "popularity", split_of(made), lists)
    assert found.select("part", "user", "rank", "item", "score", "target").rows() == [
        ("test", 0, 1, 1, 2.0, False),
        ("test", 0, 2, 3, 1.0, True),
        ("test", 0, 3, 5, None, False),
        ("valid", 1, 1, 0, 1.0, True),
        ("valid", 1, 2, 3, 1.0, False),
    ]
    assert set(found.select("track", "method", "variant", "seed").rows()) == {
        ("rerank/random_10", "popularity", "default", 0)
    }


def test_the_retrievers_hit_rate_looks_at_its_own_first_items_and_the_first_target() -> None:
    asked = queries([("test", 1, [], [5, 6]), ("test", 2, [], [7]), ("test", 3, [], [8]), ("test", 4, [], [9])])
    rows = [
        ("test", 1, 3, 5, 0.1, True),
        ("test", 2, 4, 7, 0.1, True),  # below the cut
        ("test", 3, 1, 8, None, True),  # without a score
        ("test", 4, 1, 6, 0.3, False),  # another item
    ]
    rankings = pl.DataFrame(rows, schema=list(ROW), orient="row").cast({"user": pl.UInt32, "item": pl.UInt32})
    assert hit_rate(rankings, asked, 3) == 1 / 4
    assert hit_rate(rankings, asked, 4) == 2 / 4
    assert hit_rate(rankings, asked.clear(), 4) != hit_rate(rankings, asked.clear(), 4)  # not a number


# --- the stages, on the circles


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("reranked")
    made = [make(one, circles(), folder) for one in (markov, ranked_popularity)]
    dataset = artefact(folder / "dataset", interactions=circles().events)
    split = split_of(made[0])
    rows = split.table("queries").select(pl.lit("random_10").alias("list"), "part", "user")
    random = artefact(folder / "random", candidates=rows)
    return {"rankings": made, "split": split, "dataset": dataset, "candidates": random}


@pytest.fixture(scope="module")
def first_stage(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory):
    out = draft(retrieved, tmp_path_factory.mktemp("retrieved"))
    retrieved(**inputs, settings=RetrievedSettings(size=5), out=out)
    return out


def test_the_best_on_validation_retrieves_and_its_own_hit_rate_is_told(first_stage, inputs: Inputs) -> None:
    value = [one.metrics["valid_ndcg_10"] for one in inputs["rankings"]]
    assert value[0] > value[1]
    assert first_stage.metrics["retriever"] == "markov"
    assert first_stage.metrics["valid_ndcg_10"] == value[0]
    own = inputs["rankings"][0].table("rankings").filter("target", part="valid", variant="default")
    assert first_stage.metrics["valid_hr_5"] == pytest.approx((own["rank"] <= 5).mean())


def test_a_list_is_the_retrievers_order_with_the_target_put_in(first_stage, inputs: Inputs) -> None:
    lists = first_stage.read("candidates")
    assert set(lists["list"]) == {"retrieved_5"}
    used = circles().events.filter(user=3)["item"].to_list()
    own = inputs["rankings"][0].table("rankings").filter(part="test", user=3, variant="default").sort("rank")
    free = [item for item in own.filter(pl.col("score").is_not_null())["item"] if item not in used]
    assert lists.filter(part="test", user=3, label=0).sort("place")["item"].to_list() == free[:4]
    assert lists.group_by("part", "user").agg(pl.col("label").sum())["label"].unique().to_list() == [1]


def test_all_checks_of_the_retrieved_lists_pass(first_stage, inputs: Inputs) -> None:
    for check in retrieved.checks:
        assert check.run(first_stage, inputs, RetrievedSettings(size=5)).passed, check.name


def test_only_users_with_random_lists_get_retrieved_ones(inputs: Inputs, tmp_path: Path) -> None:
    some = inputs["candidates"].table("candidates").filter(pl.col("user") < 4)
    held = {**inputs, "candidates": artefact(tmp_path / "some", candidates=some)}
    out = draft(retrieved, tmp_path)
    retrieved(**held, settings=RetrievedSettings(size=5), out=out)
    assert out.read("candidates").select("part", "user").unique().height == 8
    check = retrieved.checks[0]
    assert check.run(out, held, RetrievedSettings(size=5)).passed
    assert not check.run(out, inputs, RetrievedSettings(size=5)).passed


def test_lists_longer_than_what_a_retriever_can_score_are_told_of(inputs: Inputs, tmp_path: Path) -> None:
    out = draft(retrieved, tmp_path)
    retrieved(**inputs, settings=RetrievedSettings(size=20), out=out)
    told = retrieved.checks[1].run(out, inputs, RetrievedSettings(size=20))
    assert told.description.endswith("lists of retrieved_20 are short")
    full = out.metrics["retrieved_20_lists"] - out.metrics["retrieved_20_short"]
    assert full == 2  # those who came after training and used one known item; others have at most 18 left


def test_a_retriever_that_is_not_there_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no fitted model 'ease'; known: markov, popularity"):
        retrieved(**inputs, settings=RetrievedSettings(retriever="ease"), out=draft(retrieved, tmp_path))


def test_every_model_orders_every_list_and_the_retriever_finds_its_own_order(
    first_stage, inputs: Inputs, tmp_path: Path
) -> None:
    few = first_stage.read("candidates").with_columns(list=pl.lit("random_5"))
    given = {
        "candidates": artefact(tmp_path / "candidates", candidates=few),
        "retrieved": artefact(tmp_path / "retrieved", candidates=first_stage.read("candidates")),
    }
    out = draft(orders, tmp_path)
    rest = {name: inputs[name] for name in ("rankings", "split")}
    orders(**rest, **given, settings=OrdersSettings(), out=out)
    found = out.read("rankings")
    assert found.height == 2 * 2 * few.height
    assert out.metrics == {"models": 2, "lists": 2 * few.select("part", "user").n_unique()}
    assert every_list_ordered_once(out, given, OrdersSettings()).passed
    own = found.filter(track="rerank/retrieved_5", method="markov", part="test", user=3, target=False)
    listed = first_stage.read("candidates").filter(part="test", user=3, label=0).sort("place")["item"]
    assert own.sort("rank")["item"].to_list() == listed.to_list()


def test_the_toy_has_what_these_tests_say_of_it() -> None:
    assert (CIRCLE, LEARNT, ITEMS) == (22, 22, 24)
