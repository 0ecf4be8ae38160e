"""AUC and its kin against definitions, scikit-learn and planted faults."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn_metrics

from pipeline.evaluate.pointwise import (
    accuracy,
    auc,
    auc_by_user,
    faults,
    hits,
    log_loss,
    losses,
    measure_users,
    user_metrics,
    users_of,
)

# Few values, so that ties are the rule.
SCORES = st.sampled_from([-2.5, -1.0, 0.0, 0.1, 0.3, 1.0, 7.0, 1e300])
ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), SCORES), min_size=1, max_size=60)


def by_counting(labels: list[int], scores: list[float]) -> float:
    """AUC as it is defined: every pair of a liked and a disliked row, one by one."""
    pairs = [
        (s > t) + 0.5 * (s == t)
        for s, liked in zip(scores, labels, strict=True)
        for t, other in zip(scores, labels, strict=True)
        if liked and not other
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def test_auc_of_rows_in_order_is_one_and_reversed_zero():
    assert auc([0, 0, 1], [1, 2, 3]) == 1
    assert auc([1, 1, 0], [1, 2, 3]) == 0


def test_a_tie_counts_half():
    assert auc([1, 0], [0.5, 0.5]) == 0.5
    assert auc([1, 0, 0], [0.5, 0.5, 0.1]) == 0.75


def test_auc_of_one_class_is_nan():
    assert math.isnan(auc([1, 1], [0.1, 0.2]))
    assert math.isnan(auc([], []))


@given(ROWS)
def test_auc_counts_pairs(rows):
    _, labels, scores = zip(*rows, strict=True)
    assert auc(labels, scores) == pytest.approx(by_counting(labels, scores), abs=1e-12, nan_ok=True)


@given(ROWS.filter(lambda rows: len({label for _, label, _ in rows}) == 2))
def test_auc_equals_scikit_learn(rows):
    _, labels, scores = zip(*rows, strict=True)
    assert auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)


def test_auc_equals_scikit_learn_on_many_rows():
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 50_000), random.normal(size=50_000).round(2)
    assert auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)


@given(ROWS)
def test_auc_knows_only_the_order_of_scores(rows):
    _, labels, scores = zip(*rows, strict=True)
    ranks = np.unique(scores, return_inverse=True)[1]
    assert auc(labels, ranks) == pytest.approx(auc(labels, scores), abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([0, 2], [0.1, 0.2], "labels must be 0 or 1"),
        ([0, 1], [0.1, math.nan], "1 of 2 scores are not finite"),
        ([0, 1], [0.1, math.inf], "1 of 2 scores are not finite"),
        ([0, 1], [0.1], "must be two equal"),
        ([[0, 1]], [[0.1, 0.2]], "must be two equal"),
    ],
)
def test_what_is_no_score_or_label_is_refused(labels, scores, words):
    for metric in (auc, log_loss, accuracy):
        with pytest.raises(ValueError, match=words):
            metric(labels, scores)


@given(ROWS)
def test_auc_by_user_equals_a_loop_over_users(rows):
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    found = auc_by_user(users, labels, scores)
    assert found["user"].to_list() == sorted(set(users))
    for user, n, positives, area in found.iter_rows():
        own = users == user
        assert (n, positives) == (own.sum(), labels[own].sum())
        alone = auc(labels[own], scores[own])
        assert (area is None) == math.isnan(alone)
        assert area is None or area == pytest.approx(alone, abs=1e-12)


@given(ROWS, st.randoms())
def test_auc_by_user_does_not_depend_on_the_order_of_rows(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert auc_by_user(*zip(*rows, strict=True)).equals(auc_by_user(*zip(*shuffled, strict=True)))


def test_auc_by_user_of_no_rows_is_an_empty_table():
    assert auc_by_user([], [], []).columns == ["user", "rows", "positives", "auc"]
    assert auc_by_user([], [], []).is_empty()


LABELS = arrays.arrays(np.int64, 12, elements=st.integers(0, 1)).filter(lambda x: 0 < x.sum() < 12)
CHANCES = arrays.arrays(np.float64, 12, elements=st.floats(0, 1))


@given(LABELS, CHANCES)
def test_log_loss_equals_scikit_learn(labels, chances):
    assert log_loss(labels, chances) == pytest.approx(sklearn_metrics.log_loss(labels, chances), rel=1e-9)


@given(LABELS, CHANCES)
def test_accuracy_equals_scikit_learn(labels, chances):
    assert accuracy(labels, chances) == sklearn_metrics.accuracy_score(labels, chances >= 0.5)


def test_losses_of_single_rows_by_hand():
    assert losses([1, 0, 1], [0.5, 0.2, 1.0]).tolist() == pytest.approx([math.log(2), -math.log(0.8), 0.0])
    assert losses([1], [0.0]).tolist() == pytest.approx([36.04], abs=0.01)


def test_one_half_is_read_as_liked():
    assert hits([1, 0], [0.5, 0.5]).tolist() == [True, False]


def test_no_rows_have_no_loss_and_no_accuracy():
    assert math.isnan(log_loss([], []))
    assert math.isnan(accuracy([], []))


@pytest.mark.parametrize("chance", [-0.01, 1.01])
def test_a_probability_outside_its_range_is_refused(chance):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        log_loss([1], [chance])
    with pytest.raises(ValueError, match=r"0\.\.1"):
        accuracy([1], [chance])


# user 1: liked below disliked; user 2: one tie, one right; user 5: liked rows only
EXAMPLES = pl.DataFrame(
    {
        "part": ["test"] * 6 + ["valid"] * 2,
        "row": [10, 11, 12, 13, 14, 15, 3, 4],
        "user": [1, 1, 2, 2, 2, 5, 1, 1],
        "item": [7, 8, 7, 8, 9, 9, 5, 6],
        "label": [1, 0, 1, 0, 0, 1, 1, 0],
    },
    schema={"part": pl.String, "row": pl.UInt32, "user": pl.UInt32, "item": pl.UInt32, "label": pl.UInt8},
)
SCORED = [0.2, 0.6, 0.5, 0.5, 0.1, 0.9, 0.8, 0.3]
TEST = pl.col("part") == "test"


def test_figures_of_users_by_hand(as_pairs):
    pairs = as_pairs(EXAMPLES, "mf", SCORED, probability=pl.Series(SCORED)).filter(TEST)
    found = users_of(pairs)
    assert found.drop("log_loss").rows() == [
        (1, 2, 1, 0.0, 0.0),
        (2, 3, 1, 0.75, pytest.approx(2 / 3)),
        (5, 1, 1, None, 1.0),
    ]
    expected = [(-math.log(0.2) - math.log(0.4)) / 2, (2 * math.log(2) - math.log(0.9)) / 3, -math.log(0.9)]
    assert found["log_loss"].to_list() == pytest.approx(expected)


def test_a_user_with_a_row_without_probability_has_no_loss(as_pairs):
    some = pl.Series([None, 0.6, *SCORED[2:]], dtype=pl.Float64)
    found = users_of(as_pairs(EXAMPLES, "mf", SCORED, probability=some).filter(TEST))
    assert found["log_loss"].is_null().to_list() == [True, False, False]
    assert found["accuracy"].is_null().to_list() == [True, False, False]


def test_a_method_without_probabilities_has_ranks_only(as_pairs):
    found = users_of(as_pairs(EXAMPLES, "popularity", SCORED).filter(TEST))
    assert found["auc"].to_list() == [0.0, 0.75, None]
    assert found["log_loss"].null_count() == found["accuracy"].null_count() == 3


@given(ROWS)
def test_losses_by_user_equal_a_loop_over_users(rows):
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    chances = 1 / (1 + np.exp(-scores))
    found = users_of(pl.DataFrame({"user": users, "label": labels, "score": scores, "probability": chances}))
    for user, loss, right in found.select("user", "log_loss", "accuracy").iter_rows():
        own = users == user
        assert loss == pytest.approx(log_loss(labels[own], chances[own]))
        assert right == pytest.approx(accuracy(labels[own], chances[own]))


def test_every_run_and_part_of_an_artefact_is_measured(as_pairs):
    flat = [0.5] * EXAMPLES.height
    table = measure_users(pl.concat([as_pairs(EXAMPLES, "a", SCORED), as_pairs(EXAMPLES, "b", flat, seed=4)]))
    found = {
        key: rows["auc"].to_list() for key, rows in table.partition_by("method", "part", as_dict=True).items()
    }
    assert found == {
        ("a", "test"): [0.0, 0.75, None],
        ("a", "valid"): [1.0],
        ("b", "test"): [0.5, 0.5, None],
        ("b", "valid"): [0.5],
    }
    assert set(table.filter(method="b")["seed"]) == {4}


def test_a_complete_run_has_no_faults(as_pairs):
    assert faults(as_pairs(EXAMPLES, "mf", SCORED), EXAMPLES) == {}


@pytest.mark.parametrize(
    ("spoil", "kind", "count"),
    [
        (lambda pairs: pairs[2:], "missing", 2),
        (lambda pairs: pl.concat([pairs, pairs[:3]]), "scored twice", 3),
        (
            lambda pairs: pairs.with_columns(row=pl.col("row") + (pl.col("row") == 15) * 90),
            "not in the split",
            1,
        ),
        (lambda pairs: pairs.with_columns(label=1 - pl.col("label")), "with another label", 8),
        (lambda pairs: pairs.with_columns(user=pl.lit(2, pl.UInt32)), "with another user or item", 5),
        (lambda pairs: pairs.with_columns(item=pl.lit(9, pl.UInt32)), "with another user or item", 6),
    ],
)
def test_each_fault_is_counted_by_its_kind(as_pairs, spoil, kind, count):
    assert faults(spoil(as_pairs(EXAMPLES, "mf", SCORED)), EXAMPLES)[kind] == count


@pytest.fixture
def materialised(artefact, as_pairs, draft):
    """Two honest runs through the stage: the draft and its inputs."""
    split = artefact(
        examples=pl.concat(
            [EXAMPLES, EXAMPLES[:1].with_columns(part=pl.lit("train"), row=pl.lit(0, pl.UInt32))]
        )
    )
    held = [artefact(pairs=as_pairs(EXAMPLES, name, SCORED, seed=1)) for name in ("mf", "means")]
    inputs = {"predictions": held, "split": split}
    out = draft(user_metrics)
    user_metrics(**inputs, settings=user_metrics.settings(), out=out)
    return out, inputs


def test_the_stage_writes_every_user_of_every_run(materialised):
    out, _ = materialised
    table = out.read("user_metrics")
    assert table.group_by("method", "part", maintain_order=True).len().rows() == [
        ("mf", "test", 3),
        ("mf", "valid", 1),
        ("means", "test", 3),
        ("means", "valid", 1),
    ]
    assert out.metrics == {"runs": 2, "valid_users": 1, "test_users": 3}


def test_the_stage_writes_an_empty_table_where_nothing_predicts(artefact, draft):
    out = draft(user_metrics)
    user_metrics(predictions=[], split=artefact(examples=EXAMPLES), settings=user_metrics.settings(), out=out)
    assert out.read("user_metrics").is_empty()


def test_honest_runs_pass_all_checks(materialised, verdict):
    out, inputs = materialised
    for check in user_metrics.checks:
        assert check.blocking
        assert verdict(user_metrics, check.name, out, inputs).passed


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda pairs: pairs[1:], "binmf/default, seed 0: 1 rows missing"),
        (lambda pairs: pl.concat([pairs, pairs[:1]]), "binmf/default, seed 0: 1 rows scored twice"),
        (
            lambda pairs: pairs.with_columns(label=1 - pl.col("label")),
            "binmf/default, seed 0: 8 rows with another label",
        ),
        (lambda pairs: pairs.filter(part="test"), "binmf/default, seed 0: 2 rows missing"),
        (
            lambda pairs: pairs.with_columns(part=pl.lit("train")),
            "binmf/default, seed 0: 8 rows not in the split",
        ),
    ],
)
def test_a_run_over_other_rows_is_refused_by_name(artefact, as_pairs, materialised, verdict, spoil, words):
    out, inputs = materialised
    inputs["predictions"].append(artefact(pairs=spoil(as_pairs(EXAMPLES, "binmf", SCORED))))
    found = verdict(user_metrics, "every_row_scored_once", out, inputs)
    assert not found.passed
    assert words in found.description
    assert "mf/default, seed 1" not in found.description


def test_two_stages_may_not_score_under_one_name(artefact, as_pairs, materialised, verdict):
    out, inputs = materialised
    inputs["predictions"].append(artefact(pairs=as_pairs(EXAMPLES, "mf", SCORED, seed=1)))
    found = verdict(user_metrics, "every_row_scored_once", out, inputs)
    assert not found.passed
    assert found.description == "mf/default, seed 1: 8 rows that another stage scored too"


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_without_a_place_is_refused_by_name(artefact, as_pairs, draft, verdict, score):
    split, broken = artefact(examples=EXAMPLES), artefact(pairs=as_pairs(EXAMPLES, "mf", [score, *SCORED[1:]]))
    inputs, out = {"predictions": [broken], "split": split}, draft(user_metrics)
    user_metrics(**inputs, settings=user_metrics.settings(), out=out)
    found = verdict(user_metrics, "scores_are_finite", out, inputs)
    assert not found.passed
    assert found.description == "mf/default, seed 0: 1 scores not finite"
