"""What fits on labelled pairs have in common: their settings, and the choice of a penalty on validation.

settings + penalty -> how_to_fit -> pairs.fit_pairs; one fit per penalty -> keep_best -> the best on validation
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import polars as pl
from pydantic import Field

from pipeline.stage import Draft

if TYPE_CHECKING:
    from pipeline.collab.pairs import Fit, Fitting

Model = TypeVar("Model")
Penalties = Annotated[
    tuple[float, ...],
    Field(
        min_length=1,
        description="L2 penalties on the sum over training rows (Adam's weight decay times the rows); the best "
        "on validation is kept",
    ),
]
Rate = Annotated[float, Field(gt=0, description="Adam's step size")]
Batch = Annotated[
    int | None,
    Field(ge=1, description="rows a step; absent: a hundredth of the training rows, between 2048 and 8192"),
]
Epochs = Annotated[int, Field(ge=1, description="passes over the training rows, at most")]
Patience = Annotated[int, Field(ge=1, description="epochs without a better validation AUC before it stops")]


class FitSettings(Protocol):
    """Settings that say how to fit."""

    @property
    def lr(self) -> float: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def epochs(self) -> int: ...
    @property
    def patience(self) -> int: ...


def how_to_fit(settings: FitSettings, penalty: float, rows: int, seed: int) -> "Fitting":
    """How the settings say to fit on `rows` training rows."""
    from pipeline.collab.pairs import Fitting, rows_a_step

    return Fitting(
        seed=seed,
        lr=settings.lr,
        weight_decay=penalty / rows,
        batch=rows_a_step(settings.batch, rows),
        epochs=settings.epochs,
        patience=settings.patience,
    )


def keep_best(
    method: str,
    learn: Callable[[float, Path], tuple[Model, "Fit"]],
    penalties: Sequence[float],
    out: Draft,
) -> Model:
    """Learn once per penalty and return what validation likes best; writes `curve`, `search` and its metrics.

    learn: (penalty, file of its checkpoint) -> what was learnt, and how the fit went.
    """
    from pipeline.collab.pairs import curve_table, search_table

    trials = {
        f"penalty={penalty:g}": learn(penalty, out.checkpoints / f"penalty-{penalty:g}.safetensors")
        for penalty in penalties
    }
    fits = {candidate: fit for candidate, (_, fit) in trials.items()}
    tried = search_table(method, fits)
    kept = tried.row(by_predicate=pl.col("chosen"), named=True)
    out.table("curve", curve_table(fits))
    out.table("search", tried)
    out.metric(
        valid_auc=kept["valid_auc"], epochs=kept["epochs"], penalty=float(kept["candidate"].split("=")[1])
    )
    return trials[kept["candidate"]][0]
