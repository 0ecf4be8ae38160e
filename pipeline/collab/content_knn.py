"""Content neighbours: items whose texts are like those of what the user turned to last.

The baseline of TIGER's cold-start experiment (Semantic_KNN: Rajput et al., NeurIPS 2023), on both tracks.

    vectors of items' texts -> the mean of the last n of a history -> order by cosine

Nothing is learnt but n, which validation chooses. An item is as easily found without training rows as with
many, so this one is no model of ids: cold items stand wherever their texts put them. A query without a history
has the mean vector of all training rows. An item whose vector is nothing stands behind all others.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.collab.events import Bools, Floats, Trained, cold_queries, hidden, trained
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, valid_ndcg_10, write_rankings
from pipeline.collab.vectors import products
from pipeline.schema import Rankings, Trials
from pipeline.stage import Artefact, Check, Draft, stage
from pipeline.text.embeddings import as_array, unit

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.collab.ranked import Block, Scores


class ContentKNNSettings(RankedSettings):
    last: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 10, 30),
        min_length=1,
        description="items of a history, the latest ones, whose mean vector is looked for; the best on "
        "validation is kept",
    )


def directions(embeddings: pl.DataFrame, n_items: int) -> Floats:
    """Vectors (n_items, d) of length 1 from a table `item_embeddings`; zeros for items that are not in it."""
    held = unit(as_array(embeddings))
    found = np.zeros((n_items, held.shape[1]), np.float32)
    found[embeddings["item"].to_numpy()] = held
    return found


def profiles(block: "Block", items: Floats, last: int, usual: Floats) -> Floats:
    """Mean vectors (n, d) of the last items of each history; `usual` (d,) where there are none."""
    ends = block.offsets[1:].numpy()
    starts = np.maximum(block.offsets[:-1].numpy(), ends - last)
    sizes = ends - starts
    owner = np.repeat(np.arange(len(sizes)), sizes)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found = np.zeros((len(sizes), items.shape[1]), np.float32)
    np.add.at(found, owner, items[block.items.numpy()[starts[owner] + nth]])
    found /= np.maximum(sizes, 1)[:, None]
    found[sizes == 0] = usual
    return found


def alike(rows: Trained, items: Floats, last: int) -> "Scores":
    """Scores: products of profiles and items (n_items, d), which order as cosines do."""
    usual, told = items[rows.item].mean(0), told_of(items)

    def scores(block: "Block") -> "Tensor":
        return hidden(products(profiles(block, items, last, usual), items), told)

    return scores


def told_of(items: Floats) -> Bools:
    """Which items (n_items,) have a vector that says something."""
    return np.asarray(items.any(axis=1))


def tried(values: Mapping[int, float]) -> pl.DataFrame:
    """Length of the history -> validation NDCG@10 as a table `trials`; the first of the best is chosen."""
    kept = max(values, key=lambda last: values[last])
    rows = [(f"last={last}", value, last == kept) for last, value in values.items()]
    return pl.DataFrame(rows, schema=["candidate", "valid_ndcg_10", "chosen"], orient="row")


def choose_and_rank(split: Artefact, vectors: Artefact, settings: ContentKNNSettings, out: Draft) -> None:
    """What the stage does on either track: choose n on validation, rank all queries, write what decided."""
    import torch

    rows, queries = trained(split), split.table("queries")
    items = directions(vectors.table("item_embeddings"), rows.n_items)
    values = {n: valid_ndcg_10(alike(rows, items, n), queries, rows.n_items) for n in settings.last}
    last = max(values, key=lambda n: values[n])
    write_rankings(out, "content_knn", alike(rows, items, last), split, settings)
    out.table("trials", tried(values))
    out.tensors("vectors", {"items": torch.from_numpy(items)})
    out.metric(last=last, items_without_text=int((~told_of(items)).sum()), **cold_queries(queries, rows))


def scorer(split: Artefact, fitted: Artefact, settings: ContentKNNSettings) -> "Scores":
    """The vectors that the artefact holds, with the n that was chosen."""
    return alike(trained(split), fitted.tensors("vectors")["items"].numpy(), fitted.metrics["last"])


@stage(
    "next_item/content_knn",
    settings=ContentKNNSettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split", "vectors": "text_embeddings"},
    tables={"rankings": Rankings, "trials": Trials},
    checks=(Check(every_query_ranked_once),),
    predicts="rankings",
    scorer=scorer,
)
def content_knn(split: Artefact, vectors: Artefact, settings: ContentKNNSettings, out: Draft) -> None:
    """Order of items by how like their texts are to those of what the user used last."""
    choose_and_rank(split, vectors, settings, out)


@stage(
    "cold_item/content_knn",
    settings=ContentKNNSettings,
    section="models",
    version=1,
    inputs={"split": "cold_item/split", "vectors": "text_embeddings"},
    tables={"rankings": Rankings, "trials": Trials},
    checks=(Check(every_query_ranked_once),),
    predicts="cold_rankings",
    scorer=scorer,
)
def cold_content_knn(split: Artefact, vectors: Artefact, settings: ContentKNNSettings, out: Draft) -> None:
    """The same where what is to be found has no training rows."""
    choose_and_rank(split, vectors, settings, out)
