"""EASE: the best linear item-to-item model without self-similarity, in closed form.

Steck, WWW 2019, https://arxiv.org/abs/1905.03375

    train pairs X -> P = (X'X + penalty)^-1 -> B = -P / diag(P), diagonal 0 -> score = history @ B

The penalty decides everything and depends on the data, so every run chooses it on validation (NDCG@10, the
smallest of equals). Time grows with the cube and memory with the square of the items (some 20 bytes each pair:
2 GB for 10,000), so only the most used `items` take part; others stand behind them like cold ones, counted.

Cold: a history without items that take part gets the popular ones.

On MovieLens-100K (leave-last-two, validation, seen masked) penalties 30, 100, 300, 1000 and 3000 gave NDCG@10
.0835, .0878, .0826, .0748 and .0661.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, field_validator

from pipeline.collab.events import (
    Bools,
    Floats,
    Sparse,
    Trained,
    cold_queries,
    from_histories,
    trained,
    user_items,
)
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, valid_ndcg_10, write_rankings
from pipeline.schema import Rankings, Trials
from pipeline.stage import Artefact, Check, Draft, stage

if TYPE_CHECKING:
    from pipeline.collab.ranked import Scores


class EASESettings(RankedSettings):
    penalties: tuple[float, ...] = Field(
        (30.0, 100.0, 300.0, 1000.0), min_length=1, description="L2 penalties; the best on validation is kept"
    )
    items: int = Field(
        15_000, ge=2, description="most used items that take part; memory is some 20 bytes times its square"
    )

    @field_validator("penalties")
    @classmethod
    def positive(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        """Zero would leave nothing to invert."""
        if min(penalties) <= 0:
            raise ValueError("penalties must be above 0")
        return tuple(sorted(penalties))


def item_weights(used: Sparse, penalty: float) -> Floats:
    """B (n_items, n_items) of who used what (n_users, n_items), on one thread so that its bits are the same."""
    from scipy.linalg import get_lapack_funcs
    from threadpoolctl import threadpool_limits

    gram = np.asfortranarray((used.T @ used).toarray(), dtype=np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (gram,))
    with threadpool_limits(1):
        factor, _ = potrf(gram, overwrite_a=True)
        inverse, _ = potri(factor, overwrite_c=True)
    upper = np.triu(inverse, 1).astype(np.float32)  # LAPACK fills one triangle
    diagonal = inverse.diagonal().astype(np.float32)
    return -(upper + upper.T) / diagonal


def taking_part(popularity: NDArray[np.int64], most: int) -> Bools:
    """The `most` most used items (n_items,), of equal ones the first; never one without training rows."""
    part = np.zeros(len(popularity), np.bool_)
    part[np.argsort(-popularity, kind="stable")[:most]] = True
    return part & (popularity > 0)


def linear(rows: Trained, penalty: float, most: int) -> "Scores":
    """Scores: the history times B."""
    part = taking_part(rows.popularity, most)
    weights = item_weights(user_items(rows)[:, part], penalty)

    def weigh(past: Sparse) -> Floats:
        found = np.zeros(past.shape, np.float32)
        found[:, part] = past[:, part] @ weights
        return found

    return from_histories(rows.popularity, part, weigh)


def tried(values: Mapping[float, float]) -> pl.DataFrame:
    """Penalty -> validation NDCG@10 as a table `trials`; the first of the best is chosen."""
    kept = max(values, key=lambda penalty: values[penalty])
    rows = [(f"penalty={penalty:g}", value, penalty == kept) for penalty, value in values.items()]
    return pl.DataFrame(rows, schema=["candidate", "valid_ndcg_10", "chosen"], orient="row")


def scorer(split: Artefact, fitted: Artefact, settings: EASESettings) -> "Scores":
    """Solved anew with the penalty that was chosen."""
    return linear(trained(split), fitted.metrics["penalty"], settings.items)


@stage(
    "next_item/ease",
    settings=EASESettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split"},
    tables={"rankings": Rankings, "trials": Trials},
    checks=(Check(every_query_ranked_once),),
    predicts="rankings",
    scorer=scorer,
)
def ease(split: Artefact, settings: EASESettings, out: Draft) -> None:
    """Order of items by the best linear model of the user's other items."""
    rows = trained(split)
    queries = split.table("queries")
    values: dict[float, float] = {}
    best: Scores | None = None
    for penalty in settings.penalties:
        scores = linear(rows, penalty, settings.items)
        value = valid_ndcg_10(scores, queries, rows.n_items)
        if best is None or value > max(values.values()):
            best = scores
        values[penalty] = value
    assert best is not None
    write_rankings(out, "ease", best, split, settings)
    out.table("trials", tried(values))
    part = taking_part(rows.popularity, settings.items)
    out.metric(
        penalty=max(values, key=lambda penalty: values[penalty]),
        items_left_out=int(rows.known.items.sum() - part.sum()),
        **cold_queries(queries, rows),
    )
