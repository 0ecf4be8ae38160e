"""The fit that all click-through models share: labelled rows, stopped by validation AUC, resumed to the bit.

split (+ items, users) (+ dense vectors) -> Material -> fit (pipeline.collab.pairs) -> logits of any rows
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.collab.fitting import how_to_fit, keep_best
from pipeline.collab.labelled import (
    Floats,
    Known,
    as_pairs,
    cold_counts,
    known,
    rows_of,
    sigmoid,
    train_and_valid,
)
from pipeline.ctr.fields import Dense, Fields, cold_rows, fields
from pipeline.ctr.settings import CtrSettings
from pipeline.evaluate.pointwise import auc
from pipeline.stage import Artefact, Draft

if TYPE_CHECKING:
    from torch import Generator

    from pipeline.collab.pairs import Fit
    from pipeline.ctr.adaptor import Adaptor, Fieldwise
    from pipeline.ctr.network import Asked, Network

ROWS = 8192  # examples scored at once
MakeAdaptor = Callable[["Material", "Generator"], "Adaptor | None"]


class Material(NamedTuple):
    """Examples of a split (part, row, user, item, label), their fields, and vectors of users and of items."""

    examples: pl.DataFrame
    fields: Fields
    seen: Known
    dense: tuple[Dense, Dense] | None = None

    def asked(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> "Asked":
        """The chosen examples as tensors."""
        import torch

        from pipeline.ctr.network import Asked

        user, item = (self.examples[name].to_numpy()[chosen].astype(np.int64) for name in ("user", "item"))
        read = [one.of_example[chosen] for one in self.dense] if self.dense else [np.zeros_like(user)] * 2
        columns = (user, item, self.fields.past[chosen], self.fields.liked[chosen], np.stack(read, 1))
        return Asked(*(torch.from_numpy(column) for column in columns))

    def of(self, part: str) -> NDArray[np.bool_]:
        """Which examples are of a part (n,)."""
        return (self.examples["part"] == part).to_numpy()


def material(
    split: Artefact, dataset: Artefact, settings: CtrSettings, dense: tuple[Dense, Dense] | None = None
) -> Material:
    """All that a model reads of a split."""
    scan = split.scan("examples")
    seen = known(scan)
    tables = [dataset.table("items"), dataset.table("users")] if settings.attributes else []
    return Material(rows_of(split), fields(scan, seen, settings.history, tables), seen, dense)


def no_adaptor(held: Material, draws: "Generator") -> None:
    """A model without dense vectors."""


def logits(model: "Network", asked: "Asked", dense: "Fieldwise | None" = None) -> Floats:
    """What the network says of examples (n,), some at a time to bound memory."""
    import torch

    from pipeline.ctr.network import Asked
    from pipeline.threads import one_thread

    with torch.no_grad(), one_thread():
        model.fields.settle()
        pieces = zip(*(column.split(ROWS) for column in asked), strict=True)
        found = [model(Asked(*piece), dense) for piece in pieces]
    return torch.cat(found).numpy().astype(np.float64)


def scored(model: "Network", asked: "Asked") -> Floats:
    """`logits` with every dense vector adapted once, as they are stored."""
    return logits(model, asked, model.adaptor.stored() if model.adaptor else None)


def learn(
    held: Material,
    backbone: str,
    settings: CtrSettings,
    penalty: float,
    seed: int,
    adaptor: MakeAdaptor = no_adaptor,
    checkpoint: Path | None = None,
) -> tuple["Network", "Fit"]:
    """Fit on the training rows, stop by the validation rows; go on from the checkpoint if there is one."""
    from torch import Generator, Tensor
    from torch.nn.functional import binary_cross_entropy_with_logits

    from pipeline.collab import pairs
    from pipeline.ctr.network import Asked, Network

    train, valid = train_and_valid(held.examples)
    first = pairs.generator(seed, settings.epochs)  # beyond the last epoch's draws
    model = Network(backbone, held.fields, settings, adaptor(held, first), first)
    learnt_from, judged_by = held.asked(held.of("train")), held.asked(held.of("valid"))

    def loss(batch: pairs.Batch, epoch: int, draws: Generator) -> Tensor:
        some = Asked(*(column[batch.user] for column in learnt_from))
        return binary_cross_entropy_with_logits(model(some, draws=draws), batch.label)

    fit = pairs.fit_pairs(
        model,
        pairs.to_batch(train._replace(user=np.arange(len(train.label)))),  # the place of a row, not its user
        loss,
        lambda: auc(valid.label, scored(model, judged_by)),
        how_to_fit(settings, penalty, len(train.label), seed),
        pairs.Saving(checkpoint) if checkpoint else None,
    )
    return model, fit


def fit_and_score(
    held: Material,
    backbone: str,
    settings: CtrSettings,
    out: Draft,
    method: str,
    adaptor: MakeAdaptor = no_adaptor,
) -> "Network":
    """Fit once per penalty and keep the best on validation; writes its scores, curve, network and metrics."""
    best = keep_best(
        method,
        lambda penalty, file: learn(held, backbone, settings, penalty, out.seed, adaptor, file),
        settings.penalties,
        out,
    )
    score = scored(best, held.asked(~held.of("train")))
    table = as_pairs(held.examples, method, score, sigmoid(score), out.seed)
    out.table("pairs", table.with_columns(variant=pl.lit(out.variant)))
    out.tensors("network", best.state_dict())
    out.json("fields", [[one.name, one.of, one.size] for one in held.fields.attributes])
    out.metric(
        parameters=sum(p.numel() for p in best.parameters()),
        fields=len(held.fields.attributes),
        **cold_counts(held.examples, held.seen),
        **cold_rows(held.examples, held.fields),
    )
    return best
