"""LightGCN on labelled pairs: vectors averaged over the graph of who liked what, beside `mf` on the ctr track.

He et al., SIGIR 2020, arXiv 2002.02126; as CoLLM trains it (Zhang et al., TKDE 2025, arXiv 2310.19488)

    train likes -> graph; train labels -> one fit per penalty -> the best on validation -> vectors, scores

The graph holds the liked training rows; the labels of all of them are learnt: logit = <user, item> of the
averaged vectors, binary cross-entropy, Adam, stopped by validation AUC. As theirs it has no biases.

Cold: a user or item without training rows has the mean of the averaged vectors of those with some. One with
training rows but no like has its own vector, divided as the average is.

Departures: the penalty is chosen among several on validation; the cold are not left where Adam drove them;
32 numbers where CoLLM has 64.

Defaults: on the 1,535 validation rows of MovieLens-100K (cut by time, users with a history; one seed) penalties
1 and 3 had AUC .736 and .730; lr .005 and .02 gave .731 and .730 at penalty 3; 64 numbers in steps of 2048 rows
gave .731 at penalty 3 and .690 at 10, and an epoch took twice as long. The standard error there is some .013:
little is told apart.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.collab.encoders import Encoded, every_example_has_vectors, write_vectors
from pipeline.collab.events import Trained
from pipeline.collab.fitting import Epochs, Patience, Penalties, Rate, how_to_fit, keep_best
from pipeline.collab.labelled import (
    Known,
    Labelled,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    held_out,
    inner,
    known,
    mean_where_cold,
    rows_of,
    sigmoid,
    train_and_valid,
)
from pipeline.collab.mf import better_than_chance, vector_table
from pipeline.collab.vectors import Vectors
from pipeline.evaluate.pointwise import auc
from pipeline.schema import Curve, ItemVectors, Pairs, Search, UserVectors
from pipeline.stage import Artefact, Check, Draft, Settings, stage

if TYPE_CHECKING:
    from pipeline.collab.pairs import Fit
    from pipeline.collab.propagated import LightGCN


class LabelledLightGCNSettings(Settings):
    dim: int = Field(32, ge=1, description="numbers a vector")
    layers: int = Field(2, ge=1, description="steps over the graph")
    penalties: Penalties = (1.0, 3.0)
    lr: Rate = 1e-2
    batch: int = Field(8192, ge=1, description="rows a step; each step walks the whole graph")
    epochs: Epochs = 100
    patience: Patience = 6
    spread: float = Field(0.1, gt=0, description="standard deviation of the first vectors")


def liked_graph(train: Labelled, seen: Known) -> Trained:
    """The liked training rows, as what the graph is made of."""
    liked = train.label > 0
    return Trained(train.user[liked], train.item[liked], len(seen.users), len(seen.items))


def read_out(model: "LightGCN", seen: Known) -> Vectors:
    """The averaged vectors, with the mean vector for cold users and items."""
    import torch

    from pipeline.threads import one_thread

    with torch.no_grad(), one_thread():
        found = model()
    users, items = found["user"].numpy(), found["item"].numpy()
    return Vectors(mean_where_cold(users, seen.users), mean_where_cold(items, seen.items))


def learn(
    parts: tuple[Labelled, Labelled],
    seen: Known,
    settings: LabelledLightGCNSettings,
    penalty: float,
    seed: int,
    checkpoint: Path | None = None,
) -> tuple[Vectors, "Fit"]:
    """Fit on the first part, stop by the second. Goes on from the checkpoint where there is one."""
    from torch import Generator, Tensor
    from torch.nn.functional import binary_cross_entropy_with_logits, embedding

    from pipeline.collab import pairs
    from pipeline.collab.propagated import LightGCN, links

    train, valid = parts
    first = pairs.generator(seed, settings.epochs)  # beyond the last epoch's draws
    graph = links(liked_graph(train, seen))
    model = LightGCN(graph, settings.dim, settings.layers, settings.spread, first)

    def loss(batch: pairs.Batch, epoch: int, draws: Generator) -> Tensor:
        found = model()
        logits = (embedding(batch.user, found["user"]) * embedding(batch.item, found["item"])).sum(1)
        return binary_cross_entropy_with_logits(logits, batch.label)

    fit = pairs.fit_pairs(
        model,
        pairs.to_batch(train),
        loss,
        judge=lambda: auc(valid.label, inner(*read_out(model, seen), valid.user, valid.item)),
        how=how_to_fit(settings, penalty, len(train.label), seed),
        saving=pairs.Saving(checkpoint) if checkpoint else None,
    )
    return read_out(model, seen), fit


@stage(
    "ctr/lightgcn",
    settings=LabelledLightGCNSettings,
    section="models",
    version=1,
    inputs={"split": "ctr/split"},
    tables={
        "user_vectors": UserVectors,
        "item_vectors": ItemVectors,
        "curve": Curve,
        "search": Search,
        "pairs": Pairs,
    },
    checks=(
        Check(every_pair_scored_once),
        Check(every_example_has_vectors),
        Check(better_than_chance, blocking=False),
    ),
    seeded=True,
    predicts="pairs",
    needs="heavy",
)
def labelled_lightgcn(split: Artefact, settings: LabelledLightGCNSettings, out: Draft) -> None:
    """Vectors averaged over the graph of who liked what, learnt from labelled pairs, and their scores."""
    examples = rows_of(split)
    parts, seen, rows = train_and_valid(examples), known(split.scan("examples")), held_out(examples)
    best = keep_best(
        "lightgcn",
        lambda penalty, checkpoint: learn(parts, seen, settings, penalty, out.seed, checkpoint),
        settings.penalties,
        out,
    )
    score = inner(*best, rows["user"].to_numpy(), rows["item"].to_numpy())
    out.table("user_vectors", vector_table("user", best.users, seen.users))
    out.table("item_vectors", vector_table("item", best.items, seen.items))
    out.table("pairs", as_pairs(examples, "lightgcn", score, sigmoid(score), out.seed))
    write_vectors(out, Encoded(*best, examples["user"].to_numpy().astype("int64")))
    out.metric(parameters=best.users.size + best.items.size, **cold_counts(examples, seen))
