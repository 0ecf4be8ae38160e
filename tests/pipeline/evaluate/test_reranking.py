"""Figures of stored lists: by hand, with every fault planted, and each kind of list judged by itself."""

from typing import Any

import polars as pl
import pytest

from pipeline.evaluate import tracks
from pipeline.evaluate.leaderboard import LeaderboardSettings, rerank_leaderboard
from pipeline.evaluate.reranking import (
    every_list_ordered_once,
    every_method_ordered_its_lists,
    faults,
    length_of,
    user_metrics,
)
from pipeline.schema import Candidates, Rankings

NAMES = ["list", "part", "user", "place", "item", "label"]
LISTS = Candidates.validate(
    pl.DataFrame(
        [
            (name, part, user, place, item, int(item == 40 + user))
            for name, others in (("random_10", range(9)), ("random_20", range(19)))
            for part in ("valid", "test")
            for user in range(6)
            for place, item in enumerate([*others, 40 + user], 1)
        ],
        schema=NAMES,
        orient="row",
    ),
    cast=True,
)


def ordered(method: str, rank_of_target: int, seed: int = 0, lists: pl.DataFrame = LISTS) -> pl.DataFrame:
    """Orders with each target at this rank plus the user's number, the others as listed."""
    own = pl.col("label") == 1
    ahead = pl.min_horizontal(pl.col("user") + rank_of_target, pl.len().over("list", "part", "user"))
    rows = lists.with_columns(key=pl.when(own).then(ahead.cast(pl.Float64) - 0.5).otherwise(pl.col("place")))
    rows = rows.with_columns(rank=pl.col("key").rank("ordinal").over("list", "part", "user"))
    return Rankings.validate(
        rows.select(
            pl.format("rerank/{}", "list").alias("track"),
            pl.lit(method).alias("method"),
            pl.lit("default").alias("variant"),
            pl.lit(seed).alias("seed"),
            "part",
            "user",
            "rank",
            "item",
            (-pl.col("rank").cast(pl.Float64)).alias("score"),
            (pl.col("label") == 1).alias("target"),
        ).sort("track", "part", "user", "rank"),
        cast=True,
    )


@pytest.fixture
def inputs(artefact) -> dict[str, Any]:
    kinds = {name: LISTS.filter(list=name) for name in ("random_10", "random_20")}
    return {
        "predictions": [artefact(rankings=pl.concat([ordered("als", 1), ordered("ease", 4)]))],
        "candidates": artefact(candidates=kinds["random_10"]),
        "retrieved": artefact(candidates=kinds["random_20"]),
    }


@pytest.fixture
def made(inputs, draft):
    out = draft(user_metrics)
    user_metrics(**inputs, settings=user_metrics.settings(), out=out)
    return out


def test_figures_of_a_list_by_hand(made) -> None:
    rows = made.read("user_ranks").filter(track="rerank/random_10", part="test")
    als = rows.filter(method="als").sort("user")
    assert als["first"].to_list() == [1, 2, 3, 4, 5, 6]
    assert als["hr_1"].to_list() == [1, 0, 0, 0, 0, 0]
    assert als["hr_5"].to_list() == [1, 1, 1, 1, 1, 0]
    assert als["ndcg_10"].to_list()[2] == pytest.approx(0.5)
    assert rows.filter(method="ease").sort("user")["first"].to_list() == [4, 5, 6, 7, 8, 9]
    assert made.metrics == {"runs": 4, "valid_users": 6, "test_users": 6}


def test_a_target_without_a_score_is_missed_in_a_list_too(artefact, draft, inputs) -> None:
    lost = ordered("als", 1).with_columns(score=pl.when(~pl.col("target")).then("score"))
    out = draft(user_metrics)
    inputs["predictions"] = [artefact(rankings=lost)]
    user_metrics(**inputs, settings=user_metrics.settings(), out=out)
    assert out.read("user_ranks")["hr_20"].sum() == 0


# --- faults


ONE = LISTS.filter(list="random_10", part="test", user=2)
SOUND = ordered("als", 1, lists=ONE)


def changed(at: int, **columns: Any) -> pl.DataFrame:
    here = pl.col("rank") == at
    return SOUND.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).cast(SOUND.schema[name]).alias(name)
        for name, value in columns.items()
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (SOUND, {}),
        (SOUND.filter(rank=1).clear(), {"listed items not ordered": 10}),
        (SOUND.filter(pl.col("rank") < 10), {"listed items not ordered": 1}),
        (changed(10, item=99), {"listed items not ordered": 1, "items ordered that are not listed": 1}),
        (
            pl.concat([SOUND, SOUND.tail(1).with_columns(rank=pl.lit(11, pl.UInt32))]),
            {"items twice in one order": 1},
        ),
        (changed(10, rank=12), {"lists with a gap or a doubled place": 1}),
        (changed(10, rank=9), {"lists with a gap or a doubled place": 1}),
        (changed(9, score=5.0), {"rows out of order": 1}),
        (changed(9, target=True), {"targets wrongly marked": 1}),
    ],
)
def test_each_fault_of_an_order_is_counted(rows: pl.DataFrame, words: dict[str, int]) -> None:
    found = faults(rows, ONE)
    assert {kind: found[kind] for kind in words} == words
    assert bool(found) == bool(words)


def test_honest_orders_pass_and_a_fault_is_laid_on_its_run(inputs, made, verdict, artefact) -> None:
    name = every_method_ordered_its_lists.__name__
    assert verdict(user_metrics, name, made, inputs).passed
    broken = ordered("als", 1).filter((pl.col("user") != 3) | (pl.col("track") != "rerank/random_20"))
    inputs["predictions"] = [artefact(rankings=broken), artefact(rankings=ordered("ease", 4))]
    found = verdict(user_metrics, name, made, inputs)
    assert found.description == "rerank/random_20: als/default, seed 0: 40 listed items not ordered"


def test_a_run_of_two_stages_is_told_of(inputs, made, verdict, artefact) -> None:
    inputs["predictions"] += [artefact(rankings=ordered("ease", 4).filter(track="rerank/random_10"))]
    found = verdict(user_metrics, "every_method_ordered_its_lists", made, inputs)
    assert found.description.endswith("120 rows of a run that another stage ordered too")


def test_a_method_may_leave_a_kind_of_list_out_but_the_fitted_models_may_not(
    inputs, made, verdict, artefact, draft
) -> None:
    few = pl.concat([ordered("als", 1), ordered("ease", 4).filter(track="rerank/random_10")])
    inputs["predictions"] = [artefact(rankings=few)]
    assert verdict(user_metrics, "every_method_ordered_its_lists", made, inputs).passed

    class Written:
        @staticmethod
        def read(name: str) -> pl.DataFrame:
            return few

    found = every_list_ordered_once(Written(), inputs, user_metrics.settings())  # type: ignore[arg-type]
    assert found.description == "rerank/random_20: ease/default, seed 0: not ordered"


# --- a track for each kind of list


def test_a_kind_of_list_is_a_track_with_the_metrics_that_its_length_allows() -> None:
    assert length_of("rerank/retrieved_50") == 50
    assert tracks.of("rerank/random_10").metrics == ("hr_1", "hr_5", "ndcg_5", "ndcg_10", "mrr_5", "mrr_10")
    assert tracks.of("rerank/random_20").metrics[:3] == ("hr_1", "hr_5", "hr_10")
    assert "hr_20" in tracks.of("rerank/retrieved_50").metrics
    assert "ndcg_1" not in tracks.of("rerank/retrieved_50").metrics
    assert tracks.of("rerank/retrieved_7").main == "ndcg_5"
    assert tracks.of("rerank/random_10").main == "ndcg_10"
    assert tracks.of("next_item") is tracks.NEXT_ITEM
    assert tracks.of("rerank/random_10").name == "rerank/random_10"


QUICK = {"resamples": 100, "flips": 100}


@pytest.fixture
def board(inputs, made, artefact, draft):
    users = artefact(user_ranks=made.read("user_ranks"))
    given = {"predictions": inputs["predictions"], "users": users}
    out = draft(rerank_leaderboard)
    rerank_leaderboard(**given, settings=LeaderboardSettings(**QUICK), out=out)
    return out, given


def test_each_kind_of_list_has_its_own_rows_tests_and_winner(board) -> None:
    out, _ = board
    table = out.read("leaderboard").filter(part="test", metric="hr_1")
    assert table.select("track", "method", "value").sort("track", "method").rows() == [
        ("rerank/random_10", "als", pytest.approx(1 / 6)),
        ("rerank/random_10", "ease", 0.0),
        ("rerank/random_20", "als", pytest.approx(1 / 6)),
        ("rerank/random_20", "ease", 0.0),
    ]
    tests = out.read("comparisons")
    assert set(tests.select("track", "method", "versus_method").rows()) == {
        ("rerank/random_10", "ease", "als"),
        ("rerank/random_20", "ease", "als"),
    }
    assert (out.metrics["random_10_best"], out.metrics["random_20_baseline"]) == ("als/default",) * 2
    assert out.metrics["random_20_best_hr_1"] == pytest.approx(1 / 6)


def test_the_leaderboards_checks_pass_and_look_at_each_kind_by_itself(board, verdict) -> None:
    out, given = board
    assert [
        c.name for c in rerank_leaderboard.checks if not verdict(rerank_leaderboard, c.name, out, given).passed
    ] == []
    other = out.read("leaderboard").with_columns(
        rows=pl.when(pl.col("track") == "rerank/random_20").then(pl.col("rows") + 1).otherwise("rows")
    )
    out.table("leaderboard", other)  # lists of another kind may have other rows
    assert verdict(rerank_leaderboard, "all_on_the_same_rows", out, given).passed
    out.table(
        "leaderboard",
        other.with_columns(value=pl.when(pl.col("metric") == "hr_1").then(0.99).otherwise("value")),
    )
    assert "hr_1 0.9900" in verdict(rerank_leaderboard, "nobody_is_too_good", out, given).description
