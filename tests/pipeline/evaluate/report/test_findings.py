"""The verdict says what the numbers say, and no more."""

import polars as pl
import pytest

from pipeline.evaluate.report.facts import Board, Checked, Cost, Facts, Health, Unlike
from pipeline.evaluate.report.findings import (
    NOTHING_SURVIVES,
    TASKS,
    Finding,
    against_baseline,
    against_control,
    duration,
    findings,
    help_of_a_model,
    leading,
    p,
    room,
    seeds,
    shown,
    task,
    told,
    trust,
    turned,
    verdict,
    winner,
)
from pipeline.evaluate.results import Name
from pipeline.evaluate.tracks import CTR, NEXT_ITEM, TRACKS
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


def on(leaderboard: pl.DataFrame, comparisons: pl.DataFrame, kinds=KINDS, costs=None, unlike=()) -> Board:
    """What was found on the track ctr."""
    return Board(CTR, leaderboard, comparisons, kinds, costs or {}, unlike)


def whole(*boards: Board, checks=()) -> Facts:
    nothing = {"curves": empty(Curve), "codes": [], "parts": [], "timeline": pl.DataFrame(), "data": {}}
    nothing |= {"quarantine": [], "prompts": [], "stages": [], "environment": {}}
    return Facts(boards=boards, checks=checks, **nothing)


BEST = board(line(BINLLM, 0.74), line(MF, 0.70), line(CONTROL, 0.71))


def texts(found: list[Finding]) -> str:
    return "\n".join(f"{one.tone}: {one.text}" for one in found)


def test_whole_verdict_of_a_method_that_pays():
    compared = comparisons(versus("baseline", MF, 0.04), versus("control", CONTROL, 0.03))
    costs = {BINLLM: Cost(300, 400, 900, 1, 2, "cpu"), MF: Cost(3, 4, 100, 1, None, "cpu")}
    checks = [Checked("mf", "fits", True, 4, 4, "")]
    [(asked, first), (rest, last)] = verdict(whole(on(BEST, compared, costs=costs), checks=checks), "auc")
    assert (asked, rest) == (TASKS["ctr"], "")
    assert texts([*first, *last]) == (
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
    found = findings(on(board(line(BINLLM, 0.68), line(MF, 0.70)), comparisons()), "auc")
    assert found[0].text.startswith("Highest on the test part: mf, AUC 0.7000")
    assert found[1] == Finding(
        "bad", "A baseline stands first: the best language-model method is binllm (dotted), 0.6800."
    )


def test_control_never_wins():
    found = winner(board(line(CONTROL, 0.80), line(BINLLM, 0.70), line(MF, 0.60)), KINDS, "auc")
    assert "binllm (dotted)" in found[0].text


def test_baselines_only_say_that_nothing_can_be_said():
    [found] = help_of_a_model(board(line(MF, 0.70)), {MF: "baseline"}, compete=False)
    assert "nothing can be said" in found.text
    assert help_of_a_model(board(line(MF, 0.70)), {MF: "baseline"}, compete=True) == []


def test_nothing_scored_is_said():
    [(rest, found)] = verdict(whole(), "auc")
    assert (rest, found[0].text) == ("", "No method has been scored on the test part yet.")


def test_metric_decides_who_is_first():
    mixed = board(
        line(BINLLM, 0.74), line(MF, 0.70), line(MF, 0.72, metric="uauc"), line(BINLLM, 0.6, metric="uauc")
    )
    assert findings(on(mixed, comparisons()), "uauc")[0].text.startswith(
        "Highest on the test part: mf, UAUC 0.7200"
    )


def test_validation_figures_do_not_count():
    leaky = board(line(BINLLM, 0.99, part="valid"), line(BINLLM, 0.6), line(MF, 0.7))
    assert findings(on(leaky, comparisons()), "auc")[0].text.startswith("Highest on the test part: mf")


def test_shared_codes_are_weighed_by_rows():
    one = Health("binary_codes", 1, "item", 10, 0, 0.4, 8, 5, 0.6, 3, [0.5] * 8)
    assert room(one) == (
        "60 % of the items with training rows share their code with another; 40 % of the training rows are "
        "theirs, and no prompt can tell those apart by their code."
    )
    assert room(one._replace(rows=None)) == ""


def test_several_seeds_need_no_warning():
    assert seeds([on(board(line(MF, 0.7, seeds=3)), comparisons())]) == []
    assert len(seeds([on(board(line(MF, 0.7)), comparisons())])) == 1
    assert seeds([]) == []


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


# ---- a contest of models

POPULARITY, EASE, SASREC = (Name(one, "default") for one in ("popularity", "ease", "sasrec"))
MODELS = {one: "baseline" for one in (POPULARITY, EASE, SASREC)}
RANKED = board(
    *(line(one, value, metric="ndcg_10") for one, value in ((SASREC, 0.11), (EASE, 0.09), (POPULARITY, 0.05)))
)


def against(one: Name, other: Name, difference: float, p_holm: float = 0.004) -> dict:
    """A test on NDCG@10 with the model that was best on validation, the other."""
    test = versus("baseline", other, difference, p_holm=p_holm)
    return {**test, "track": "next_item", **one._asdict(), "metric": "ndcg_10"}


def contested(*tests: dict, figures: pl.DataFrame = RANKED) -> list[Finding]:
    costs = {SASREC: Cost(100, 120, 900, 1, None, "cpu"), EASE: Cost(3, 4, 100, 1, None, "cpu")}
    return findings(Board(NEXT_ITEM, figures, comparisons(*tests), MODELS, costs), "ndcg_10")


def test_whole_verdict_of_a_model_that_wins():
    found = contested(against(EASE, SASREC, -0.02), against(POPULARITY, SASREC, -0.06))
    assert texts(found) == (
        "neutral: Highest on the test part: sasrec, NDCG@10 0.1100 (95 % interval 0.0900 to 0.1300).\n"
        "good: sasrec beats ease, the best of the others: "
        "+0.0200 NDCG@10 (95 % interval +0.0100 to +0.0300, corrected p 0.004).\n"
        "good: It is shown to be better than 2 of the 2 others.\n"
        "neutral: sasrec took 2 min with all it was made from; ease took 4.0 s.\n"
        "neutral: popularity, the same items for everybody: NDCG@10 0.0500 (95 % interval 0.0300 to 0.0700)."
    )


def test_differences_that_do_not_survive_are_said_to():
    found = contested(against(EASE, SASREC, -0.02, p_holm=0.2), against(POPULARITY, SASREC, -0.06, p_holm=0.2))
    assert found[1].text.startswith(
        "Against ease, the best of the others, no difference could be shown: +0.0200"
    )
    assert found[2] == Finding("neutral", NOTHING_SURVIVES)


def test_a_winner_that_validation_did_not_choose_is_set_beside_the_one_it_did():
    found = contested(against(SASREC, POPULARITY, 0.06), against(EASE, POPULARITY, 0.04))
    assert found[1].text.startswith("sasrec beats popularity, the best on validation: +0.0600")
    assert "others" not in texts(found)


def test_the_winner_beside_the_second_who_was_best_on_validation():
    found = contested(against(SASREC, EASE, 0.02), against(POPULARITY, EASE, -0.04))
    assert found[1].text.startswith("sasrec beats ease, the best of the others: +0.0200")


def test_popularity_that_wins_is_not_named_twice():
    first = board(line(POPULARITY, 0.2, metric="ndcg_10"), line(EASE, 0.1, metric="ndcg_10"))
    assert "same items" not in texts(contested(against(EASE, POPULARITY, -0.1), figures=first))


def test_a_model_alone_has_nobody_to_beat():
    found = contested(figures=board(line(SASREC, 0.11, metric="ndcg_10")))
    assert found[1].text == "No other model was run, so there is nothing to compare it with."


def test_a_test_turned_twice_is_itself():
    row = against(EASE, SASREC, -0.02)
    assert turned(turned(row)) == row
    assert (turned(row)["low"], turned(row)["high"]) == pytest.approx((0.01, 0.03))


def test_each_track_goes_by_a_metric_that_it_has():
    ranked = Board(NEXT_ITEM, RANKED, comparisons(), MODELS, {})
    assert leading(ranked, "uauc") == "ndcg_10"
    assert leading(on(BEST, comparisons()), "uauc") == "uauc"
    heads = [head for head, _ in verdict(whole(on(BEST, comparisons()), ranked), "uauc")]
    assert heads == [TASKS["ctr"], TASKS["next_item"], ""]


def test_every_track_says_what_it_asks():
    for track in TRACKS.values():
        assert task(Board(track, RANKED, comparisons(), MODELS, {}))
    assert set(TASKS) <= set(TRACKS)


def test_figures_that_were_not_computed_alike_are_a_warning():
    apart = [
        Unlike("threads", "", {"1": [MF], "2": [BINLLM, CONTROL]}),
        Unlike("dtype", "adapter", {"float32": [BINLLM], "bfloat16": [CONTROL]}),
    ]
    told = texts([*findings(on(BEST, comparisons(), unlike=apart), "auc"), Finding("neutral", "")])
    assert (
        "bad: Not all figures were computed alike, so small differences between them may be the machine's: "
        "threads: 1 (mf), 2 (binllm (dotted), binllm (without_codes)); "
        "dtype of adapter: float32 (binllm (dotted)), bfloat16 (binllm (without_codes)).\n"
    ) in told
    assert "computed alike" not in texts(findings(on(BEST, comparisons()), "auc"))
