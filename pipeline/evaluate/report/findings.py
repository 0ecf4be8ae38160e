"""The verdict in plain words, made from the numbers alone.

A difference counts as shown where its interval leaves out zero and its corrected p is below `SURE`; else the
words are "no difference could be shown", which is not the same as "there is none".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import polars as pl

from pipeline.evaluate.ranking import CUTS
from pipeline.evaluate.report.facts import Checked, Cost, Facts, Unlike
from pipeline.evaluate.results import Name

SURE = 0.05
COLUMNS = (
    *(f"{metric}{bound}" for metric in ("auc", "uauc") for bound in ("", "_low", "_high")),
    "log_loss",
    "difference",
    "p_holm",
)
WORDS = {
    "auc": "AUC",
    "uauc": "UAUC",
    "uauc_weighted": "UAUC, weighted",
    "log_loss": "log loss",
    "accuracy": "accuracy",
    **{f"{kind.lower()}_{cut}": f"{kind}@{cut}" for kind in ("HR", "NDCG", "MRR", "MAP") for cut in CUTS},
    **{f"{kind}_{cut}": f"{kind}@{cut}" for kind in ("precision", "recall") for cut in CUTS},
}
Row = Mapping[str, Any]
Tone = Literal["good", "bad", "neutral"]


class Finding(NamedTuple):
    """One sentence, and how to take it."""

    tone: Tone
    text: str


def findings(facts: Facts, metric: str) -> list[Finding]:
    """The sentences at the head of the report."""
    board = facts.leaderboard.filter(part="test", metric=metric)
    found = winner(board, facts.kinds, metric)
    best = best_of(board, facts.kinds, "method")
    if best:
        tests = facts.comparisons.filter(metric=metric, method=best["method"], variant=best["variant"])
        found += [against_baseline(row) for row in tests.filter(question="baseline").to_dicts()]
        found += [against_control(row) for row in tests.filter(question="control").to_dicts()]
        found += price(name_of(best), tests.filter(question="baseline").to_dicts(), facts.costs)
    return [*found, *seeds(board), *machines(facts.unlike), trust(facts.checks)]


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
    """Who stands first on test, and what that can mean."""
    best = best_of(board, kinds, "method", "baseline")
    if best is None:
        return [Finding("neutral", "No method has been scored on the test part yet.")]
    figure = f"{WORDS[metric]} {best['value']:.4f} (95 % interval {best['low']:.4f} to {best['high']:.4f})"
    found = [Finding("neutral", f"Highest on the test part: {told(best)}, {figure}.")]
    method = best_of(board, kinds, "method")
    if method is None:
        words = "Only baselines were run, so nothing can be said about what a language model would add."
        found.append(Finding("neutral", words))
    elif method != best:
        words = (
            f"A baseline stands first: the best language-model method is {told(method)}, {method['value']:.4f}."
        )
        found.append(Finding("bad", words))
    return found


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
    versus = f"{told(Name(row['versus_method'], row['versus_variant']))}, the best baseline on validation"
    if not shown(row):
        return Finding("neutral", f"Against {versus}, no difference could be shown: {numbers(row)}.")
    if row["difference"] > 0:
        return Finding("good", f"{told(row)} beats {versus}: {numbers(row)}.")
    return Finding("bad", f"{told(row)} is worse than {versus}: {numbers(row)}.")


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
    versus = [Name(row["versus_method"], row["versus_variant"]) for row in against]
    text += "".join(f"; {told(n)} took {duration(costs[n].seconds_with_inputs)}" for n in versus if n in costs)
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


def seeds(board: pl.DataFrame) -> list[Finding]:
    """A word of warning where training was tried once only."""
    if board.height and board["seeds"].max() == 1:
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


def rows(leaderboard: pl.DataFrame, comparisons: pl.DataFrame, metric: str = "auc") -> list[dict[str, Any]]:
    """The leaderboard as a command line prints it: one row for each method and variant, the best first.

    Keys: name, kind, auc, auc_low, auc_high, uauc, uauc_low, uauc_high, log_loss, difference (to the best
    baseline in `metric`), p_holm. What was not measured or compared is None.
    """
    tests = comparisons.filter(metric=metric)
    against = {(r["method"], r["variant"]): r for r in tests.filter(question="baseline").to_dicts()}
    methods = set(comparisons.select("method", "variant").iter_rows())
    controls = set(comparisons.filter(question="control").select("versus_method", "versus_variant").iter_rows())
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in leaderboard.filter(part="test").to_dicts():
        name = (row["method"], row["variant"])
        kind = "control" if name in controls else "method" if name in methods else "baseline"
        line = found.setdefault(name, {"name": told(Name(*name)), "kind": kind, **dict.fromkeys(COLUMNS)})
        line |= {k: v for k, v in figures_of(row).items() if k in COLUMNS}
        line |= {k: against[name][k] for k in ("difference", "p_holm") if name in against}
    return sorted(found.values(), key=lambda line: -(line[metric] or 0.0))


def figures_of(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{row['metric']}{end}": row[bound]
        for end, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
