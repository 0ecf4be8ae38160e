"""The stage on a simulated study, its questions, and every check against a planted fault."""

import numpy as np
import polars as pl
import pytest

from pipeline.evaluate.leaderboard import (
    LeaderboardSettings,
    compare,
    controlled,
    duels,
    leaderboard,
    next_item_leaderboard,
)
from pipeline.evaluate.pointwise import auc, measure_users
from pipeline.evaluate.ranking import METRICS, figures
from pipeline.evaluate.results import contenders, results
from pipeline.evaluate.tracks import CTR, NEXT_ITEM
from pipeline.schema import UserMetrics, UserRanks, empty
from tests.toy_ranked import drawn, named, plain_order

SETTINGS = LeaderboardSettings(resamples=200, flips=500)


def examples(random):
    """50 users with 12 rows each, in both parts."""
    size = 50 * 12
    return pl.concat(
        pl.DataFrame(
            {
                "part": [part] * size,
                "row": np.arange(size) + start,
                "user": np.repeat(np.arange(50) * 3, 12),
                "item": random.integers(0, 99, size),
                "label": random.integers(0, 2, size),
            },
            schema_overrides={"row": pl.UInt32, "user": pl.UInt32, "item": pl.UInt32, "label": pl.UInt8},
        )
        for part, start in (("valid", 0), ("test", size))
    )


def skilled(random, rows, skill):
    """Scores that know the label by so much."""
    return (rows["label"].to_numpy() - 0.5) * skill + random.normal(size=rows.height)


@pytest.fixture(scope="module")
def seen():
    return examples(np.random.default_rng(1))


@pytest.fixture
def study(artefact, as_pairs, seen):
    """Baselines (one of them only ranks, one has two seeds), a good method and its two controls."""
    random = np.random.default_rng(2)

    def scored(method, skill, **more):
        score = skilled(random, seen, skill)
        return as_pairs(seen, method, score, **{"probability": pl.Series(1 / (1 + np.exp(-score))), **more})

    noise = [as_pairs(seen, "popularity", skilled(random, seen, 0.1), probability=None)]
    means = [scored("global_mean", 0.0), scored("item_mean", 0.5)]
    own = [scored("binllm", s, variant=v) for v, s in (("dotted", 1.4), ("without", 0.6), ("shuffled", 0.5))]
    controls = ("without", "shuffled")
    return [
        artefact(pairs=pl.concat(means)),
        artefact(pairs=noise[0]),
        *(artefact(pairs=scored("mf", 0.6, seed=seed)) for seed in (1, 2)),
        *(artefact("methods", controls, pairs=pairs) for pairs in own),
    ]


@pytest.fixture
def made(study, artefact, draft):
    """The stage's draft and inputs for the study."""
    return run(study, artefact, draft)


def run(predictions, artefact, draft, settings=SETTINGS):
    found = [measure_users(a.table("pairs")) for a in predictions]
    inputs = {"predictions": predictions, "users": artefact(user_metrics=pl.concat(found))}
    out = draft(leaderboard)
    leaderboard(**inputs, settings=settings, out=out)
    return out, inputs


def test_every_method_metric_and_part_has_its_row(made):
    out, _ = made
    table = out.read("leaderboard")
    methods = {"global_mean": 5, "item_mean": 5, "popularity": 3, "mf": 5}
    counts = {(m, "default", p): n for m, n in methods.items() for p in ("valid", "test")}
    counts |= {("binllm", v, p): 5 for v in ("dotted", "without", "shuffled") for p in ("valid", "test")}
    found = table.group_by("method", "variant", "part").len()
    assert {row[:3]: row[3] for row in found.iter_rows()} == counts


def test_a_value_is_the_metric_and_lies_in_its_interval(made, study):
    out, _ = made
    pairs = study[0].table("pairs").filter(method="item_mean", part="test")
    row = out.read("leaderboard").filter(method="item_mean", part="test", metric="auc").row(0, named=True)
    assert row["value"] == pytest.approx(auc(pairs["label"], pairs["score"]), abs=1e-12)
    assert row["low"] < row["value"] < row["high"]
    assert (row["users"], row["users_skipped"], row["rows"]) == (50, 0, 600)


def test_seeds_are_counted_and_their_spread_shown(made):
    out, _ = made
    table = out.read("leaderboard").filter(part="test", metric="auc")
    assert dict(table.select("method", "seeds").iter_rows())["mf"] == 2
    known = dict(table.filter(variant="default").select("method", "seed_deviation").iter_rows())
    assert known["mf"] > 0
    assert known["item_mean"] is None


def test_the_best_baseline_is_chosen_on_validation_by_each_metric(made, study, seen):
    out, _ = made
    tests = out.read("comparisons").filter(question="baseline")
    assert set(tests["method"]) == {"binllm"}
    assert set(tests["variant"]) == {"dotted"}
    valid = out.read("leaderboard").filter(part="valid", variant="default")
    for metric, chosen in tests.select("metric", "versus_method").iter_rows():
        ranked = valid.filter(metric=metric).sort("value", descending=metric != "log_loss")
        assert chosen == ranked["method"][0], metric


def test_the_test_part_has_no_say_in_the_choice_of_the_baseline(artefact, as_pairs, seen, draft):
    right = seen["label"].cast(pl.Float64).to_numpy()
    is_test = (seen["part"] == "test").to_numpy()
    lucky = np.where(is_test, right, 0.5) + np.linspace(0, 1e-3, seen.height)
    honest = np.where(is_test, 0.5, right) + np.linspace(0, 1e-3, seen.height)
    own = artefact("methods", pairs=as_pairs(seen, "tallrec", lucky, variant="titles"))
    held = [artefact(pairs=as_pairs(seen, name, s)) for name, s in (("lucky", lucky), ("honest", honest))]
    out, _ = run([*held, own], artefact, draft)
    assert set(out.read("comparisons")["versus_method"]) == {"honest"}


def test_a_method_meets_each_of_its_controls(made):
    out, _ = made
    tests = out.read("comparisons").filter(question="control", metric="uauc").sort("versus_variant")
    assert tests.select("method", "variant", "versus_method", "versus_variant").rows() == [
        ("binllm", "dotted", "binllm", "shuffled"),
        ("binllm", "dotted", "binllm", "without"),
    ]
    assert (tests["difference"] > 0).all()
    assert (tests["p_holm"] < 0.01).all()
    assert (tests["effect"] > 0.5).all()


def test_a_difference_is_the_difference_of_the_two_values(made):
    out, _ = made
    value = {
        row[:3]: row[3]
        for row in out.read("leaderboard")
        .filter(part="test")
        .select("method", "variant", "metric", "value")
        .iter_rows()
    }
    for row in out.read("comparisons").iter_rows(named=True):
        own, other = (value[row[f"{w}method"], row[f"{w}variant"], row["metric"]] for w in ("", "versus_"))
        assert row["difference"] == pytest.approx(own - other, abs=1e-12)
        assert row["low"] <= row["difference"] <= row["high"]


def test_better_means_less_loss(made):
    out, _ = made
    found = {
        m: d
        for m, d in out.read("comparisons")
        .filter(versus_variant="without")
        .select("metric", "difference")
        .iter_rows()
    }
    assert found["log_loss"] < 0 < found["accuracy"]


def test_p_is_corrected_inside_one_question_and_metric(made):
    out, _ = made
    for _, group in out.read("comparisons").partition_by("question", "metric", as_dict=True).items():
        p = sorted(group["p"])
        assert group["p_holm"].min() == pytest.approx(min(1, p[0] * len(p)))


def test_paired_intervals_are_narrower_than_those_of_unrelated_draws(artefact, as_pairs, seen):
    random = np.random.default_rng(5)
    base = skilled(random, seen, 1.0)
    near = base + random.normal(0, 0.1, seen.height)
    held = [
        artefact(pairs=as_pairs(seen, "mf", base)),
        artefact("methods", pairs=as_pairs(seen, "tallrec", near, variant="titles")),
    ]
    users = pl.concat([measure_users(a.table("pairs")) for a in held])
    field = contenders(CTR, held)
    found = [
        r for p in ("valid", "test") for c in field for r in results(CTR, c, users, p, resamples=200, seed=1)
    ]
    paired = compare(CTR, duels(CTR, found, field), SETTINGS).filter(metric="auc").row(0, named=True)
    alone = next(r for r in found if r.part == "test" and r.metric == "auc")
    assert paired["high"] - paired["low"] < 0.5 * np.ptp(np.quantile(alone.draws, [0.025, 0.975]))


def test_a_method_without_probabilities_is_not_compared_by_loss(artefact, as_pairs, seen, study, draft):
    ranks = as_pairs(seen, "ranker", skilled(np.random.default_rng(4), seen, 1), variant="plain")
    out, _ = run([*study, artefact("methods", pairs=ranks)], artefact, draft)
    tests = out.read("comparisons").filter(method="ranker")
    assert tests["metric"].to_list() == ["auc", "uauc", "uauc_weighted"]


def test_baselines_alone_make_a_table_without_comparisons(study, artefact, draft, verdict):
    out, inputs = run(study[:4], artefact, draft)
    assert out.read("leaderboard")["method"].n_unique() == 4
    assert out.read("comparisons").is_empty()
    assert out.metrics["best"] == out.metrics["baseline"]
    for check in leaderboard.checks:
        assert verdict(leaderboard, check.name, out, inputs).passed


def test_nothing_that_predicts_makes_two_empty_tables(artefact, draft):
    out = draft(leaderboard)
    users = artefact(user_metrics=empty(UserMetrics))
    leaderboard(predictions=[], users=users, settings=SETTINGS, out=out)
    assert out.read("leaderboard").is_empty()
    assert out.read("comparisons").is_empty()
    assert out.metrics == {"comparisons": 0, "sure": 0}


def test_the_same_inputs_give_the_same_bits(study, artefact, draft, made):
    first = {name: made[0].file(f"{name}.parquet").read_bytes() for name in ("leaderboard", "comparisons")}
    run(study[::-1], artefact, draft)
    again = {name: made[0].file(f"{name}.parquet").read_bytes() for name in ("leaderboard", "comparisons")}
    assert first == again


def test_another_seed_gives_other_bounds_and_the_same_values(study, artefact, draft, made):
    first = made[0].read("leaderboard")
    out, _ = run(study, artefact, draft, SETTINGS.model_copy(update={"seed": 2}))
    again = out.read("leaderboard")
    assert again["value"].equals(first["value"])
    assert not again["low"].equals(first["low"])


def test_headlines_name_the_winner_of_validation(made):
    out, _ = made
    assert out.metrics["best"] == "binllm/dotted"
    assert out.metrics["baseline"] in {"mf/default", "item_mean/default"}
    row = out.read("leaderboard").filter(method="binllm", variant="dotted", part="test", metric="auc")
    assert out.metrics["best_auc"] == row["value"][0]
    assert out.metrics["comparisons"] == 15
    assert 10 <= out.metrics["sure"] <= 15


def test_a_study_over_unequal_rows_is_refused(study, artefact, draft):
    few = study[0].table("pairs").filter((pl.col("row") != 700) | (pl.col("method") != "item_mean"))
    with pytest.raises(ValueError, match="item_mean/default"):
        run([artefact(pairs=few), *study[1:]], artefact, draft)


@pytest.mark.parametrize("bad", [{"resamples": 10}, {"sed": 1}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LeaderboardSettings(**bad)


def test_honest_results_pass_every_check(made, verdict):
    out, inputs = made
    assert [c.blocking for c in leaderboard.checks] == [True, True, True, False, False]
    for check in leaderboard.checks:
        assert verdict(leaderboard, check.name, out, inputs).passed, check.name


HERE = (pl.col("method") == "mf") & (pl.col("part") == "test") & (pl.col("metric") == "uauc")


@pytest.mark.parametrize(
    ("name", "table", "spoil", "words"),
    [
        ("figures_are_possible", "leaderboard", {"value": 1.2}, "mf/default: test uauc 1.2"),
        ("figures_are_possible", "leaderboard", {"low": -0.1}, "mf/default: test uauc"),
        ("figures_are_possible", "comparisons", {"p_holm": 0.0}, "binllm/dotted: test auc p 0.0"),
        ("all_on_the_same_rows", "leaderboard", {"rows": 599}, "mf/default: test uauc over 599 other rows"),
        ("all_on_the_same_rows", "leaderboard", {"users_skipped": 3}, "mf/default: test uauc"),
        ("intervals_hold_their_values", "leaderboard", {"high": 0.1}, "mf/default: test uauc outside"),
        ("nobody_is_too_good", "leaderboard", {"value": 0.995}, "mf/default: test uauc 0.9950"),
    ],
)
def test_a_planted_fault_is_named(made, verdict, name, table, spoil, words):
    out, inputs = made
    where = HERE if table == "leaderboard" else pl.col("metric") == "auc"
    wrong = [
        pl.when(where).then(pl.lit(value)).otherwise(column).alias(column) for column, value in spoil.items()
    ]
    frame = out.read(table)
    frame.with_columns(wrong).cast(dict(frame.schema)).write_parquet(out.file(f"{table}.parquet"))
    found = verdict(leaderboard, name, out, inputs)
    assert not found.passed
    assert words in found.description


def test_a_control_left_out_of_the_comparisons_is_named(made, verdict):
    out, inputs = made
    out.read("comparisons").filter(pl.col("versus_variant") != "shuffled").write_parquet(
        out.file("comparisons.parquet")
    )
    found = verdict(leaderboard, "every_control_is_compared", out, inputs)
    assert not found.passed
    assert found.description == "binllm/dotted was not compared with binllm/shuffled"


def test_a_control_of_some_variants_is_set_beside_these_alone(artefact, as_pairs, seen, draft, verdict):
    noise = [skilled(np.random.default_rng(n), seen, 0.5) for n in range(4)]
    variants = ("din", "din_without", "dcnv2", "shuffled")
    of = {"din_without": ["din"]}
    made = [
        artefact("methods", ("din_without", "shuffled"), of, pairs=as_pairs(seen, "kar", s, variant=v))
        for v, s in zip(variants, noise, strict=True)
    ]
    pairs = [(one.variant, other.variant) for one, other in controlled(contenders(CTR, made))]
    assert pairs == [("dcnv2", "shuffled"), ("din", "din_without"), ("din", "shuffled")]
    out, inputs = run([*made, artefact(pairs=as_pairs(seen, "mf", noise[0]))], artefact, draft)
    assert verdict(leaderboard, "every_control_is_compared", out, inputs).passed
    kept = out.read("comparisons").filter(pl.col("versus_variant") != "din_without")
    kept.write_parquet(out.file("comparisons.parquet"))
    found = verdict(leaderboard, "every_control_is_compared", out, inputs)
    assert found.description == "kar/din was not compared with kar/din_without"


def test_controls_of_other_methods_are_not_a_methods_own(study, artefact, as_pairs, seen):
    other = artefact("methods", pairs=as_pairs(seen, "tallrec", [0.5] * seen.height, variant="titles"))
    pairs = controlled(contenders(CTR, [*study, other]))
    assert {str(name) for name, _ in pairs} == {"binllm/dotted"}


# --- the same machine on the next_item track


@pytest.fixture(scope="module")
def orders():
    """120 users and 60 items; three models, the second far better on validation, the third only on test."""
    random = np.random.default_rng(8)
    parts = {part: drawn(random, 120, 60, 1).with_columns(part=pl.lit(part)) for part in ("valid", "test")}

    def ranked(method, valid, test, **more):
        held = [
            plain_order(knowing(random, asked, skill), asked, True, 20)
            for asked, skill in ((parts["valid"], valid), (parts["test"], test))
        ]
        return named(pl.concat(held), method, **more)

    return [
        ranked("popularity", 0.2, 0.2),
        pl.concat([ranked("ease", 2.0, 2.0), ranked("ease", 6.0, 6.0, variant="seen_kept")]),
        *(ranked("sasrec", 1.8, 3.5, seed=seed) for seed in (1, 2)),
    ]


def knowing(random, asked, skill):
    """Scores (users, items) that lift the targets by so much."""
    scores = random.normal(size=(asked.height, 60))
    for user, targets in enumerate(asked["targets"]):
        scores[user, targets.to_numpy()] += skill
    return scores


@pytest.fixture
def ranked_study(orders, artefact, draft):
    predictions = [artefact(rankings=rows) for rows in orders]
    keyed_rows = [
        figures(rows).with_columns(
            **{k: pl.lit(v) for k, v in zip(("track", *KEY), ("next_item", *key), strict=True)}
        )
        for frame in orders
        for key, rows in frame.partition_by(*KEY, as_dict=True, maintain_order=True).items()
    ]
    users = pl.concat(keyed_rows).select(empty(UserRanks).columns).cast(dict(empty(UserRanks).schema))
    inputs = {"predictions": predictions, "users": artefact(user_ranks=users)}
    out = draft(next_item_leaderboard)
    next_item_leaderboard(**inputs, settings=SETTINGS, out=out)
    return out, inputs


KEY = ("method", "variant", "seed", "part")


def test_a_catalogue_track_has_its_own_metrics_and_no_pooled_one(ranked_study):
    out, inputs = ranked_study
    table = out.read("leaderboard")
    assert set(table["metric"]) == set(METRICS)
    assert set(table["track"]) == {"next_item"}
    users = inputs["users"].table("user_ranks")
    row = table.filter(method="sasrec", part="test", metric="ndcg_10").row(0, named=True)
    assert row["value"] == pytest.approx(users.filter(method="sasrec", part="test")["ndcg_10"].mean())
    assert (row["seeds"], row["users"], row["users_skipped"], row["rows"]) == (2, 120, 0, 120)
    assert row["low"] < row["value"] < row["high"]


def test_every_model_meets_the_one_best_on_validation(ranked_study):
    out, _ = ranked_study
    tests = out.read("comparisons").filter(metric="ndcg_10")
    assert tests.select("question", "method", "versus_method").rows() == [
        ("baseline", "popularity", "ease"),
        ("baseline", "sasrec", "ease"),
    ]
    assert tests["difference"].to_list()[0] < 0 < tests["difference"].to_list()[1]
    assert (tests["p_holm"] < 0.05).all()
    assert out.metrics["best"] == "ease/default"
    assert set(out.read("comparisons")["metric"]) == set(NEXT_ITEM.tested)


def test_another_protocol_is_shown_but_never_the_best(ranked_study):
    out, _ = ranked_study
    table = out.read("leaderboard").filter(part="valid", metric="ndcg_10").sort("value")
    assert table.select("method", "variant").row(-1) == ("ease", "seen_kept")
    assert "seen_kept" not in set(out.read("comparisons")["versus_variant"])
    assert "seen_kept" not in set(out.read("comparisons")["variant"])


def test_honest_orders_pass_every_check_and_a_leak_is_named(ranked_study, verdict):
    out, inputs = ranked_study
    for check in next_item_leaderboard.checks:
        assert verdict(next_item_leaderboard, check.name, out, inputs).passed, check.name
    table = out.read("leaderboard")
    leak = pl.when(metric="ndcg_10").then(0.95).otherwise("value").alias("value")
    table.with_columns(leak).write_parquet(out.file("leaderboard.parquet"))
    found = verdict(next_item_leaderboard, "nobody_is_too_good", out, inputs)
    assert "ease/default: valid ndcg_10 0.9500" in found.description


def test_orders_of_other_users_are_refused(ranked_study, artefact, draft):
    _, inputs = ranked_study
    users = inputs["users"].table("user_ranks").filter((pl.col("method") != "sasrec") | (pl.col("user") != 7))
    with pytest.raises(ValueError, match="sasrec/default, seed 1 was scored on other"):
        next_item_leaderboard(
            predictions=inputs["predictions"],
            users=artefact(user_ranks=users),
            settings=SETTINGS,
            out=draft(next_item_leaderboard),
        )
