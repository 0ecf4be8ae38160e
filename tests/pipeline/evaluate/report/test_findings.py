"""The verdict says what the numbers say, and no more."""

import polars as pl
import pytest

from pipeline.evaluate.report.facts import Checked, Cost, Facts, Unlike
from pipeline.evaluate.report.findings import (
    Finding,
    against_baseline,
    against_control,
    duration,
    findings,
    p,
    rows,
    seeds,
    shown,
    told,
    trust,
    winner,
)
from pipeline.evaluate.results import Name
from pipeline.schema import Comparisons, Curve, Leaderboard, empty

MF, BINLLM, CONTROL = Name("mf", "default"), Name("binllm", "dotted"), Name("binllm", "without_codes")
KINDS = {MF: "baseline", BINLLM: "method", CONTROL: "control"}


def line(name: Name, value: float, *, metric: str = "auc", part: str = "test", seeds: int = 1) -> dict:
    return {
        "track": "ctr",
        **name._asdict(),
        "part": part,
        "metric": metric,
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "seed_deviation": None,
        "seeds": seeds,
        "users": 90,
        "users_skipped": 10,
        "rows": 1000,
    }


def versus(
    question: str, other: Name, difference: float, *, width: float = 0.01, p_holm: float = 0.004
) -> dict:
    return {
        "track": "ctr",
        "question": question,
        **BINLLM._asdict(),
        "versus_method": other.method,
        "versus_variant": other.variant,
        "metric": "auc",
        "difference": difference,
        "low": difference - width,
        "high": difference + width,
        "p": p_holm / 2,
        "p_holm": p_holm,
        "effect": None,
        "users": 90,
    }


def board(*lines: dict) -> pl.DataFrame:
    return pl.DataFrame(lines, schema=empty(Leaderboard).schema)


def comparisons(*lines: dict) -> pl.DataFrame:
    return pl.DataFrame(lines, schema=empty(Comparisons).schema)


def facts(leaderboard: pl.DataFrame, comparisons: pl.DataFrame, kinds=KINDS, **others) -> Facts:
    nothing = {
        "costs": {},
        "curves": empty(Curve),
        "codes": [],
        "parts": [],
        "timeline": pl.DataFrame(),
        "data": {},
    }
    nothing |= {"quarantine": [], "checks": [], "prompts": [], "stages": [], "environment": {}}
    return Facts(leaderboard=leaderboard, comparisons=comparisons, kinds=kinds, **{**nothing, **others})


BEST = board(line(BINLLM, 0.74), line(MF, 0.70), line(CONTROL, 0.71))


def texts(found: list[Finding]) -> str:
    return "\n".join(f"{one.tone}: {one.text}" for one in found)


def test_whole_verdict_of_a_method_that_pays():
    compared = comparisons(versus("baseline", MF, 0.04), versus("control", CONTROL, 0.03))
    costs = {BINLLM: Cost(300, 400, 900, 1, 2, "cpu"), MF: Cost(3, 4, 100, 1, None, "cpu")}
    assert texts(
        findings(facts(BEST, compared, costs=costs, checks=[Checked("mf", "fits", True, 4, 4, "")]), "auc")
    ) == (
        "neutral: Highest on the test part: binllm (dotted), AUC 0.7400 (95 % interval 0.7200 to 0.7600).\n"
        "good: binllm (dotted) beats mf, the best baseline on validation: "
        "+0.0400 AUC (95 % interval +0.0300 to +0.0500, corrected p 0.004).\n"
        "good: What the method adds helps: +0.0300 AUC (95 % interval +0.0200 to +0.0400, corrected p 0.004) "
        "against its own control, without codes.\n"
        "neutral: binllm (dotted) took 6 min 40 s with all it was made from; mf took 4.0 s.\n"
        "neutral: One seed was run: the intervals cover the choice of users, not the luck of training.\n"
        "good: All 4 checks passed."
    )


def test_interval_over_zero_shows_no_difference():
    row = versus("baseline", MF, 0.004, p_holm=0.001)
    assert not shown(row)
    assert "no difference could be shown" in against_baseline(row).text


def test_large_corrected_p_shows_no_difference():
    assert not shown(versus("baseline", MF, 0.04, p_holm=0.05))


@pytest.mark.parametrize("difference", [0.04, -0.04])
def test_interval_beside_zero_and_small_p_show_a_difference(difference):
    assert shown(versus("baseline", MF, difference))


def test_worse_is_said():
    assert against_baseline(versus("baseline", MF, -0.04)) == Finding(
        "bad",
        "binllm (dotted) is worse than mf, the best baseline on validation: "
        "-0.0400 AUC (95 % interval -0.0500 to -0.0300, corrected p 0.004).",
    )


@pytest.mark.parametrize(
    ("difference", "tone", "words"),
    [
        (0.04, "good", "adds helps"),
        (-0.04, "bad", "adds hurts"),
        (0.001, "neutral", "no difference could be shown"),
    ],
)
def test_control_is_judged(difference, tone, words):
    found = against_control(versus("control", CONTROL, difference))
    assert found.tone == tone
    assert words in found.text


def test_baseline_that_stands_first_is_said():
    found = winner(board(line(BINLLM, 0.68), line(MF, 0.70)), KINDS, "auc")
    assert found[0].text.startswith("Highest on the test part: mf, AUC 0.7000")
    assert found[1] == Finding(
        "bad", "A baseline stands first: the best language-model method is binllm (dotted), 0.6800."
    )


def test_control_never_wins():
    found = winner(board(line(CONTROL, 0.80), line(BINLLM, 0.70), line(MF, 0.60)), KINDS, "auc")
    assert "binllm (dotted)" in found[0].text


def test_baselines_only_say_that_nothing_can_be_said():
    found = winner(board(line(MF, 0.70)), {MF: "baseline"}, "auc")
    assert "nothing can be said" in found[1].text


def test_nothing_scored_is_said():
    found = findings(facts(board(), comparisons(), {}), "auc")
    assert found[0].text == "No method has been scored on the test part yet."


def test_metric_decides_who_is_first():
    mixed = board(
        line(BINLLM, 0.74), line(MF, 0.70), line(MF, 0.72, metric="uauc"), line(BINLLM, 0.6, metric="uauc")
    )
    assert findings(facts(mixed, comparisons()), "uauc")[0].text.startswith(
        "Highest on the test part: mf, UAUC 0.7200"
    )


def test_validation_figures_do_not_count():
    leaky = board(line(BINLLM, 0.99, part="valid"), line(BINLLM, 0.6), line(MF, 0.7))
    assert findings(facts(leaky, comparisons()), "auc")[0].text.startswith("Highest on the test part: mf")


def test_several_seeds_need_no_warning():
    assert seeds(board(line(MF, 0.7, seeds=3))) == []
    assert len(seeds(board(line(MF, 0.7)))) == 1


def test_failed_blocking_check_is_bad_and_named():
    checks = [Checked("mf", "no_future", True, 1, 2, "seed 1: rows"), Checked("mf", "fits", False, 2, 2, "")]
    assert trust(checks) == Finding("bad", "1 of 4 checks failed (mf: no future).")


def test_no_check_is_not_told_as_all_checks_passed():
    assert trust([]) == Finding("neutral", "No check has run, so nothing guards these figures.")


def test_failed_warning_is_a_warning():
    assert trust([Checked("mf", "balanced", False, 0, 2, "")]) == Finding(
        "neutral", "2 of 2 checks raised a warning (mf: balanced)."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration_in_words(seconds, words):
    assert duration(seconds) == words


def test_small_p_is_not_printed_as_zero():
    assert (p(0.0004), p(0.0123)) == ("below 0.001", "0.012")


def test_default_variant_is_not_said():
    assert (told(MF), told(BINLLM)) == ("mf", "binllm (dotted)")


def test_rows_for_the_command_line():
    compared = comparisons(versus("baseline", MF, 0.04), versus("control", CONTROL, 0.03))
    found = rows(pl.concat([BEST, board(line(BINLLM, 0.6, metric="log_loss"))]), compared)
    assert [(r["name"], r["kind"]) for r in found] == [
        ("binllm (dotted)", "method"),
        ("binllm (without_codes)", "control"),
        ("mf", "baseline"),
    ]
    assert found[0]["auc"] == 0.74
    assert found[0]["auc_low"] == pytest.approx(0.72)
    assert found[0]["log_loss"] == 0.6
    assert (found[0]["difference"], found[0]["p_holm"]) == (0.04, 0.004)
    assert (found[2]["uauc"], found[2]["difference"]) == (None, None)


def test_rows_of_nothing():
    assert rows(board(), comparisons()) == []


def test_rows_are_in_the_order_of_the_metric_asked_for():
    both = board(
        line(MF, 0.7), line(BINLLM, 0.6), line(MF, 0.5, metric="uauc"), line(BINLLM, 0.6, metric="uauc")
    )
    assert [r["name"] for r in rows(both, comparisons(), "uauc")] == ["binllm (dotted)", "mf"]


def test_figures_that_were_not_computed_alike_are_a_warning():
    apart = [
        Unlike("threads", "", {"1": [MF], "2": [BINLLM, CONTROL]}),
        Unlike("dtype", "adapter", {"float32": [BINLLM], "bfloat16": [CONTROL]}),
    ]
    told = texts(findings(facts(BEST, comparisons(), unlike=apart), "auc"))
    assert (
        "bad: Not all figures were computed alike, so small differences between them may be the machine's: "
        "threads: 1 (mf), 2 (binllm (dotted), binllm (without_codes)); "
        "dtype of adapter: float32 (binllm (dotted)), bfloat16 (binllm (without_codes)).\n"
    ) in told
    assert "computed alike" not in texts(findings(facts(BEST, comparisons()), "auc"))
