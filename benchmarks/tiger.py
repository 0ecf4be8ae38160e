"""TIGER on MovieLens-100K: the beam against exact scores, its speed, and what the ids give away.

    python -m benchmarks.tiger [--users 200] [--beams 50] [--threads 2] [--store store]
        [--variants rqkmeans random_ids] [--preset small] [--steps N]

Each variant is taught as the quickstart would, then test users are asked. Agreement: users whose first ten of
the beam are the exact first ten (as a set, and in order). Illegal: ids written that are no item's, looked up
in the table of ids. Consecutive: test targets whose number is one above the highest, or the last, of the
history; beside it the same with shuffled numbers. P5 numbered items along whole sequences, and that guess alone
found 4 % of Beauty's test items: numbers that tell the future show here.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from assets.engine.declare import graph
from pipeline import study
from pipeline.collab.ranked import order
from pipeline.evaluate.ranking import mean_of
from pipeline.methods.tiger import TigerDecoding, scorer_of
from pipeline.stage import Artefact, run
from pipeline.store import Store

ROOT = Path(__file__).parents[1]
Made = dict[tuple[str, str], Artefact]  # stage and variant


def make(store: Path, variants: list[str], model: dict[str, Any]) -> Made:
    """The quickstart's artefacts up to TIGER's networks."""
    stages = graph()
    asked = study.load(study.find(ROOT, "quickstart"))
    asked = asked.model_copy(update={"methods": {"tiger": {"variants": variants, "model": model}}})
    plan = stages.plan(asked, Store(store), ROOT)
    wanted = {one.spec.fingerprint for one in plan if one.stage.name == "tiger/model"}
    for one in reversed(plan):
        if one.spec.fingerprint in wanted:
            sources = one.spec.inputs.values()
            wanted |= {each.fingerprint for each in sources if not isinstance(each, tuple)}
    found = [(one.stage.name, run(one.spec)[0]) for one in plan if one.spec.fingerprint in wanted]
    return {(name, artefact.variant): artefact for name, artefact in found}


def ids_of(made: Made, variant: str) -> Artefact:
    """The ids that a variant's network was taught with."""
    fingerprints = {source["fingerprint"] for source in made["tiger/model", variant].manifest["made_from"]}
    return next(
        a for (name, _), a in made.items() if name.startswith("semantic_ids/") and a.fingerprint in fingerprints
    )


def compare(made: Made, variant: str, queries: pl.DataFrame, beams: int) -> None:
    """Print the figures of one variant."""
    split, dataset, model = (
        made["next_item/split", "default"],
        made["dataset", "default"],
        made["tiger/model", variant],
    )
    items, lists, seconds = split.table("catalogue").height, {}, {}
    illegal = 0
    for decoding in ("beam", "exact"):
        settings = TigerDecoding.model_validate({"decoding": decoding, "beams": beams})
        scores, _, counting = scorer_of(split, dataset, ids_of(made, variant), model, settings)
        started = time.perf_counter()
        lists[decoding] = order(scores, queries, items, top=20)
        seconds[decoding] = time.perf_counter() - started
        illegal += counting.written - counting.valid  # exact scores write none
    first = [rows.filter(pl.col("rank") <= 10).sort("user", "rank") for rows in lists.values()]
    tens = [rows.group_by("user", maintain_order=True).agg("item")["item"].to_list() for rows in first]
    sets = np.mean([set(one) == set(other) for one, other in zip(*tens, strict=True)])
    same = np.mean([one == other for one, other in zip(*tens, strict=True)])
    found = np.mean([len({*one} & {*other}) / 10 for one, other in zip(*tens, strict=True)])
    both = lists["beam"].join(lists["exact"], on=("user", "item"), suffix="_exact").drop_nulls()
    apart = (both["score"] - both["score_exact"]).abs().max()
    figures = " ".join(f"{name} NDCG@10 {mean_of(rows, 'ndcg_10'):.4f}" for name, rows in lists.items())
    speed = " ".join(f"{name} {queries.height / taken:.1f} users/s" for name, taken in seconds.items())
    facts, taken = model.metrics, model.manifest["measured"]["seconds"]
    print(f"{variant:11} {facts['steps']} steps, best {facts['best_step']}, {taken:.0f} s")
    print(
        f"{'':11} first ten the same: {sets:.4f} as sets, {same:.4f} in order; {found:.4f} of the exact found"
    )
    print(f"{'':11} illegal ids {illegal}; scores apart by {apart:.1e} at most")
    print(f"{'':11} {figures}; {speed}")


def consecutive(queries: pl.DataFrame, numbers: np.ndarray) -> tuple[float, float]:
    """Share of first targets whose number is one above the highest, and above the last, of the history."""
    known = queries.filter(pl.col("history").list.len() > 0)
    highest, last = [], []
    for history, targets in known.select("history", "targets").iter_rows():
        own = numbers[history]
        highest.append(numbers[targets[0]] == own.max() + 1)
        last.append(numbers[targets[0]] == own[-1] + 1)
    return float(np.mean(highest)), float(np.mean(last))


def main() -> None:
    asked: Any = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--users", type=int, default=200)
    asked.add_argument("--beams", type=int, default=50)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--store", type=Path, default=Path("store"))
    asked.add_argument("--variants", nargs="+", default=["rqkmeans", "random_ids"])
    asked.add_argument("--preset", default="small")
    asked.add_argument("--steps", type=int)
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    model = {"preset": given.preset, **({"steps": given.steps} if given.steps else {})}
    made = make(given.store, given.variants, model)
    split = made["next_item/split", "default"]
    every = split.table("queries").filter(part="test")
    queries = every.sample(min(given.users, every.height), seed=1)
    print(f"{queries.height} test users, {given.beams} beams, {given.threads} threads")
    for variant in given.variants:
        compare(made, variant, queries, given.beams)
    plain = np.arange(split.table("catalogue").height)
    shuffled = [consecutive(every, np.random.default_rng(seed).permutation(plain)) for seed in range(20)]
    found, chance = consecutive(every, plain), np.mean(shuffled, axis=0)
    for name, own, usual in zip(("highest + 1", "last + 1"), found, chance, strict=True):
        print(f"consecutive, {name}: {own:.4f}, shuffled {usual:.4f}")


if __name__ == "__main__":
    main()
