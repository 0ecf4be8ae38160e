"""Similar items: every item's nearest others by the vectors of their texts, exact, in batches.

    item_embeddings -> unit rows -> faiss, a batch against all -> first k without itself -> similar_items

The index holds the vectors once and a batch's neighbours leave as soon as they are found, so memory is that of
the vectors. This is ReLLa's table (Lin et al., WWW 2024) as something to look at, to judge retrieval by, and to
build on; a method that looks among a user's few past items compares their vectors itself
(`pipeline.text.retrieval`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.progress import meter
from pipeline.schema import SimilarItems
from pipeline.stage import Artefact, Check, Draft, Settings, Stage, Verdict, stage
from pipeline.text.embeddings import Floats, as_array, unit

DIGITS = 6  # of a similarity; what a sum in another order changes is below
AT_ONCE = 4_096  # queries of one search
SPARE = 8  # found beyond the k, so that equals at the end of the list are told apart by their items
OWN = np.float32(-2)  # below every similarity: an item itself comes last and is cut off


class SimilarItemsSettings(Settings):
    k: int = Field(50, ge=1, description="neighbours of an item, fewer where there are no more items")


def nearest(items: pl.Series, vectors: Floats, k: int, at_once: int = AT_ONCE) -> Iterator[pl.DataFrame]:
    """The k most similar others of every item by cosine, a batch of items at a time, as `similar_items`.

    items: dense items (n,); vectors: their rows (n, d). Equal similarities stand in order of item (of more than
    SPARE that are equal at the end of a list, some).
    """
    import faiss

    rows, numbers = unit(vectors), items.to_numpy()
    k = min(k, len(rows) - 1)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)  # type: ignore[call-arg]
    with meter("similar items", len(rows)) as progress:
        for start in range(0, len(rows) if k else 0, at_once):
            queries = rows[start : start + at_once]
            similarity, place = index.search(queries, min(k + 1 + SPARE, len(rows)))  # type: ignore[call-arg]
            yield ranked(numbers, np.arange(start, start + len(queries)), similarity, place, k)
            progress.advance(len(queries))


def ranked(numbers: Any, own: Any, similarity: Floats, place: Any, k: int) -> pl.DataFrame:
    """The rows of some items: of what was found (n, found), the first k by (similarity, item), not itself."""
    told = np.where(place == own[:, None], OWN, similarity.round(DIGITS).clip(-1, 1))
    order = np.lexsort((place, -told), axis=1)[:, :k]
    return pl.DataFrame(
        {
            "item": np.repeat(numbers[own], k),
            "rank": np.tile(np.arange(1, k + 1, dtype=np.uint32), len(own)),
            "neighbour": numbers[np.take_along_axis(place, order, 1)].ravel(),
            "similarity": np.take_along_axis(told, order, 1).ravel(),
        }
    )


def none_is_its_own_neighbour(
    draft: Draft, inputs: Mapping[str, Any], settings: SimilarItemsSettings
) -> Verdict:
    """No item is its own neighbour, and none is another's twice."""
    table = draft.scan("similar_items")
    own = table.filter(pl.col("item") == pl.col("neighbour")).select(pl.len()).collect().item()
    twice = table.group_by("item").agg(pl.len() - pl.col("neighbour").n_unique()).select("len").sum()
    twice = twice.collect().item()
    words = f"{own} items are their own neighbours, {twice} neighbours stand twice"
    return Verdict(not own and not twice, words, {"own": own, "twice": twice})


def similarities_fall_from_one(
    draft: Draft, inputs: Mapping[str, Any], settings: SimilarItemsSettings
) -> Verdict:
    """Every similarity is within [-1, 1], and none is above the one of the rank before."""
    rising = (pl.col("similarity").sort_by("rank").diff() > 0).sum()
    outside = (~pl.col("similarity").is_between(-1, 1)).sum()
    found = draft.scan("similar_items").group_by("item").agg(rising=rising, outside=outside)
    rises, out = found.select("rising", "outside").sum().collect().row(0)
    return Verdict(not rises and not out, f"{out} outside, {rises} rising", {"outside": out, "rising": rises})


def as_many_as_asked(draft: Draft, inputs: Mapping[str, Any], settings: SimilarItemsSettings) -> Verdict:
    """Every item has `k` neighbours, ranked from 1 on, or all others where there are fewer."""
    items = inputs["vectors"].scan("item_embeddings").select("item").collect()
    k = min(settings.k, items.height - 1)
    rank = pl.col("rank")
    whole = (pl.len() == k) & (rank.n_unique() == k) & (rank.max() == k)
    found = draft.scan("similar_items").group_by("item").agg(whole=whole).collect()
    right = found.filter("whole").join(items, on="item", how="semi").height
    short = items.height - right if k else found.height
    return Verdict(not short, f"{short} of {items.height} items have not {k} neighbours", {"short": short})


CHECKS = (Check(none_is_its_own_neighbour), Check(similarities_fall_from_one), Check(as_many_as_asked))


def find(vectors: Artefact, settings: SimilarItemsSettings, out: Draft) -> None:
    """Write the neighbours of all items of a table `item_embeddings`."""
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())  # those that the study asks for
    table = vectors.table("item_embeddings")
    out.table("similar_items", nearest(table["item"], as_array(table), settings.k))
    first = out.scan("similar_items").filter(rank=1).select(pl.col("similarity").mean()).collect().item()
    out.metric(items=table.height, mean_nearest=None if first is None else round(first, 6))


def similar_items(vectors: str, name: str, doc: str) -> Stage:
    """The stage `similar_items/NAME` of the vectors that the stage `vectors` makes."""

    def found(vectors: Artefact, settings: SimilarItemsSettings, out: Draft) -> None:
        find(vectors, settings, out)

    found.__name__, found.__doc__ = name, doc
    return stage(
        f"similar_items/{name}",
        settings=SimilarItemsSettings,
        section="models",
        version=1,
        inputs={"vectors": vectors},
        tables={"similar_items": SimilarItems},
        checks=CHECKS,
        needs="heavy",
    )(found)


lm = similar_items(
    "lm_embeddings", "lm", "Every item's nearest others, as the language model sees their texts."
)
text = similar_items(
    "text_embeddings", "text", "Every item's nearest others, as the text encoder sees their texts."
)
