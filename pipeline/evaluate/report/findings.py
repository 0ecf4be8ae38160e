"""The verdict in plain words, made from the numbers alone: sentences on each track, then those on all of them.

A difference counts as shown where its interval leaves out zero and its corrected p is below `SURE`; else the
words are "no difference could be shown", which is not the same as "there is none".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import polars as pl

from pipeline.evaluate.ranking import CUTS
from pipeline.evaluate.report.facts import Board, Checked, Cost, Facts, Health, Unlike
from pipeline.evaluate.results import Name

SURE = 0.05
FLOORS = {  # what a model must beat to be worth anything
    Name("popularity", "default"): "the same items for everybody",
    Name("random", "default"): "an order drawn by lot",
}
TASKS = {
    "ctr": "Like or not: would this user like this item?",
    "next_item": "Next item: what will this user choose next, out of the whole catalogue?",
    "cold_item": "Cold item: which item that nobody is known to have used will this user choose?",
}
WORDS = {
    "auc": "AUC",
    "uauc": "UAUC",
    "uauc_weighted": "UAUC, weighted",
    "log_loss": "log loss",
    "accuracy": "accuracy",
    **{f"{kind.lower()}_{cut}": f"{kind}@{cut}" for kind in ("HR", "NDCG", "MRR", "MAP") for cut in CUTS},
    **{f"{kind}_{cut}": f"{kind}@{cut}" for kind in ("precision", "recall") for cut in CUTS},
}
RIVALS = ("method", "baseline")
NOTHING_SURVIVES = "None of its differences to the others survives the correction for having asked so often."
Row = Mapping[str, Any]
Tone = Literal["good", "bad", "neutral"]


class Finding(NamedTuple):
    """One sentence, and how to take it."""

    tone: Tone
    text: str


def verdict(facts: Facts, metric: str) -> list[tuple[str, list[Finding]]]:
    """The head of the report: each track's task with the sentences on it, at last "" with those on all tracks.

    metric: of the tracks that have it; the others go by their main one. Stored lists say what they have to
    say in their own sections: the same models order them, and a retriever's list is no contest for its own.
    """
    heads = [one for one in facts.boards if not one.of_lists]
    tracks = [(task(one), findings(one, leading(one, metric))) for one in heads]
    nothing = [] if tracks else [Finding("neutral", "No method has been scored on the test part yet.")]
    return [*tracks, ("", [*nothing, *seeds(facts.boards), trust(facts.checks)])]


def task(board: Board) -> str:
    """What the track asks, in words."""
    named = board.track.name.replace("_", " ").replace("/", ", ").capitalize()
    return TASKS.get(board.track.name, f"{named}: which item of the list did this user choose next?")


def leading(board: Board, metric: str) -> str:
    """The metric that a track is judged and sorted by."""
    return metric if metric in board.track.metrics else board.track.main


def findings(board: Board, metric: str) -> list[Finding]:
    """The sentences on one track."""
    rows = board.leaderboard.filter(part="test", metric=metric)
    found = [*winner(rows, board.kinds, metric), *help_of_a_model(rows, board.kinds, board.compete)]
    if board.compete:
        found += contest(board, rows, metric)
    best = best_of(rows, board.kinds, "method")
    if best:
        tests = board.comparisons.filter(metric=metric, method=best["method"], variant=best["variant"])
        against = [] if board.compete else tests.filter(question="baseline").to_dicts()
        found += [against_baseline(row) for row in against]
        found += [against_control(row) for row in tests.filter(question="control").to_dicts()]
        found += [] if board.compete else price(name_of(best), against, board.costs)
    return [*found, *machines(board.unlike)]


def name_of(row: Row) -> Name:
    return Name(row["method"], row["variant"])


def told(name: Name | Row) -> str:
    """`binllm (dotted)`, or `mf` for what has one form."""
    method, variant = name if isinstance(name, Name) else name_of(name)
    return method if variant == "default" else f"{method} ({variant})"


def best_of(board: pl.DataFrame, kinds: Mapping[Name, str], *wanted: str) -> dict[str, Any] | None:
    """The row with the highest value among methods of these kinds."""
    rows = [row for row in board.sort("value", descending=True).to_dicts() if kinds.get(name_of(row)) in wanted]
    return rows[0] if rows else None


def winner(board: pl.DataFrame, kinds: Mapping[Name, str], metric: str) -> list[Finding]:
    """Who stands first on test."""
    best = best_of(board, kinds, "method", "baseline")
    if best is None:
        return [Finding("neutral", "No method has been scored on the test part yet.")]
    return [Finding("neutral", f"Highest on the test part: {told(best)}, {measured(best, metric)}.")]


def measured(row: Row, metric: str) -> str:
    """`AUC 0.7400 (95 % interval 0.7200 to 0.7600)`."""
    return f"{WORDS[metric]} {row['value']:.4f} (95 % interval {row['low']:.4f} to {row['high']:.4f})"


def help_of_a_model(board: pl.DataFrame, kinds: Mapping[Name, str], compete: bool) -> list[Finding]:
    """Whether a language-model method stands first; nothing where one does.

    compete: the models are a contest of their own, which needs no language model to say something.
    """
    best, method = best_of(board, kinds, "method", "baseline"), best_of(board, kinds, "method")
    if best is None or best == method:
        return []
    if method is not None:
        words = f"the best language-model method is {told(method)}, {method['value']:.4f}."
        return [Finding("bad", f"A baseline stands first: {words}")]
    words = "Only baselines were run, so nothing can be said about what a language model would add."
    return [] if compete else [Finding("neutral", words)]


def contest(board: Board, rows: pl.DataFrame, metric: str) -> list[Finding]:
    """The first of several models beside the best of the others, what both took, and what the floor has.

    Tests are made with the model that was best on validation; where that is neither of the two, the first is
    set beside it.
    """
    field = [r for r in rows.sort("value", descending=True).to_dicts() if board.kinds.get(name_of(r)) in RIVALS]
    if len(field) < 2:
        return [Finding("neutral", "No other model was run, so there is nothing to compare it with.")]
    tests = board.comparisons.filter(question="baseline", metric=metric).to_dicts()
    both = [row for test in tests for row in (test, turned(test))]
    against = {versus(row): row for row in both if name_of(row) == name_of(field[0])}
    row = against.get(name_of(field[1])) or next(iter(against.values()), None)
    found = [] if row is None else [rival(row, name_of(field[1])), *tally(list(against.values()))]
    found += price(name_of(field[0]), [row] if row else [], board.costs)
    floor = [(r, FLOORS[name_of(r)]) for r in field[1:] if name_of(r) in FLOORS]
    return found + [Finding("neutral", f"{told(r)}, {what}: {measured(r, metric)}.") for r, what in floor]


def versus(row: Row) -> Name:
    return Name(row["versus_method"], row["versus_variant"])


def turned(row: Row) -> dict[str, Any]:
    """The same test, seen from the other side."""
    one, other = name_of(row), versus(row)
    ends = {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
    return {
        **row,
        **ends,
        **other._asdict(),
        "versus_method": one.method,
        "versus_variant": one.variant,
    }


def rival(row: Row, second: Name) -> Finding:
    """The winner of test beside another model."""
    who = "the best of the others" if versus(row) == second else "the best on validation"
    return beside(row, f"{told(versus(row))}, {who}")


def beside(row: Row, other: str) -> Finding:
    """A paired test in words."""
    if not shown(row):
        return Finding("neutral", f"Against {other}, no difference could be shown: {numbers(row)}.")
    if row["difference"] > 0:
        return Finding("good", f"{told(row)} beats {other}: {numbers(row)}.")
    return Finding("bad", f"{told(row)} is worse than {other}: {numbers(row)}.")


def tally(tests: Sequence[Row]) -> list[Finding]:
    """How many others the winner is shown to beat, where it was compared with several."""
    if len(tests) < 2:
        return []
    sure = sum(shown(row) and row["difference"] > 0 for row in tests)
    words = f"It is shown to be better than {sure} of the {len(tests)} others."
    return [Finding("good" if sure else "neutral", words if sure else NOTHING_SURVIVES)]


def shown(row: Row) -> bool:
    """True where the data show a difference, of either sign."""
    return not row["low"] <= 0 <= row["high"] and row["p_holm"] < SURE


def numbers(row: Row) -> str:
    """`+0.0213 AUC (95 % interval +0.0105 to +0.0320, corrected p 0.003)`."""
    interval = f"95 % interval {row['low']:+.4f} to {row['high']:+.4f}"
    return f"{row['difference']:+.4f} {WORDS[row['metric']]} ({interval}, corrected p {p(row['p_holm'])})"


def p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def against_baseline(row: Row) -> Finding:
    """A method beside the baseline that was best on validation."""
    return beside(row, f"{told(versus(row))}, the best baseline on validation")


def against_control(row: Row) -> Finding:
    """A method beside itself with what it adds taken away or shuffled."""
    control = f"its own control, {row['versus_variant'].replace('_', ' ')}"
    if not shown(row):
        return Finding("neutral", f"Against {control}, no difference could be shown: {numbers(row)}.")
    helps = "helps" if row["difference"] > 0 else "hurts"
    return Finding(
        "good" if row["difference"] > 0 else "bad",
        f"What the method adds {helps}: {numbers(row)} against {control}.",
    )


def price(best: Name, against: Sequence[Row], costs: Mapping[Name, Cost]) -> list[Finding]:
    """What the best method took, beside the baseline that it was compared with."""
    if best not in costs:
        return []
    text = f"{told(best)} took {duration(costs[best].seconds_with_inputs)} with all it was made from"
    others = [versus(row) for row in against if versus(row) in costs]
    text += "".join(f"; {told(n)} took {duration(costs[n].seconds_with_inputs)}" for n in others)
    return [Finding("neutral", f"{text}.")]


def duration(seconds: float) -> str:
    """`0.4 s`, `20 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s".removesuffix(" 0 s")
    return f"{whole // 3600} h {whole % 3600 // 60} min".removesuffix(" 0 min")


def seeds(boards: Sequence[Board]) -> list[Finding]:
    """A word of warning where training was tried once only."""
    if boards and max(one.leaderboard["seeds"].to_numpy().max() for one in boards) == 1:
        words = "One seed was run: the intervals cover the choice of users, not the luck of training."
        return [Finding("neutral", words)]
    return []


def machines(found: Sequence[Unlike]) -> list[Finding]:
    """A warning where figures that are compared were not computed alike."""
    if not found:
        return []
    told_all = "; ".join(difference(one) for one in found)
    return [
        Finding(
            "bad",
            "Not all figures were computed alike, so small differences between them may be the machine's: "
            f"{told_all}.",
        )
    ]


def difference(one: Unlike) -> str:
    """`threads: 1 (mf), 2 (binllm (dotted))`."""
    what = f"{one.fact} of {one.stages}" if one.stages else one.fact
    values = [f"{value} ({', '.join(told(name) for name in names)})" for value, names in one.values.items()]
    return f"{what}: {', '.join(values)}"


def room(one: Health) -> str:
    """What it means that codes are shared, in one sentence."""
    if one.rows is None:
        return ""
    shared, rows = f"{one.colliding * 100:.0f} %", f"{one.rows * 100:.0f} %"
    words = f"{shared} of the {one.entity}s with training rows share their code with another"
    return f"{words}; {rows} of the training rows are theirs, and no prompt can tell those apart by their code."


def trust(checks: Sequence[Checked]) -> Finding:
    """How many checks passed, and which did not."""
    verdicts = sum(one.artefacts for one in checks)
    if not verdicts:
        return Finding("neutral", "No check has run, so nothing guards these figures.")
    failed = [one for one in checks if one.failed]
    if not failed:
        return Finding("good", f"All {verdicts} checks passed.")
    blocking = any(one.blocking for one in failed)
    names = ", ".join(f"{one.stage}: {one.name.replace('_', ' ')}" for one in failed)
    missed = sum(one.artefacts - one.passed for one in failed)
    return Finding(
        "bad" if blocking else "neutral",
        f"{missed} of {verdicts} checks {'failed' if blocking else 'raised a warning'} ({names}).",
    )
