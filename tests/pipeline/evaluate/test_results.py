"""Who contends, and what is known of each: values by hand, seeds, what is left out."""

import numpy as np
import polars as pl
import pytest

from pipeline.evaluate.pointwise import auc, measure_users
from pipeline.evaluate.results import Name, contenders, refuse_unequal, results
from pipeline.evaluate.tracks import CTR

EXAMPLES = pl.DataFrame(
    {
        "part": ["test"] * 7 + ["valid"] * 2,
        "row": [20, 21, 22, 23, 24, 25, 26, 3, 4],
        "user": [4, 4, 9, 9, 9, 30, 30, 4, 4],
        "item": [7, 8, 7, 8, 9, 9, 1, 5, 6],
        "label": [1, 0, 1, 0, 0, 1, 1, 1, 0],
    },
    schema={"part": pl.String, "row": pl.UInt32, "user": pl.UInt32, "item": pl.UInt32, "label": pl.UInt8},
)
ONE = [0.2, 0.6, 0.5, 0.5, 0.1, 0.9, 0.4, 0.8, 0.3]
OTHER = [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.2, 0.3]
LABELS = EXAMPLES["label"].to_list()[:7]


def known(found):
    return {result.metric: result for result in found}


@pytest.fixture
def two_seeds(artefact, as_pairs):
    """Matrix factorisation with seeds 1 and 2, in two artefacts."""
    runs = [as_pairs(EXAMPLES, "mf", s, seed=i, probability=pl.Series(s)) for i, s in ((1, ONE), (2, OTHER))]
    return [artefact(pairs=run) for run in runs], pl.concat([measure_users(run) for run in runs])


def test_kinds_follow_from_section_and_controls(artefact, as_pairs):
    means = artefact(pairs=pl.concat([as_pairs(EXAMPLES, m, ONE) for m in ("item_mean", "global_mean")]))
    own = [
        artefact("methods", ("shuffled", "without"), pairs=as_pairs(EXAMPLES, "binllm", ONE, variant=variant))
        for variant in ("without", "dotted")
    ]
    assert [(str(c.name), c.kind) for c in contenders(CTR, [means, *own])] == [
        ("binllm/dotted", "method"),
        ("binllm/without", "control"),
        ("global_mean/default", "baseline"),
        ("item_mean/default", "baseline"),
    ]


def test_the_seeds_of_a_method_are_one_contender(two_seeds):
    artefacts, _ = two_seeds
    (found,) = contenders(CTR, artefacts)
    assert found.name == Name("mf", "default")
    assert len(found.artefacts) == 2


def test_values_are_means_over_seeds(two_seeds):
    artefacts, users = two_seeds
    (contender,) = contenders(CTR, artefacts)
    found = known(results(CTR, contender, users, "test", resamples=50, seed=1))
    areas = [auc(LABELS, ONE[:7]), auc(LABELS, OTHER[:7])]
    assert found["auc"].value == pytest.approx(np.mean(areas))
    assert found["auc"].by_seed == pytest.approx(areas)
    assert found["uauc"].by_seed == pytest.approx([(0 + 0.75) / 2, (1 + 1) / 2])
    assert found["uauc_weighted"].by_seed == pytest.approx([(0 * 2 + 0.75 * 3) / 5, 1])
    assert found["accuracy"].by_seed == pytest.approx([3 / 7, 4 / 7])
    chances = np.where(LABELS, ONE[:7], 1 - np.array(ONE[:7]))
    assert found["log_loss"].by_seed[0] == pytest.approx(-np.log(chances).mean())


def test_users_of_one_class_count_in_auc_but_not_in_uauc(two_seeds):
    artefacts, users = two_seeds
    (contender,) = contenders(CTR, artefacts)
    found = known(results(CTR, contender, users, "test", resamples=50, seed=1))
    assert {m: r.users for m, r in found.items()} == {
        "auc": 3,
        "uauc": 2,
        "uauc_weighted": 2,
        "log_loss": 3,
        "accuracy": 3,
    }
    assert {r.rows for r in found.values()} == {7}
    assert {r.everyone for r in found.values()} == {3}


def test_draws_agree_with_the_metric_of_drawn_users(two_seeds):
    artefacts, users = two_seeds
    (contender,) = contenders(CTR, artefacts[:1])
    found = known(results(CTR, contender, users.filter(seed=1), "test", resamples=200, seed=1))
    possible = {0.0, 0.75 / 3, 0.375, 1.5 / 3, 0.75}  # of no, one or two of the users 4 and 9 in every mix
    drawn = found["uauc"].draws[np.isfinite(found["uauc"].draws)]
    assert {round(d, 9) for d in drawn} <= {round(p, 9) for p in possible}
    assert len(set(drawn)) >= 4


def test_a_method_without_probabilities_has_rank_metrics_only(artefact, as_pairs):
    pairs = as_pairs(EXAMPLES, "popularity", ONE)
    (contender,) = contenders(CTR, [artefact(pairs=pairs)])
    found = results(CTR, contender, measure_users(pairs), "test", resamples=50, seed=1)
    assert [r.metric for r in found] == ["auc", "uauc", "uauc_weighted"]


def test_a_part_with_one_class_has_no_auc(artefact, as_pairs):
    liked = EXAMPLES.with_columns(label=pl.lit(1, pl.UInt8))
    pairs = as_pairs(liked, "mf", ONE, probability=pl.Series(ONE))
    (contender,) = contenders(CTR, [artefact(pairs=pairs)])
    found = results(CTR, contender, measure_users(pairs), "test", resamples=50, seed=1)
    assert [r.metric for r in found] == ["log_loss", "accuracy"]


def test_a_part_that_nobody_scored_has_no_results(two_seeds):
    artefacts, users = two_seeds
    (contender,) = contenders(CTR, artefacts)
    assert results(CTR, contender, users.filter(part="valid"), "test", resamples=50, seed=1) == []


def test_runs_over_the_same_rows_are_accepted(two_seeds):
    refuse_unequal(CTR, two_seeds[1])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pairs: pairs.filter(pl.col("row") != 26),
        lambda pairs: pairs.with_columns(label=1 - pl.col("label")),
        lambda pairs: pairs.with_columns(user=pl.col("user") + 1),
    ],
)
def test_a_run_over_other_rows_is_refused_by_name(two_seeds, as_pairs, spoil):
    other = measure_users(spoil(as_pairs(EXAMPLES, "tallrec", ONE, variant="titles", seed=3)))
    with pytest.raises(
        ValueError, match="tallrec/titles, seed 3 was scored on other test rows than mf/default"
    ):
        refuse_unequal(CTR, pl.concat([two_seeds[1], other.filter(part="test")]))
