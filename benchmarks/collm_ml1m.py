"""Baselines and codes on CoLLM's ML-1M split: every choice on validation, test printed for the chosen one only.

    python -m benchmarks.collm_ml1m FOLDER        FOLDER holds interactions.parquet of that split

Published there: MF .6482 AUC, .6361 UAUC; BinMF .7189, .6654 (BinLLM, ACL 2024). The means have no seed. For
MF and BinMF the first table shows the search (mean validation AUC of two seeds; the penalty is chosen inside
each fit, as in the stages), the second one the chosen setting over five seeds.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.codes import binary
from pipeline.collab import means, mf
from pipeline.collab.labelled import Floats, Known, Labelled, known, part_of
from pipeline.evaluate.pointwise import auc, auc_by_user
from pipeline.stage import Settings

SEARCH_SEEDS, SEEDS = (1, 2), (1, 2, 3, 4, 5)
Parts = Mapping[str, Labelled]
Score = Callable[[Labelled], Floats]


def load(folder: Path) -> pl.DataFrame:
    """The split as examples without histories, which nothing here reads; `valid_small` is a part of `valid`."""
    rows = pl.read_parquet(folder / "interactions.parquet").filter(pl.col("split") != "valid_small")
    return rows.with_row_index("row").select(
        pl.col("row", "label"),
        pl.col("split").alias("part"),
        pl.col("user_id").alias("user"),
        pl.col("item_id").alias("item"),
        pl.lit([], dtype=pl.List(pl.UInt32)).alias("history"),
    )


def figures(rows: Labelled, score: Floats) -> tuple[float, float]:
    """AUC over all rows, and the mean over users with both classes."""
    return auc(rows.label, score), float(np.asarray(auc_by_user(rows.user, rows.label, score)["auc"].mean()))


def fit_mf(parts: Parts, seen: Known, settings: mf.MFSettings, seed: int) -> tuple[float, Score]:
    """Validation AUC and scorer of the best penalty."""
    both = (parts["train"], parts["valid"])
    trials = [mf.learn(both, seen, settings, penalty, seed) for penalty in settings.penalties]
    learnt, fit = max(trials, key=lambda trial: trial[1].best)
    return fit.best, lambda rows: learnt.logits(rows.user, rows.item)


def fit_codes(parts: Parts, seen: Known, settings: binary.BinarySettings, seed: int) -> tuple[float, Score]:
    """Validation AUC and scorer of the best penalty."""
    both = (parts["train"], parts["valid"])
    trials = [binary.learn(both, seen, settings, penalty, seed) for penalty in settings.penalties]
    learnt, fit = max(trials, key=lambda trial: trial[1].best)
    return fit.best, lambda rows: learnt.scores(rows.user, rows.item)


def search(
    name: str, fit: Callable[..., tuple[float, Score]], tried: Sequence[Settings], parts: Parts, seen: Known
) -> Settings:
    """Print the mean validation AUC of every setting. Returns the best."""
    found: list[tuple[float, Settings]] = []
    for settings in tried:
        value = float(np.mean([fit(parts, seen, settings, seed)[0] for seed in SEARCH_SEEDS]))
        found.append((value, settings))
        print(f"| {name} | {changed(settings)} | {value:.4f} |", flush=True)
    return max(found, key=lambda one: one[0])[1]


def changed(settings: Settings) -> str:
    """The searched settings as `name=value`."""
    held = settings.model_dump()
    return " ".join(f"{key}={held[key]}" for key in ("lr", "spread") if key in held)


def show_seeds(
    name: str, fit: Callable[..., tuple[float, Score]], settings: Any, parts: Parts, seen: Known
) -> None:
    """Print valid and test figures of the chosen setting: mean and standard deviation over seeds."""
    started, found = time.perf_counter(), []
    for seed in SEEDS:
        _, score = fit(parts, seen, settings, seed)
        found.append(
            [*figures(parts["valid"], score(parts["valid"])), *figures(parts["test"], score(parts["test"]))]
        )
    table = np.array(found)
    cells = [f"{m:.4f} ± {d:.4f}" for m, d in zip(table.mean(0), table.std(0, ddof=1), strict=True)]
    seconds = (time.perf_counter() - started) / len(SEEDS)
    print(f"| {name} ({changed(settings)}) | {' | '.join(cells)} | {seconds:.0f} |")
    print(f"|  test AUC by seed | {' '.join(f'{x:.4f}' for x in table[:, 2])} | UAUC {table[:, 3].round(4)} |")


def show_means(parts: Parts, seen: Known) -> None:
    """Print the means' figures at the weight that validation chooses."""
    tried = means.search(parts["train"], parts["valid"], seen, means.MeansSettings().weights)
    for name, weight in tried.filter("chosen").select("method", "weight").iter_rows():
        learnt = means.shrunk_means(parts["train"], seen, weight)
        cells = [
            f"{value:.4f}"
            for part in ("valid", "test")
            for value in figures(parts[part], means.SCORERS[name](learnt, parts[part].user, parts[part].item))
        ]
        print(f"| {name} (weight={weight:g}) | {' | '.join(cells)} | 0 |")


def main(folder: Path) -> None:
    examples = load(folder)
    parts, seen = {part: part_of(examples, part) for part in ("train", "valid", "test")}, known(examples)
    grid = list(product((1e-3, 3e-3), (0.1, 0.3)))
    print("| method | setting | mean valid AUC |\n| --- | --- | --- |")
    best_mf = search(
        "mf", fit_mf, [mf.MFSettings(lr=lr, spread=s) for lr in (1e-3, 3e-3) for s in (0.01, 0.1)], parts, seen
    )
    best_codes = search(
        "binmf", fit_codes, [binary.BinarySettings(lr=lr, spread=s) for lr, s in grid], parts, seen
    )
    print("\n| method | valid AUC | valid UAUC | test AUC | test UAUC | s |")
    print("| --- " * 6 + "|")
    show_means(parts, seen)
    show_seeds("mf", fit_mf, best_mf, parts, seen)
    show_seeds("binmf", fit_codes, best_codes, parts, seen)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
