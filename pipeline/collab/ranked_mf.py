"""Matrix factorisation on the next_item track: used items against sampled ones.

    train pairs + sampled negatives -> bpr or bce, Adam, stopped by validation NDCG@10 -> vectors -> products

The model of `pipeline.collab.factors` (vectors and biases) in the loop of `pipeline.collab.pairs`. The exported
vectors hold the biases: a user's is [vector, bias, 1], an item's [vector, 1, bias].

Cold: users without training rows have the mean vector; items without training rows stand behind all others.

Defaults: on the validation part of MovieLens-100K (leave-last-two, seen masked), lr .003: bce with 8 negatives
and penalty .01 had NDCG@10 .0640, with penalty .03 .0591; bpr with 4 negatives and penalty .001 .0610. The
standard error is about .006; little else was tried.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from pipeline.collab.events import Trained, cold_queries, trained
from pipeline.collab.ranked import every_query_ranked_once, write_rankings
from pipeline.collab.sampled import Loss, SampledSettings
from pipeline.collab.vectors import (
    TABLES,
    Vectors,
    every_id_has_a_vector,
    from_fitted,
    from_vectors,
    write_vectors,
)
from pipeline.schema import Curve, Rankings
from pipeline.stage import Artefact, Check, Draft, stage

if TYPE_CHECKING:
    from pipeline.collab.pairs import Fit


class RankedMFSettings(SampledSettings):
    loss: Loss = Field(
        "bce", description="bpr: a used item beats each sampled one; bce: used is 1, sampled is 0"
    )
    penalty: float = Field(0.01, ge=0, description="L2 penalty on the vectors of a batch, a row")


def learn(
    rows: Trained, queries: pl.DataFrame, settings: RankedMFSettings, seed: int, checkpoint: Path | None = None
) -> "tuple[Vectors, Fit]":
    """Vectors with biases (dim + 2 numbers), and how the fit went."""
    from torch import Tensor
    from torch.nn.functional import embedding

    from pipeline.collab.factors import Factors
    from pipeline.collab.negatives import Learner, Scored, fit_sampled, squared
    from pipeline.collab.pairs import generator

    first = generator(seed, settings.epochs)  # beyond the last epoch's draws
    model = Factors(rows.n_users, rows.n_items, settings.dim, settings.spread, first)

    def score(user: Tensor, items: Tensor) -> Scored:
        logits = model(user.repeat_interleave(items.shape[1]), items.reshape(-1)).view_as(items)
        return Scored(logits, squared(embedding(user, model.user), embedding(items, model.item)))

    def read() -> Vectors:
        return Vectors(*(vectors.numpy() for vectors in model.vectors().values()))

    return fit_sampled(Learner(model, score, read), rows, queries, settings, seed, checkpoint)


@stage(
    "next_item/mf",
    settings=RankedMFSettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split"},
    tables={"rankings": Rankings, "curve": Curve, **TABLES},
    checks=(Check(every_query_ranked_once), Check(every_id_has_a_vector)),
    seeded=True,
    predicts="rankings",
    scorer=from_fitted,
    needs="heavy",
)
def ranked_mf(split: Artefact, settings: RankedMFSettings, out: Draft) -> None:
    """Vectors and biases learnt from used against sampled items, and the orders they give."""
    from pipeline.collab.pairs import curve_table

    rows = trained(split)
    queries = split.table("queries")
    vectors, fit = learn(rows, queries, settings, out.seed, out.checkpoints / "mf.safetensors")
    write_rankings(out, "mf", from_vectors(vectors, rows.known), split, settings)
    write_vectors(out, vectors, rows.known)
    out.table("curve", curve_table({"fit": fit}))
    out.metric(epochs=fit.best_epochs, **cold_queries(queries, rows))
