"""SASRec against RecTools' on MovieLens-100K: the same events, queries, width and figures, in one run.

    python -m benchmarks.sasrec [--epochs 15] [--peer-epochs 60] [--threads 2] [--store store] [--environment E]

Leave-last-two, the whole catalogue ranked, seen items masked. The peer runs in its own virtual environment,
made from PyPI in folder E where it is not there yet (some 1.5 GB; default: in the system's temporary folder).
It fits without looking at validation, with as many threads as asked; ours runs on one thread and judges itself
on validation after every epoch, and both are in its seconds. Beside the whole fit stands how long ours took to
reach the peer's validation figure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import polars as pl

from benchmarks.quickstart import make
from pipeline.collab import readers
from pipeline.collab.events import trained_rows
from pipeline.collab.ranked import order
from pipeline.collab.sasrec import SASRecSettings, build
from pipeline.data.next_item import NextItemSettings, Split, split_up
from pipeline.evaluate.ranking import mean_of

PEER = ("rectools[torch]==0.19.0", "torch==2.13.0")
METRICS = ("ndcg_10", "hr_10")


class Run(NamedTuple):
    """Seconds of a fit, figures by part and metric, (seconds, validation NDCG@10) of each judged epoch."""

    seconds: float
    figures: dict[str, dict[str, float]]
    epochs: list[tuple[float, float]]


def environment(folder: Path) -> Path:
    """The peer's python, in a virtual environment made where it is not there."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER], check=True)
        (folder / "ready").touch()
    return python


def peer(split: Split, python: Path, epochs: int, threads: int) -> Run:
    """Fit and rank with RecTools in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, known in (("valid", ["train"]), ("test", ["train", "valid"])):
            rows = split.events.filter(pl.col("part").is_in(known))
            rows.select("user", "item", "row").write_csv(folder / f"known_{part}.csv")
        script = Path(__file__).with_name("peer_sasrec.py")
        subprocess.run(
            [str(python), str(script), name, str(epochs), str(threads)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""},
        )
        lists = {part: pl.read_csv(folder / f"{part}.csv") for part in ("valid", "test")}
        seconds = json.loads((folder / "seconds.json").read_text())
    return Run(
        seconds, {part: figures(split.queries.filter(part=part), own) for part, own in lists.items()}, []
    )


def figures(queries: pl.DataFrame, lists: pl.DataFrame) -> dict[str, float]:
    """The track's own metrics of lists (user, rank, item); a target outside a list is found nowhere."""
    targets = queries.select("user", item="targets").explode("item").with_columns(target=True)
    ranked = lists.cast({"user": pl.UInt32, "item": pl.UInt32, "rank": pl.UInt32})
    ranked = ranked.join(targets, on=("user", "item"), how="full", coalesce=True)
    last = pl.lit(10**6, dtype=pl.UInt32)
    listed = pl.when(pl.col("rank").is_not_null()).then(0.0)
    rows = ranked.with_columns(pl.col("target").fill_null(False), pl.col("rank").fill_null(last), score=listed)
    return {metric: mean_of(rows, metric) for metric in METRICS}


def ours(split: Split, epochs: int) -> Run:
    """Fit and rank with the stage's own functions and defaults."""
    rows = trained_rows(split.events, split.queries, split.catalogue.height)
    judged, judge, start = [], readers.valid_ndcg_10, time.perf_counter()

    def timed(*given) -> float:
        value = judge(*given)
        judged.append((time.perf_counter() - start, value))
        return value

    readers.valid_ndcg_10 = timed
    learnt = readers.learn(
        rows, split.queries, SASRecSettings.model_validate({"epochs": epochs}), build, seed=1
    )
    readers.valid_ndcg_10 = judge
    seconds = time.perf_counter() - start
    found = {}
    for part in ("valid", "test"):
        orders = order(learnt.scores, split.queries.filter(part=part), rows.n_items, top=0)
        found[part] = {metric: mean_of(orders, metric) for metric in METRICS}
    return Run(seconds, found, judged)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--epochs", type=int, default=15)
    asked.add_argument("--peer-epochs", type=int, default=60)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--store", type=Path, default=Path("store"))
    asked.add_argument(
        "--environment", type=Path, default=Path(tempfile.gettempdir()) / "interlingua-peer-sasrec"
    )
    given = asked.parse_args()
    python = environment(given.environment)
    dataset = make(given.store, "dataset")["dataset"]
    clock = dataset.metrics["clock"]
    split = split_up(
        dataset.table("interactions"),
        dataset.table("items")["item"],
        NextItemSettings.model_validate({}),
        clock,
    )
    print(f"load average {os.getloadavg()[0]:.1f}; peer {given.peer_epochs} epochs on {given.threads} threads")
    mine, theirs = ours(split, given.epochs), peer(split, python, given.peer_epochs, given.threads)
    print(f"{'':9} {'seconds':>8} {'ratio':>6}  valid NDCG@10  HR@10   test NDCG@10  HR@10")
    for name, run in (("RecTools", theirs), ("ours", mine)):
        valid, test = run.figures["valid"], run.figures["test"]
        print(
            f"{name:9} {run.seconds:8.1f} {theirs.seconds / run.seconds:6.2f}"
            f"  {valid['ndcg_10']:13.4f} {valid['hr_10']:6.4f}  {test['ndcg_10']:13.4f} {test['hr_10']:6.4f}"
        )
    reached = [seconds for seconds, value in mine.epochs if value >= theirs.figures["valid"]["ndcg_10"]]
    print(f"ours reached RecTools' validation NDCG@10 after {f'{reached[0]:.1f} s' if reached else 'no epoch'}")


if __name__ == "__main__":
    main()
