"""How time and memory grow from a hundred thousand interactions to ten million.

    python -m benchmarks.growth [--sizes 100000,1000000,10000000] [--models als,ease] [--picture FILE.svg]

n interactions of n / 140 users and 4 * sqrt(n) items, about as in MovieLens-100K, -1M and -10M (943, 6,040 and
69,878 users; 1,682, 3,706 and 10,677 items). A row's user and item are drawn apart, users by log-normal
activity and items by log-normal popularity (deviation 1.2 of the logarithm: the mean is twice the median, as
there); a pair that is drawn again is left out, and the order in time is the order of drawing. Nobody's taste
can be learnt from it, which time and memory do not notice.

Every line runs in a process of its own, on one thread, which reads the split's tables first: memory is the most
that the process held, libraries (some 300 MB with torch) and tables included. Fit: of the models that learn in
passes as many as the name says, of ease one penalty. Ranking: the test part, all items, seen items masked,
first 100 places kept, and every user's figures. The exponent is that of the last step: 1 is linear.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks.apart import apart
from pipeline.collab.events import Trained, trained_rows
from pipeline.collab.ranked import Block, Scores, order
from pipeline.data.next_item import NextItemSettings, split_up
from pipeline.evaluate.ranking import figures

ROWS_A_USER, ITEMS_A_ROOT, DEVIATION = 140, 4, 1.2
TABLES = ("events", "queries", "catalogue")
MOST_CELLS = 1e11  # of rows times items, for a loss over all items: beyond it an epoch takes an hour


class Line(NamedTuple):
    """Seconds of the fit and of the ranking."""

    fit: float
    ranking: float


Fit = Callable[[Trained, pl.DataFrame], Scores]


def drawn(n: int, seed: int = 1) -> pl.DataFrame:
    """Interactions (n rows) as the dataset stage would hand them on."""
    random = np.random.default_rng(seed)
    users, items = max(n // ROWS_A_USER, 10), int(ITEMS_A_ROOT * math.sqrt(n))
    found = np.zeros(0, np.int64)
    while len(found) < n:
        pairs = spread(random, users, n) * items + spread(random, items, n)
        found = np.concatenate([found, pairs])
        _, first = np.unique(found, return_index=True)
        found = found[np.sort(first)]
    user, item = np.divmod(found[:n], items)
    return pl.DataFrame(
        {
            "row": np.arange(n, dtype=np.uint32),
            "user": user.astype(np.uint32),
            "item": item.astype(np.uint32),
            "rating": pl.Series([None], dtype=pl.Float32).new_from_index(0, n),
            "at": np.arange(n, dtype=np.int64),
        }
    )


def spread(random: np.random.Generator, kinds: int, n: int) -> np.ndarray:
    """Draws (n,) of 0..kinds-1 by log-normal weights."""
    weights = np.cumsum(random.lognormal(0, DEVIATION, kinds))
    return np.searchsorted(weights, random.random(n) * weights[-1], side="right")


# --- work, each in a process of its own --------------------------------------------------------------------


def cut(folder: Path) -> Line:
    """Split the interactions and write the split's tables."""
    rows = pl.read_parquet(folder / "interactions.parquet")
    items = pl.Series("item", np.arange(rows["item"].to_numpy().max() + 1, dtype=np.uint32))
    start = time.perf_counter()
    split = split_up(rows, items, NextItemSettings.model_validate({}), "time")
    seconds = time.perf_counter() - start
    for name in TABLES:
        getattr(split, name).write_parquet(folder / f"{name}.parquet")
    return Line(seconds, math.nan)


def learn(folder: Path, model: str) -> Line:
    """Fit a model and rank the test part with it."""
    import torch

    torch.set_num_threads(1)
    events, queries, catalogue = (pl.read_parquet(folder / f"{name}.parquet") for name in TABLES)
    start = time.perf_counter()
    rows = trained_rows(events, queries, catalogue.height)
    scores = FITS[model](rows, queries)
    fitted = time.perf_counter()
    figures(order(scores, queries.filter(part="test"), rows.n_items))
    return Line(fitted - start, time.perf_counter() - fitted)


def popularity(rows: Trained, queries: pl.DataFrame) -> Scores:
    from pipeline.collab.ranked_popularity import popular

    return popular(rows)


def markov(rows: Trained, queries: pl.DataFrame) -> Scores:
    from pipeline.collab.markov import follow

    return follow(rows)


def item_knn(rows: Trained, queries: pl.DataFrame) -> Scores:
    from pipeline.collab.item_knn import ItemKNNSettings, alike

    return alike(rows, ItemKNNSettings.model_validate({}))


def ease(rows: Trained, queries: pl.DataFrame) -> Scores:
    from pipeline.collab.ease import EASESettings, linear

    return linear(rows, 100.0, EASESettings.model_validate({}).items)


def als(rows: Trained, queries: pl.DataFrame) -> Scores:
    from pipeline.collab.als import ALSSettings, factorise, fold_in

    return fold_in(rows, factorise(rows, ALSSettings.model_validate({"iterations": 3}), seed=1))


def bpr(rows: Trained, queries: pl.DataFrame) -> Scores:
    from pipeline.collab.bpr import BPRSettings, fit
    from pipeline.collab.vectors import from_vectors

    return from_vectors(fit(rows, BPRSettings.model_validate({"epochs": 5}), seed=1), rows.known)


def sasrec(loss: str) -> Fit:
    """One epoch, judged on nothing."""

    def fitted(rows: Trained, queries: pl.DataFrame) -> Scores:
        from pipeline.collab import readers
        from pipeline.collab.sasrec import SASRecSettings, build

        readers.valid_ndcg_10 = lambda *_: 0.0
        settings = SASRecSettings.model_validate({"loss": loss, "epochs": 1})
        return readers.learn(rows, queries, settings, build, seed=1).scores

    return fitted


def products(rows: Trained, queries: pl.DataFrame) -> Scores:
    """No fit: vectors of 64 random numbers, so that the line shows the ranking alone."""
    import torch

    random = torch.Generator().manual_seed(1)
    users, items = (torch.randn(n, 64, generator=random) for n in (rows.n_users, rows.n_items))

    def scores(block: Block) -> torch.Tensor:
        return users[block.user] @ items.T

    return scores


FITS: dict[str, Fit] = {
    "popularity": popularity,
    "markov": markov,
    "item_knn": item_knn,
    "ease, 1 penalty": ease,
    "als, 3 passes": als,
    "bpr, 5 passes": bpr,
    "sasrec, 1 pass, cross_entropy": sasrec("cross_entropy"),
    "sasrec, 1 pass, sampled_softmax": sasrec("sampled_softmax"),
    "ranking alone": products,
}


# --- all sizes ---------------------------------------------------------------------------------------------


def measured(folder: Path, n: int, wanted: list[str]) -> dict[str, tuple[Line, float]]:
    """Line and peak memory (MB) of the split and of every model at one size."""
    drawn(n).write_parquet(folder / "interactions.parquet")
    found = {"split": apart(cut, folder)}
    for model in wanted:
        if "cross_entropy" not in model or n * ITEMS_A_ROOT * math.sqrt(n) < MOST_CELLS:
            found[model] = apart(learn, folder, model)
            line, memory = found[model]
            told = f"fit {line.fit:.1f} s, ranking {line.ranking:.1f} s, {memory:,.0f} MB"
            print(f"  {n:>10,} {model}: {told}", flush=True)
    return found


def exponent(values: list[float], sizes: list[int]) -> float:
    """Slope of the logarithm over the last step."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def show(sizes: list[int], found: dict[int, dict[str, tuple[Line, float]]]) -> None:
    """One Markdown table."""
    heads = [f"{n:,}" for n in sizes]
    print("\n| what | " + " | ".join(heads) + " | exponent | MB at " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * (2 * len(sizes) + 1))
    for name in found[sizes[0]]:
        reached = [n for n in sizes if name in found[n]]
        for kind in ("fit", "ranking"):
            seconds = [getattr(found[n][name][0], kind) for n in reached]
            if any(map(math.isnan, seconds)) or (name == "ranking alone" and kind == "fit"):
                continue
            cells = [f"{s:.2f} s" for s in seconds] + ["-"] * (len(sizes) - len(reached))
            memory = [f"{found[n][name][1]:,.0f}" for n in reached] + ["-"] * (len(sizes) - len(reached))
            step = f"{exponent(seconds, reached):.2f}" if len(reached) > 1 else "-"
            title = name if kind == "fit" or name == "ranking alone" else f"{name}: ranking"
            print(f"| {title} | " + " | ".join([*cells, step, *memory]) + " |")


def draw(sizes: list[int], found: dict[int, dict[str, tuple[Line, float]]], file: Path) -> None:
    """Fit and ranking together, and memory, over the number of interactions."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, (seconds, memory) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for name in found[sizes[0]]:
        reached = [n for n in sizes if name in found[n]]
        lines = [found[n][name] for n in reached]
        seconds.plot(reached, [np.nansum(line) for line, _ in lines], marker="o", markersize=3, label=name)
        memory.plot(reached, [held / 1024 for _, held in lines], marker="o", markersize=3)
    for axes, title in ((seconds, "seconds, fit and ranking, one thread"), (memory, "peak memory, GB")):
        axes.set(xscale="log", yscale="log", title=title, xlabel="interactions")
        axes.grid(alpha=0.3)
    figure.legend(*seconds.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--sizes", default="100000,1000000,10000000")
    asked.add_argument("--models", default=";".join(FITS), help="names, with ; between them")
    asked.add_argument("--picture", type=Path, default=Path("docs/pictures/growth.svg"))
    given = asked.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    found = {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found[n] = measured(Path(folder), n, given.models.split(";"))
    show(sizes, found)
    draw(sizes, found, given.picture)


if __name__ == "__main__":
    main()
