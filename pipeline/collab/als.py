"""ALS: users and items as vectors whose product weighs what was used against everything that was not.

Hu, Koren and Volinsky, ICDM 2008, https://doi.org/10.1109/ICDM.2008.22; fitted by the library `implicit`.

    train pairs -> alternating least squares -> item vectors -> a user's vector from the history -> products

At the time of a query the user's vector is solved anew from the whole history, so it knows what a running
system would know, and a user who came after training has one too. The table `user_vectors` holds the vectors
of training, for models that read them.

Cold: a history without items that have training rows gets the popular items; items without training rows stand
behind all others.

Defaults were chosen on the validation part of MovieLens-100K (leave-last-two, seen masked) among dim 32, 64,
128, penalty 1, 10, 30, 100 and weight 1, 3, 10: NDCG@10 .0848 at 128, 10, 3. Ten others of the 36 are above
.077 and the standard error is about .007, so the choice matters little; a penalty of 100 does (.058 at most).
"""

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from pipeline.collab.events import Floats, Sparse, Trained, cold_queries, from_histories, trained, user_items
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, write_rankings
from pipeline.collab.vectors import TABLES, Vectors, every_id_has_a_vector, products, stored, write_vectors
from pipeline.schema import Rankings
from pipeline.stage import Artefact, Check, Draft, stage

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

    from pipeline.collab.ranked import Scores


class ALSSettings(RankedSettings):
    dim: int = Field(128, ge=1, description="numbers a vector")
    penalty: float = Field(10.0, ge=0, description="L2 penalty on the vectors")
    weight: float = Field(3.0, gt=0, description="weight of a used item, where one not used has weight 1")
    iterations: int = Field(15, ge=1, description="times that users and items are solved in turn")


def unfitted(settings: ALSSettings, seed: int) -> "AlternatingLeastSquares":
    """The library's model before it learns."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # behind the import, which loads a BLAS; the library warns of more threads
        return AlternatingLeastSquares(
            factors=settings.dim,
            regularization=settings.penalty,
            alpha=settings.weight,
            iterations=settings.iterations,
            num_threads=1,
            random_state=seed,
        )


def factorise(rows: Trained, settings: ALSSettings, seed: int) -> "AlternatingLeastSquares":
    """The fitted model; one thread, so that its bits are the same everywhere."""
    from threadpoolctl import threadpool_limits

    model = unfitted(settings, seed)
    with threadpool_limits(1):
        model.fit(user_items(rows), show_progress=False)
    return model


def fold_in(rows: Trained, model: "AlternatingLeastSquares") -> "Scores":
    """Scores: inner products of the items and the vector that solves a history."""
    from threadpoolctl import threadpool_limits

    def weigh(past: Sparse) -> Floats:
        with threadpool_limits(1):
            users = model.recalculate_user(np.arange(past.shape[0]), past)
        return products(users, model.item_factors)

    return from_histories(rows.popularity, rows.known.items, weigh)


def scorer(split: Artefact, fitted: Artefact, settings: ALSSettings) -> "Scores":
    """Folds histories in with the item vectors that the artefact holds."""
    rows, model = trained(split), unfitted(settings, fitted.seed)
    items = stored(fitted).items
    items[~rows.known.items] = 0  # as the library leaves them; the artefact holds the mean vector there
    model.item_factors = items
    return fold_in(rows, model)


@stage(
    "next_item/als",
    settings=ALSSettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split"},
    tables={"rankings": Rankings, **TABLES},
    checks=(Check(every_query_ranked_once), Check(every_id_has_a_vector)),
    seeded=True,
    predicts="rankings",
    scorer=scorer,
)
def als(split: Artefact, settings: ALSSettings, out: Draft) -> None:
    """Vectors by alternating least squares, and the orders they give."""
    rows = trained(split)
    model = factorise(rows, settings, out.seed)
    write_rankings(out, "als", fold_in(rows, model), split, settings)
    write_vectors(out, Vectors(model.user_factors, model.item_factors), rows.known)
    out.metric(**cold_queries(split.table("queries"), rows))
