"""Figures of the track `rerank`: how early each method puts the target of a short stored list.

    rankings of all methods, one track for each kind of list -> user_ranks (as of `pipeline.evaluate.ranking`)

Every kind of list is a track of its own, `rerank/random_20` for one: figures of different lists cannot be
compared, so they never stand in one table. A list has one target, so `hr_1` is the share of lists whose first
item is right; a target without a score is missed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from pipeline.evaluate.pointwise import PARTS, RUN, one, refusal
from pipeline.evaluate.ranking import figures, keyed, out_of_order, runs, told
from pipeline.schema import UserRanks, empty
from pipeline.stage import Artefact, Check, Draft, Every, Input, Settings, Verdict, stage

TRACK = "rerank"


def track_of(name: pl.Expr) -> pl.Expr:
    """The track of lists by name: `random_20` -> `rerank/random_20`."""
    return pl.format(f"{TRACK}/{{}}", name).alias("track")


def length_of(track: str) -> int:
    """Items in a list of this track, which its name ends in: `rerank/random_20` -> 20."""
    return int(track.rpartition("_")[2])


def stored_lists(inputs: Mapping[str, Input]) -> pl.DataFrame:
    """Table `candidates` of all stored lists, random and retrieved."""
    return pl.concat([one(inputs[name]).table("candidates") for name in ("candidates", "retrieved")])


def faults(rows: pl.DataFrame, lists: pl.DataFrame) -> dict[str, int]:
    """How often one run's orders are not those of its lists: kind of fault -> count, faultless kinds left out.

    rows: part, user, rank, item, score, target; lists: part, user, item, label of every list of the track.
    """
    rows, key = rows.sort("part", "user", "rank"), ("part", "user", "item")
    places = rows.group_by("part", "user").agg(gaps=(pl.col("rank") != pl.int_range(1, pl.len() + 1)).any())
    marked = rows.join(lists, on=key).filter(pl.col("target") != (pl.col("label") == 1))
    counts = {
        "listed items not ordered": lists.join(rows, on=key, how="anti").height,
        "items ordered that are not listed": rows.join(lists, on=key, how="anti").height,
        "items twice in one order": rows.height - rows.select(key).n_unique(),
        "lists with a gap or a doubled place": places["gaps"].sum(),
        "rows out of order": out_of_order(rows),
        "targets wrongly marked": marked.height,
    }
    return {kind: count for kind, count in counts.items() if count}


Run = tuple[tuple[Any, ...], pl.DataFrame]  # (track, method, variant, seed) and its orders


def judged(found: Iterable[Run], lists: pl.DataFrame) -> tuple[list[str], list[tuple[Any, ...]]]:
    """What is wrong with runs, in words, and their names; each must have ordered every list of its track."""
    broken: list[str] = []
    seen: list[tuple[Any, ...]] = []
    for run, rows in found:
        counts = faults(rows, lists.filter(track_of(pl.col("list")) == run[0]))
        counts |= {"rows of a run that another stage ordered too": rows.height} if run in seen else {}
        seen.append(run)
        broken += [f"{run[0]}: {told(run)}: {count} {kind}" for kind, count in counts.items()]
    return broken, seen


def every_list_ordered_once(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Each model has every stored list in its order: each item once, no gap, none added, the target marked."""
    rows, lists = draft.read("rankings"), stored_lists(inputs)
    broken, seen = judged(rows.partition_by(*RUN, as_dict=True, maintain_order=True).items(), lists)
    models = rows.select(RUN[1:]).unique(maintain_order=True)
    due = models.join(lists.select(track_of(pl.col("list"))).unique(), how="cross").select(RUN)
    broken += [f"{run[0]}: {told(run)}: not ordered" for run in due.iter_rows() if run not in seen]
    return refusal(broken, len(seen))


def every_method_ordered_its_lists(draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> Verdict:
    """Each method, variant and seed of any stage has all lists of the kinds that it ordered, each once.

    A figure over other lists cannot be compared. A method may leave a kind of list out, as reading them costs.
    """
    broken, seen = judged(runs(inputs["predictions"], TRACK), stored_lists(inputs))
    return refusal(broken, len(seen))


@stage(
    "rerank/user_metrics",
    settings=Settings,
    section="evaluate",
    version=1,
    inputs={
        "predictions": Every("orders"),
        "candidates": "rerank/candidates",
        "retrieved": "rerank/retrieved",
    },
    tables={"user_ranks": UserRanks},
    checks=(Check(every_method_ordered_its_lists),),
)
def user_metrics(
    predictions: list[Artefact],
    candidates: Artefact,
    retrieved: Artefact,
    settings: Settings,
    out: Draft,
) -> None:
    """Each user's own figures on every kind of list."""
    ranks = [empty(UserRanks)]
    for run, orders in runs(predictions, TRACK):
        for (part,), rows in orders.partition_by("part", as_dict=True, maintain_order=True).items():
            ranks.append(keyed(figures(rows), UserRanks, run, part))
    table = pl.concat(ranks)
    out.table("user_ranks", table)
    out.metric(
        runs=table.select(*RUN).n_unique(),
        **{f"{p}_users": table.filter(part=p)["user"].n_unique() for p in PARTS},
    )
