"""LightGCN: vectors of users and items, each averaged with those of its neighbours in the graph of use.

He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126

    train pairs -> graph, normalised by both degrees -> learnt vectors -> `layers` steps over it, averaged
    -> bpr on sampled negatives, stopped by validation NDCG@10 -> inner products

As in the paper, the penalty is on the learnt vectors, not on the averaged ones, and nothing but the vectors is
learnt. Departures: several negatives a row instead of one, and the bce loss as a choice.

Cold: users without training rows have the mean vector; items without training rows stand behind all others.

Defaults: on the validation part of MovieLens-100K (leave-last-two, seen masked) lr .01 with 8192 rows a step
had NDCG@10 .0724 after 60 epochs and still rose; lr .003 with 4096 rows stopped at .0428 after 9 with a
patience of 4, so patience is long. Little else was tried. An epoch takes two seconds on one thread.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from pipeline.collab.events import Trained, cold_queries, trained
from pipeline.collab.ranked import every_query_ranked_once, write_rankings
from pipeline.collab.sampled import SampledSettings
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


class LightGCNSettings(SampledSettings):
    negatives: int = Field(4, ge=1, description="items sampled for each training row")
    lr: float = Field(0.01, gt=0, description="Adam's step size")
    batch: int = Field(8192, ge=1, description="training rows a step; each step walks the whole graph")
    layers: int = Field(2, ge=1, description="steps over the graph")


def learn(
    rows: Trained, queries: pl.DataFrame, settings: LightGCNSettings, seed: int, checkpoint: Path | None = None
) -> "tuple[Vectors, Fit]":
    """Averaged vectors (dim numbers), and how the fit went."""
    import torch
    from torch import Tensor
    from torch.nn.functional import embedding

    from pipeline.collab.negatives import Learner, Scored, fit_sampled, squared
    from pipeline.collab.pairs import generator
    from pipeline.collab.propagated import LightGCN, links

    first = generator(seed, settings.epochs)  # beyond the last epoch's draws
    model = LightGCN(links(rows), settings.dim, settings.layers, settings.spread, first)

    def score(user: Tensor, items: Tensor) -> Scored:
        found = model()
        users, others = embedding(user, found["user"]), embedding(items, found["item"])
        logits = torch.einsum("nd,nmd->nm", users, others)
        return Scored(logits, squared(embedding(user, model.user), embedding(items, model.item)))

    @torch.no_grad()
    def read() -> Vectors:
        return Vectors(*(vectors.numpy() for vectors in model().values()))

    return fit_sampled(Learner(model, score, read), rows, queries, settings, seed, checkpoint)


@stage(
    "next_item/lightgcn",
    settings=LightGCNSettings,
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
def lightgcn(split: Artefact, settings: LightGCNSettings, out: Draft) -> None:
    """Vectors averaged over the graph of who used what, and the orders they give."""
    from pipeline.collab.pairs import curve_table

    rows = trained(split)
    queries = split.table("queries")
    vectors, fit = learn(rows, queries, settings, out.seed, out.checkpoints / "lightgcn.safetensors")
    write_rankings(out, "lightgcn", from_vectors(vectors, rows.known), split, settings)
    write_vectors(out, vectors, rows.known)
    out.table("curve", curve_table({"fit": fit}))
    out.metric(epochs=fit.best_epochs, **cold_queries(queries, rows))
