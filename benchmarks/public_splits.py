"""Models of the next_item track on public splits of MovieLens-1M and Amazon Beauty, beside published rows.

    python -m benchmarks.public_splits FOLDER... [--models markov,ease,sasrec] [--set sasrec.dim=128 ...]
                                                 [--work FOLDER] [--only-valid]

FOLDER holds interactions.parquet of one of both, in the order that the published figures were measured on:

- ml-1m: user_id, item_id, seq_pos (null on rows of items with fewer than 5 ratings, which are left out, as in
  the file that SASRec and gSASRec use); leave-last-two, whole catalogue, seen items masked.
- amazon-beauty: user_idx, item_idx (from 1), seq_pos; the 5-core of S3-Rec, P5 and TIGER. S3-Rec masks what
  was seen, TIGER keeps it, so both are printed.

Every model runs in a process of its own, on one thread, with the settings of the data's study, in `studies/`.
--set changes one; --work keeps checkpoints, from which a killed run goes on. The settings were chosen with
--only-valid, which prints no figure of the test part.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import yaml

from benchmarks.apart import apart
from pipeline.collab.events import Trained, trained_rows
from pipeline.collab.ranked import Scores, order, valid_ndcg_10
from pipeline.data.next_item import NextItemSettings, Split, split_up
from pipeline.evaluate.ranking import figures

ROOT = Path(__file__).parents[1]
STUDIES = {"ml-1m": "ml-1m.yaml", "amazon-beauty": "amazon-beauty.example.yaml"}
PUBLISHED = {"ml-1m": "ml-1m-sasrec", "amazon-beauty": "amazon-beauty"}  # names in warehouse/published.csv
METRICS = ("hr_5", "ndcg_5", "hr_10", "ndcg_10", "mrr_20")
READERS = ("sasrec", "gru4rec", "caser")
MODELS = ("popularity", "markov", "item_knn", "ease", "als", "sasrec")


class Data(NamedTuple):
    """A published split."""

    name: str
    split: Split
    rows: Trained


class Run(NamedTuple):
    """What a model reached: seconds of its fit and of ranking the test part, figures by variant and metric."""

    seconds: float
    evaluation: float
    epochs: list[tuple[float, float, float]]  # seconds of the epoch, of its judgement, validation NDCG@10
    valid: float
    test: dict[str, dict[str, float]]


Fit = Callable[[Data, dict[str, Any], Path | None], tuple[Scores, list[tuple[float, float, float]]]]


# --- data --------------------------------------------------------------------------------------------------


def load(folder: Path) -> Data:
    """The split of a folder; which data it is, its columns say."""
    source = pl.read_parquet(folder / "interactions.parquet")
    beauty = "item_idx" in source.columns
    user, item = ("user_idx", "item_idx") if beauty else ("user_id", "item_id")
    rows = source.drop_nulls("seq_pos").select(
        pl.col(user).rank("dense").cast(pl.UInt32).alias("user") - 1,
        pl.col(item).rank("dense").cast(pl.UInt32).alias("item") - 1,
        pl.lit(None, pl.Float32).alias("rating"),
        pl.col("seq_pos").cast(pl.Int64).alias("at"),
    )
    rows = rows.sort("at", maintain_order=True).with_row_index("row")
    split = split_up(rows, rows["item"].unique(), NextItemSettings.model_validate({}), "order")
    events = trained_rows(split.events, split.queries, split.catalogue.height)
    return Data("amazon-beauty" if beauty else "ml-1m", split, events)


def settings_of(data: str, model: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What the data's study says of the model, with the changes."""
    study = yaml.safe_load((ROOT / "studies" / STUDIES[data]).read_text())
    return (study["models"].get("next_item", {}).get(model) or {}) | changes


# --- models ------------------------------------------------------------------------------------------------


def fit_popularity(data: Data, settings: dict[str, Any], work: Path | None) -> tuple[Scores, list]:
    from pipeline.collab.ranked_popularity import popular

    return popular(data.rows), []


def fit_markov(data: Data, settings: dict[str, Any], work: Path | None) -> tuple[Scores, list]:
    from pipeline.collab.markov import follow

    return follow(data.rows), []


def fit_item_knn(data: Data, settings: dict[str, Any], work: Path | None) -> tuple[Scores, list]:
    from pipeline.collab.item_knn import ItemKNNSettings, alike

    return alike(data.rows, ItemKNNSettings.model_validate(settings)), []


def fit_ease(data: Data, settings: dict[str, Any], work: Path | None) -> tuple[Scores, list]:
    from pipeline.collab.ease import EASESettings, linear

    chosen = EASESettings.model_validate(settings)

    def made(penalty: float) -> tuple[float, Scores]:
        scores = linear(data.rows, penalty, chosen.items)
        value = valid_ndcg_10(scores, data.split.queries, data.rows.n_items)
        print(f"  ease, penalty {penalty:g}: validation NDCG@10 {value:.4f}", flush=True)
        return value, scores

    return max(map(made, chosen.penalties), key=lambda trial: trial[0])[1], []


def fit_als(data: Data, settings: dict[str, Any], work: Path | None) -> tuple[Scores, list]:
    from pipeline.collab.als import ALSSettings, factorise, fold_in

    return fold_in(data.rows, factorise(data.rows, ALSSettings.model_validate(settings), seed=1)), []


def fit_bpr(data: Data, settings: dict[str, Any], work: Path | None) -> tuple[Scores, list]:
    from pipeline.collab.bpr import BPRSettings, fit
    from pipeline.collab.vectors import from_vectors

    vectors = fit(data.rows, BPRSettings.model_validate(settings), seed=1)
    return from_vectors(vectors, data.rows.known), []


def fit_reader(name: str) -> Fit:
    """A model of sequences, whose epochs are timed and told as they end."""

    def fitted(data: Data, settings: dict[str, Any], work: Path | None) -> tuple[Scores, list]:
        from pipeline.collab import caser, gru4rec, readers, sasrec

        kinds = {
            "sasrec": (sasrec.SASRecSettings, sasrec.build),
            "gru4rec": (gru4rec.GRU4RecSettings, gru4rec.build),
            "caser": (caser.CaserSettings, caser.build),
        }
        kind, build = kinds[name]
        judge, epochs, since = readers.valid_ndcg_10, [], time.perf_counter()

        def timed(*given: Any) -> float:
            nonlocal since
            begun = time.perf_counter()
            value = judge(*given)
            now = time.perf_counter()
            epochs.append((begun - since, now - begun, value))
            print(f"  {name}, epoch {len(epochs)}: {now - since:.1f} s, {value:.4f}", flush=True)
            since = now
            return value

        readers.valid_ndcg_10 = timed
        chosen, queries = kind.model_validate(settings), data.split.queries
        checkpoint = work / f"{data.name}-{name}.safetensors" if work else None
        learnt = readers.learn(data.rows, queries, chosen, build, seed=1, checkpoint=checkpoint)
        return learnt.scores, epochs

    return fitted


FITS: dict[str, Fit] = {
    "popularity": fit_popularity,
    "markov": fit_markov,
    "item_knn": fit_item_knn,
    "ease": fit_ease,
    "als": fit_als,
    "bpr": fit_bpr,
    **{name: fit_reader(name) for name in READERS},
}


# --- figures -----------------------------------------------------------------------------------------------


def run(folder: Path, model: str, settings: dict[str, Any], work: Path | None, tested: bool) -> Run:
    """Fit and rank, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    data = load(folder)
    start = time.perf_counter()
    scores, epochs = FITS[model](data, settings, work)
    fitted = time.perf_counter()
    valid = valid_ndcg_10(scores, data.split.queries, data.rows.n_items)
    test, evaluation = {}, 0.0
    for variant in ("default", "seen_kept") if tested else ():
        begun = time.perf_counter()
        asked = data.split.queries.filter(part="test")
        orders = order(scores, asked, data.rows.n_items, masked=variant == "default", top=0)
        found = figures(orders)
        evaluation = evaluation or time.perf_counter() - begun
        test[variant] = {metric: float(found[metric].to_numpy().mean()) for metric in METRICS}
    return Run(fitted - start, evaluation, epochs, valid, test)


def show(name: str, found: Run, memory: float) -> None:
    """A model's figures: one line, and one of its epochs."""
    print(
        f"{name}: validation NDCG@10 {found.valid:.4f}; fit {found.seconds:.1f} s, "
        f"evaluation {found.evaluation:.2f} s, {memory:,.0f} MB"
    )
    for variant, values in found.test.items():
        print(f"  {variant:9}  " + "  ".join(f"{metric} {values[metric]:.4f}" for metric in METRICS))
    if found.epochs:
        steps, judged, _ = (sorted(column) for column in zip(*found.epochs, strict=True))
        middle = len(steps) // 2
        print(f"  {len(steps)} epochs, median {steps[middle]:.1f} s and {judged[middle]:.1f} s of judging")


def show_published(data: str) -> None:
    """What others print for the same split."""
    table = pl.read_csv(ROOT / "warehouse" / "published.csv").filter(data=PUBLISHED[data], track="next_item")
    for (method, variant, source), rows in table.group_by("method", "variant", "source", maintain_order=True):
        told = "  ".join(
            f"{metric} {value:.4f}" for metric, value in rows.select("metric", "value").iter_rows()
        )
        print(f"published: {method} ({variant})  {told}  [{source}]")


def changes(given: list[str], model: str) -> dict[str, Any]:
    """Settings of the model among `model.name=value`; a value is YAML, as in a study."""
    found = {}
    for change in given:
        name, value = change.split("=", 1)
        owner, setting = name.split(".", 1)
        if owner == model:
            found[setting] = yaml.safe_load(value)
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    asked.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(FITS)}")
    asked.add_argument("--set", action="append", default=[], metavar="MODEL.SETTING=VALUE")
    asked.add_argument("--work", type=Path, help="where checkpoints are kept")
    asked.add_argument("--only-valid", action="store_true")
    given = asked.parse_args()
    if given.work:
        given.work.mkdir(parents=True, exist_ok=True)
    for folder in given.folders:
        data = load(folder)
        events, queries = data.split.events, data.split.queries
        print(
            f"{data.name}: {queries['user'].n_unique():,} users, {data.rows.n_items:,} items, "
            f"{events.height:,} events, {len(data.rows.user):,} to learn from"
        )
        for model in given.models.split(","):
            settings = settings_of(data.name, model, changes(given.set, model))
            print(f"{model} {settings}", flush=True)
            show(model, *apart(run, folder, model, settings, given.work, not given.only_valid))
        show_published(data.name)


if __name__ == "__main__":
    main()
