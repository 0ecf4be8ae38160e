"""Makers of semantic ids on Amazon Beauty: what their codes use, tell apart and rebuild, and how long it takes.

    python -m benchmarks.codes FOLDER --cache FOLDER [--makers rqvae,rqkmeans,balanced,lsh,random] [--epochs 9]

FOLDER holds items.parquet (item_id, title, categories) and interactions.parquet (user_id, item_id, seq_pos),
one row an item and an event. Texts are written and encoded as the stages do, in pieces that the cache keeps, so
that a run may be broken off; then each maker codes all items by 3 x 256 codes. `order` counts users' steps from
an item to that of the next id and to that of the one before: ids that hold no order have as many of both.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.codes import makers, rqvae
from pipeline.codes.clusters import Floats
from pipeline.codes.ids import with_digits
from pipeline.codes.levels import (
    category_flags,
    category_information,
    holders,
    neighbours_in_order,
    perplexity,
    sharing,
    usage,
    variance_left,
)
from pipeline.codes.makers import Made
from pipeline.codes.semantic import BalancedSettings, RqVaeSettings
from pipeline.collab.pairs import Fitting
from pipeline.text.encoder import TextEncoder, bring, sentence_vectors
from pipeline.text.item_text import ItemTextSettings, sentences

LEVELS, K, SEED = 3, 256, 1
AT_ONCE = 1_000  # texts encoded before they are kept
FIGURES = ("maker", "seconds", "usage", "perplexity", "unique", "largest", "left", "own error", "told", "order")


def items_of(folder: Path) -> pl.DataFrame:
    """Items numbered in order of their ids, as the stage `dataset` does: its columns."""
    items = pl.read_parquet(folder / "items.parquet").select("item_id", "title", "categories").sort("item_id")
    return items.with_row_index("item").with_columns(text=pl.lit(None, pl.String))


def vectors_of(items: pl.DataFrame, cache: Path) -> Floats:
    """The vectors (n, 384) of the items' texts by the project's encoder, a piece at a time."""
    cache.mkdir(parents=True, exist_ok=True)
    model = cache / "encoder"
    if not (model / "config.json").exists():
        model.mkdir(exist_ok=True)
        bring(TextEncoder(), cache, model)
    texts, pieces = sentences(items, ItemTextSettings())["text"].to_list(), []
    for start in range(0, len(texts), AT_ONCE):
        file = cache / f"vectors-{start}.npy"
        if not file.exists():
            np.save(file, sentence_vectors(model, texts[start : start + AT_ONCE]))
        pieces.append(np.load(file))
    return np.concatenate(pieces)


def network(vectors: Floats, epochs: int, checkpoint: Path, **changed: object) -> Made:
    """RQ-VAE codes by the stage's defaults, those named changed."""
    settings = RqVaeSettings.model_validate({"epochs": epochs, **changed})
    told = settings.model_dump(include=set(rqvae.Form._fields))
    model = rqvae.start(vectors, rqvae.Form(**told, k=K), SEED)
    how = Fitting(SEED, settings.lr, 0.0, settings.batch, epochs, epochs, "explained")
    fit = rqvae.fit(model, vectors, how, checkpoint)
    return Made(rqvae.codes_of(model, vectors), rqvae.books_of(model), 1 - fit.best)


def made_by(maker: str, vectors: Floats, epochs: int, cache: Path) -> Made:
    """One maker's codes."""
    slack = BalancedSettings().slack
    if maker.startswith("rqvae"):
        changed = {"rqvae_rotation": {"gradient": "rotation"}, "rqvae_sinkhorn": {"sinkhorn": True}}
        return network(vectors, epochs, cache / f"{maker}-{epochs}.safetensors", **changed.get(maker, {}))
    known = {
        "rqkmeans": lambda: makers.rq_kmeans(vectors, LEVELS, K, SEED, 25),
        "balanced": lambda: makers.balanced(vectors, LEVELS, K, SEED, 25, slack),
        "lsh": lambda: makers.lsh(vectors, LEVELS, K, SEED),
        "random": lambda: makers.random_ids(len(vectors), LEVELS, K, SEED),
    }
    return known[maker]()


def steps_of(folder: Path, items: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the items of all events but each user's last, and of the events after them, both (m,)."""
    events = pl.read_parquet(folder / "interactions.parquet").join(
        items.select("item_id", "item"), on="item_id"
    )
    after = events.sort("user_id", "seq_pos").with_columns(next=pl.col("item").shift(-1).over("user_id"))
    after = after.drop_nulls("next")
    return after["item"].to_numpy(), after["next"].to_numpy()


def line(maker: str, seconds: float, made: Made, vectors: Floats, flags: np.ndarray, steps: tuple) -> list[str]:
    """One row of the table."""
    counts = holders(made.codes, K)
    order = np.random.default_rng(SEED).permutation(len(vectors))
    ids = with_digits(made.codes[order])[np.argsort(order)]
    forward, backward = neighbours_in_order(ids, *steps)
    found = sharing(made.codes)
    return [
        maker,
        f"{seconds:.1f}",
        " ".join(f"{usage(one):.1%}" for one in counts),
        " ".join(f"{perplexity(one):.0f}" for one in counts),
        f"{found.unique_share:.1%}",
        str(found.largest_group),
        " ".join(f"{one:.3f}" for one in variance_left(vectors, made.codes, K)),
        "" if made.error is None else f"{made.error:.3f}",
        " ".join(f"{category_information(level, K, flags):.3f}" for level in made.codes.T),
        f"{forward}/{backward} of {len(steps[0])}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--makers", default="rqvae,rqkmeans,balanced,lsh,random")
    parser.add_argument("--epochs", type=int, default=RqVaeSettings().epochs)
    told = parser.parse_args()
    items = items_of(told.folder)
    vectors, steps = vectors_of(items, told.cache), steps_of(told.folder, items)
    flags = category_flags(items["categories"])
    print(" | ".join(FIGURES))
    for maker in told.makers.split(","):
        started = time.perf_counter()
        made = made_by(maker, vectors, told.epochs, told.cache)
        print(" | ".join(line(maker, time.perf_counter() - started, made, vectors, flags, steps)), flush=True)


if __name__ == "__main__":
    main()
