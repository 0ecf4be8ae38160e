"""Figures of orders: by hand, beside an independent library, and every fault planted."""

import math

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Success, nDCG

from pipeline.evaluate.ranking import CUTS, METRICS, exposed, faults, figures, mean_of, user_metrics
from pipeline.schema import Rankings, UserRanks, empty
from tests.toy_ranked import ROW, catalogue, drawn, named, plain_order, queries

PEERS = {"hr": Success, "ndcg": nDCG, "map": AP, "precision": P, "recall": R}
KINDS = ("hr", "ndcg", "mrr", "map", "precision", "recall")


def found_at(*ranks, user=0):
    """The targets' rows of one user; None for a target without a score."""
    rows = [("test", user, rank or 40 + n, 10 + n, 0.1 if rank else None, True) for n, rank in enumerate(ranks)]
    return pl.DataFrame(rows, schema=empty(Rankings).select(ROW).schema, orient="row")


def test_one_target_by_hand():
    (row,) = figures(found_at(7)).to_dicts()
    assert (row["user"], row["targets"], row["first"]) == (0, 1, 7)
    at_10 = {kind: row[f"{kind}_10"] for kind in KINDS}
    assert at_10 == {
        "hr": 1.0,
        "ndcg": pytest.approx(1 / 3),
        "mrr": pytest.approx(1 / 7),
        "map": pytest.approx(1 / 7),
        "precision": 0.1,
        "recall": 1.0,
    }
    assert [row[f"{kind}_5"] for kind in KINDS] == [0.0] * 6


def test_three_targets_by_hand():
    (row,) = figures(found_at(2, 11, 4)).to_dicts()
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert row["ndcg_10"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / best)
    assert row["map_10"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert row["map_20"] == pytest.approx((1 / 2 + 2 / 4 + 3 / 11) / 3)
    assert (row["precision_10"], row["recall_10"], row["mrr_5"]) == (0.2, pytest.approx(2 / 3), 0.5)


def test_more_targets_than_places_can_still_be_perfect():
    (row,) = figures(found_at(1, 2, 3, 4, 5, 6, 7)).to_dicts()
    assert (row["ndcg_5"], row["precision_5"], row["recall_5"]) == (1.0, 1.0, pytest.approx(5 / 7))


def test_a_target_without_a_score_is_missed_whatever_its_place():
    rows = found_at(None, 2).with_columns(rank=pl.Series([3, 2], dtype=pl.UInt32))
    (row,) = figures(rows).to_dicts()
    assert (row["targets"], row["first"], row["recall_5"], row["map_5"]) == (2, 2, 0.5, 0.25)
    (lost,) = figures(found_at(None)).to_dicts()
    assert (lost["first"], lost["hr_20"], lost["ndcg_20"]) == (None, 0.0, 0.0)


def test_users_come_ascending_and_other_rows_do_not_count():
    rows = pl.concat([found_at(3, user=9), found_at(1, user=2)])
    others = rows.with_columns(target=False, rank=pl.lit(2, pl.UInt32))
    assert figures(pl.concat([others, rows])).equals(figures(rows))
    assert figures(rows)["user"].to_list() == [2, 9]
    assert mean_of(rows, "mrr_10") == pytest.approx((1 + 1 / 3) / 2)


def test_nobody_has_no_figures():
    assert figures(found_at()).columns == ["user", "targets", "first", *METRICS]
    assert math.isnan(mean_of(found_at(), "hr_5"))


def test_the_table_has_a_column_for_each_metric():
    assert [name for name in UserRanks.column_names() if name.rpartition("_")[0] in KINDS] == list(METRICS)


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 60), st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=120, deadline=None)
def test_every_figure_is_that_of_ir_measures_ties_included(seed, users, items, most, levels):
    """The peer breaks ties by document id, descending; ours by item, ascending, so ids are turned round."""
    random = np.random.default_rng(seed)
    asked, scores = drawn(random, users, items, most), random.integers(0, levels, (users, items)) / 7
    rows = plain_order(scores, asked, masked=True, top=100)
    qrels = {str(q["user"]): {f"{999 - i}": 1 for i in q["targets"]} for q in asked.to_dicts()}
    run = {user: {} for user in qrels}
    for _, user, _, item, score, _ in rows.iter_rows():
        if score is not None:
            run[str(user)][f"{999 - item}"] = score
    measures = {peer @ cut: f"{kind}_{cut}" for kind, peer in PEERS.items() for cut in CUTS} | {RR: "mrr"}
    table = {row["user"]: row for row in figures(rows).to_dicts()}
    seen = 0
    for one in ir_measures.iter_calc(measures, qrels, run):
        ours, metric = table[int(one.query_id)], measures[one.measure]
        for cut in CUTS if metric == "mrr" else ():
            assert ours[f"mrr_{cut}"] == pytest.approx(one.value * (one.value >= 1 / cut - 1e-12), abs=1e-9)
        if metric != "mrr":
            assert ours[metric] == pytest.approx(one.value, abs=1e-9), metric
        seen += 1
    assert seen == users * len(measures)


# --- what all lists together show


def test_exposure_by_hand():
    rows = [
        *[("test", 0, rank, item, 1.0 - rank / 100, False) for rank, item in enumerate([0, 1, 2, 3, 4], 1)],
        *[("test", 1, rank, item, 1.0 - rank / 100, False) for rank, item in enumerate([0, 1, 2, 3, 5, 4], 1)],
        ("test", 1, 7, 6, None, True),
    ]
    orders = pl.DataFrame(rows, schema=empty(Rankings).select(ROW).schema, orient="row")
    found = dict(exposed(orders, catalogue([4, 4, 2, 2, 4, 0, 0, 0])).iter_rows())
    assert found["coverage_5"] == 6 / 8
    assert found["coverage_10"] == 6 / 8
    assert found["popularity_5"] == pytest.approx((4 + 4 + 2 + 2 + 4 + 4 + 4 + 2 + 2 + 0) / 10)
    assert found["novelty_5"] == pytest.approx((2 * 5 + 3 * 4 + 4 * 1) / 10)


def test_lists_without_any_item_show_nothing():
    found = dict(exposed(found_at(None), catalogue([1, 1])).iter_rows())
    assert (found["coverage_10"], found["popularity_10"], found["novelty_10"]) == (0.0, None, None)


# --- the stage


@pytest.fixture
def study(artefact):
    """Two methods, one of them with two seeds, on five users and both parts."""
    random = np.random.default_rng(4)
    parts = [drawn(random, 5, 30).with_columns(part=pl.lit(part)) for part in ("valid", "test")]
    split = artefact(queries=pl.concat(parts), catalogue=catalogue(random.integers(0, 9, 30)))

    def ranked(method, **more):
        orders = [plain_order(random.normal(size=(5, 30)), part, masked=True, top=20) for part in parts]
        return named(pl.concat(orders), method, **more)

    methods = [ranked("als", seed=1), ranked("als", seed=2), ranked("ease")]
    return {"predictions": [artefact(rankings=rows) for rows in methods], "split": split}


@pytest.fixture
def made(study, draft):
    out = draft(user_metrics)
    user_metrics(**study, settings=user_metrics.settings(), out=out)
    return out


def test_every_run_part_and_user_has_a_row(made, study):
    table = made.read("user_ranks")
    assert table.height == 3 * 2 * 5
    assert made.metrics == {"runs": 3, "valid_users": 5, "test_users": 5}
    own = study["predictions"][1].table("rankings").filter(part="test")
    assert (
        table.filter(method="als", seed=2, part="test")
        .select("user", "targets", "first", *METRICS)
        .equals(figures(own))
    )
    assert made.read("exposure").height == 3 * 2 * 3 * len(CUTS)


def test_other_tracks_are_left_alone(artefact, study, draft):
    other = (
        study["predictions"][0].table("rankings").with_columns(track=pl.lit("rerank"), method=pl.lit("gone"))
    )
    out = draft(user_metrics)
    predictions = [*study["predictions"], artefact(rankings=other)]
    user_metrics(predictions=predictions, split=study["split"], settings=user_metrics.settings(), out=out)
    assert set(out.read("user_ranks")["method"]) == {"als", "ease"}


def test_no_method_makes_empty_tables(study, draft, verdict):
    out = draft(user_metrics)
    user_metrics(predictions=[], split=study["split"], settings=user_metrics.settings(), out=out)
    assert out.read("user_ranks").is_empty()
    assert verdict(user_metrics, "every_method_ranked_every_query", out, {**study, "predictions": []}).passed


HERE = (pl.col("part") == "test") & (pl.col("user") == 3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: rows.filter(~HERE), "ease/default, seed 0: 1 queries not ranked"),
        (lambda rows: rows.filter(~HERE | (pl.col("rank") != 5)), "1 users with a gap"),
        (
            lambda rows: rows.with_columns(method=pl.lit("als"), seed=pl.lit(1, pl.UInt32)),
            "another stage ranked too",
        ),
        (lambda rows: rows.with_columns(target=~pl.col("target")), "targets not marked"),
    ],
)
def test_a_planted_fault_blocks_and_is_named(made, study, artefact, verdict, spoil, words):
    (check,) = user_metrics.checks
    assert check.blocking
    assert verdict(user_metrics, check.name, made, study).passed
    wrong = artefact(rankings=spoil(study["predictions"][2].table("rankings")))
    found = verdict(
        user_metrics, check.name, made, {**study, "predictions": [*study["predictions"][:2], wrong]}
    )
    assert not found.passed
    assert words in found.description


def test_targets_below_the_kept_places_are_no_gap():
    asked = queries([("test", 0, [], [29]), ("test", 1, [], [20, 25])])
    rows = plain_order(-np.arange(30.0)[None].repeat(2, 0), asked, True, 20)
    assert rows.filter("target")["rank"].to_list() == [30, 21, 26]
    assert faults(rows, asked) == {}
