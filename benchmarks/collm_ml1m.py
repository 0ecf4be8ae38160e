"""Baselines and codes on CoLLM's ML-1M split: every choice on validation, test printed for the chosen one only.

    python -m benchmarks.collm_ml1m FOLDER        FOLDER holds interactions.parquet of that split
    python -m benchmarks.collm_ml1m FOLDER --models lightgcn sasrec din --seeds 1 2 --no-search

Published there (CoLLM, TKDE 2025, and BinLLM, ACL 2024), AUC and UAUC: MF .6482, .6361; LightGCN .5959, .6499;
SASRec .7078, .6884; DIN .7166, .6459; BinMF .7189, .6654. The means have no seed. For the others the first
table shows the search (mean validation AUC of two seeds; the penalty is chosen inside each fit, as in the
stages), the second one the chosen setting over all seeds. Histories are as theirs: earlier rows of all parts,
with labels.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.codes import binary
from pipeline.collab import din, labelled_lightgcn, labelled_sasrec, means, mf
from pipeline.collab.labelled import Floats, Known, Labelled, inner, known, part_of
from pipeline.collab.pasts import liked_before
from pipeline.data.histories import Histories
from pipeline.evaluate.pointwise import auc, auc_by_user
from pipeline.stage import Settings

SEARCH_SEEDS, SEEDS = (1, 2), (1, 2, 3, 4, 5)
SEARCHED = ("lr", "spread", "dim", "dropout")
Score = Callable[[str], Floats]  # part -> scores of its rows


class Data(NamedTuple):
    """The split: its examples, the rows of each part, who has training rows."""

    examples: pl.DataFrame
    parts: Mapping[str, Labelled]
    seen: Known

    @property
    def both(self) -> tuple[Labelled, Labelled]:
        """What is learnt from, and what choices are made on."""
        return self.parts["train"], self.parts["valid"]


Fit = Callable[[Data, Any, int], tuple[float, Score]]  # data, settings, seed -> validation AUC, scorer


class Model(NamedTuple):
    """How a model is fitted, and the settings that are tried; the first are its defaults."""

    fit: Fit
    tried: Sequence[Settings]


def load(folder: Path) -> pl.DataFrame:
    """The split as examples; `valid_small` is a part of `valid`."""
    rows = pl.read_parquet(folder / "interactions.parquet").filter(pl.col("split") != "valid_small")
    bare = rows.with_row_index("row").select(
        pl.col("row", "label"),
        pl.col("split").alias("part"),
        pl.col("user_id").alias("user"),
        pl.col("item_id").alias("item"),
        pl.col("timestamp").cast(pl.Int64).alias("at"),
    )
    return pl.concat(Histories(bare, bare, longest=50).beside(bare))


def read(folder: Path) -> Data:
    """The split as all fits see it."""
    examples = load(folder)
    parts = {part: part_of(examples, part) for part in ("train", "valid", "test")}
    return Data(examples, parts, known(examples))


def figures(rows: Labelled, score: Floats) -> tuple[float, float]:
    """AUC over all rows, and the mean over users with both classes."""
    return auc(rows.label, score), float(np.asarray(auc_by_user(rows.user, rows.label, score)["auc"].mean()))


def best(trials: Sequence[tuple[Any, Any]]) -> tuple[Any, float]:
    """What the trial with the best validation AUC learnt, and that AUC."""
    learnt, fit = max(trials, key=lambda trial: trial[1].best)
    return learnt, fit.best


def fit_mf(data: Data, settings: mf.MFSettings, seed: int) -> tuple[float, Score]:
    """The best penalty of matrix factorisation."""
    learnt, value = best([mf.learn(data.both, data.seen, settings, p, seed) for p in settings.penalties])
    return value, lambda part: learnt.logits(data.parts[part].user, data.parts[part].item)


def fit_codes(data: Data, settings: binary.BinarySettings, seed: int) -> tuple[float, Score]:
    """The best penalty of binary codes."""
    learnt, value = best([binary.learn(data.both, data.seen, settings, p, seed) for p in settings.penalties])
    return value, lambda part: learnt.scores(data.parts[part].user, data.parts[part].item)


def fit_lightgcn(
    data: Data, settings: labelled_lightgcn.LabelledLightGCNSettings, seed: int
) -> tuple[float, Score]:
    """The best penalty of LightGCN."""
    trials = [labelled_lightgcn.learn(data.both, data.seen, settings, p, seed) for p in settings.penalties]
    learnt, value = best(trials)
    return value, lambda part: inner(*learnt, data.parts[part].user, data.parts[part].item)


def fit_sasrec(data: Data, settings: labelled_sasrec.LabelledSASRecSettings, seed: int) -> tuple[float, Score]:
    """The best penalty of SASRec."""
    pasts = liked_before(data.examples, data.seen.items, settings.length)
    held = labelled_sasrec.material(data.examples, data.seen, pasts, settings.length)
    model, value = best([labelled_sasrec.learn(held, settings, p, seed) for p in settings.penalties])

    def score(part: str) -> Floats:
        vectors, which = labelled_sasrec.read_out(model, held)
        of = (data.examples["part"] == part).to_numpy()
        return inner(*vectors, which[of], data.parts[part].item)

    return value, score


def fit_din(data: Data, settings: din.DINSettings, seed: int) -> tuple[float, Score]:
    """The best penalty of DIN."""
    pasts = liked_before(data.examples, data.seen.items, settings.history)
    held = din.Material(data.examples, pasts, data.seen)
    model, value = best([din.learn(held, settings, p, seed) for p in settings.penalties])
    return (
        value,
        lambda part: din.read(model, din.tables_of(model, held.seen), held.asked(held.of(part))).logits,
    )


def models() -> dict[str, Model]:
    """Every model that learns, by name."""
    graph, reader = labelled_lightgcn.LabelledLightGCNSettings, labelled_sasrec.LabelledSASRecSettings
    codes, rates = binary.BinarySettings, (1e-3, 3e-3)
    return {
        "mf": Model(
            fit_mf,
            [mf.MFSettings(), *(mf.MFSettings(lr=lr, spread=s) for lr, s in product(rates, (0.01, 0.1)))],
        ),
        "binmf": Model(fit_codes, [codes(), *(codes(lr=lr, spread=s) for lr, s in product(rates, (0.1, 0.3)))]),
        "lightgcn": Model(
            fit_lightgcn, [graph(), *(graph(lr=lr, spread=s) for lr, s in product((3e-3, 1e-2), (0.01, 0.1)))]
        ),
        "sasrec": Model(
            fit_sasrec, [reader(), *(reader(lr=lr, dropout=d) for lr, d in product(rates, (0.2, 0.5)))]
        ),
        "din": Model(
            fit_din,
            [din.DINSettings(), *(din.DINSettings(lr=lr, dropout=d) for lr, d in product(rates, (0.2, 0.5)))],
        ),
    }


def search(name: str, model: Model, data: Data) -> Settings:
    """Print the mean validation AUC of every setting. Returns the best."""
    found: list[tuple[float, Settings]] = []
    for settings in dict.fromkeys(model.tried):
        value = float(np.mean([model.fit(data, settings, seed)[0] for seed in SEARCH_SEEDS]))
        found.append((value, settings))
        print(f"| {name} | {searched(settings)} | {value:.4f} |", flush=True)
    return max(found, key=lambda one: one[0])[1]


def searched(settings: Settings) -> str:
    """The searched settings as `name=value`."""
    held = settings.model_dump()
    return " ".join(f"{key}={held[key]}" for key in SEARCHED if key in held)


def show_seeds(name: str, fit: Fit, settings: Any, data: Data, seeds: Sequence[int]) -> None:
    """Print valid and test figures of the chosen setting: mean and standard deviation over seeds."""
    started, found = time.perf_counter(), []
    for seed in seeds:
        _, score = fit(data, settings, seed)
        found.append([x for part in ("valid", "test") for x in figures(data.parts[part], score(part))])
    table = np.array(found)
    spread = table.std(0, ddof=1) if len(seeds) > 1 else np.full(4, np.nan)
    cells = [f"{m:.4f} ± {d:.4f}" for m, d in zip(table.mean(0), spread, strict=True)]
    seconds = (time.perf_counter() - started) / len(seeds)
    print(f"| {name} ({searched(settings)}) | {' | '.join(cells)} | {seconds:.0f} |")
    by_seed = " ".join(f"{x:.4f}" for x in table[:, 2])
    print(f"|  test AUC by seed | {by_seed} | UAUC {table[:, 3].round(4)} |", flush=True)


def show_means(data: Data) -> None:
    """Print the means' figures at the weight that validation chooses."""
    tried = means.search(*data.both, data.seen, means.MeansSettings().weights)
    for name, weight in tried.filter("chosen").select("method", "weight").iter_rows():
        learnt = means.shrunk_means(data.parts["train"], data.seen, weight)
        cells = [
            f"{value:.4f}"
            for rows in (data.parts["valid"], data.parts["test"])
            for value in figures(rows, means.SCORERS[name](learnt, rows.user, rows.item))
        ]
        print(f"| {name} (weight={weight:g}) | {' | '.join(cells)} | 0 |")


def main() -> None:
    known_models = models()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", choices=known_models, default=list(known_models))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--no-search", action="store_true", help="the first setting of each model as it is")
    asked = parser.parse_args()
    data, chosen = read(asked.folder), {name: known_models[name].tried[0] for name in asked.models}
    if not asked.no_search:
        print("| method | setting | mean valid AUC |\n| --- | --- | --- |")
        chosen = {name: search(name, known_models[name], data) for name in asked.models}
    print("\n| method | valid AUC | valid UAUC | test AUC | test UAUC | s |")
    print("| --- " * 6 + "|")
    show_means(data)
    for name, settings in chosen.items():
        show_seeds(name, known_models[name].fit, settings, data, asked.seeds)


if __name__ == "__main__":
    main()
