"""BPR: vectors under which a user's items beat items that the user did not use.

Rendle et al., UAI 2009, https://arxiv.org/abs/1205.2618; fitted by the library `implicit`.

    train pairs + sampled negatives -> stochastic gradients, one pair at a time -> vectors -> inner products

An item's last number is its bias, a user's last is 1. `next_item/mf` has the same loss with Adam, early
stopping and more negatives; this one is the classic.

Cold: users without training rows have the mean vector; items without training rows stand behind all others.

Defaults were chosen on the validation part of MovieLens-100K (leave-last-two, seen masked) among dim 32 and 64,
lr .01 to .1, penalty .003 to .1 and 50, 100 or 200 epochs, 45 settings in all: NDCG@10 .0647; the worst had
.0375, by learning too long with a weak penalty. The standard error is about .006.
"""

from pydantic import Field

from pipeline.collab.events import Trained, cold_queries, trained, user_items
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, write_rankings
from pipeline.collab.vectors import (
    TABLES,
    Vectors,
    every_id_has_a_vector,
    from_fitted,
    from_vectors,
    write_vectors,
)
from pipeline.schema import Rankings
from pipeline.stage import Artefact, Check, Draft, stage


class BPRSettings(RankedSettings):
    dim: int = Field(64, ge=1, description="numbers a vector, the bias not counted")
    lr: float = Field(0.02, gt=0, description="step size")
    penalty: float = Field(0.03, ge=0, description="L2 penalty on the vectors of each step")
    epochs: int = Field(200, ge=1, description="passes over the training rows")


def fit(rows: Trained, settings: BPRSettings, seed: int) -> Vectors:
    """Vectors with biases (dim + 1 numbers); one thread, so that its bits are the same everywhere."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = BayesianPersonalizedRanking(
            factors=settings.dim,
            learning_rate=settings.lr,
            regularization=settings.penalty,
            iterations=settings.epochs,
            num_threads=1,
            random_state=seed,
        )
        model.fit(user_items(rows), show_progress=False)
    return Vectors(model.user_factors, model.item_factors)


@stage(
    "next_item/bpr",
    settings=BPRSettings,
    section="models",
    version=1,
    inputs={"split": "next_item/split"},
    tables={"rankings": Rankings, **TABLES},
    checks=(Check(every_query_ranked_once), Check(every_id_has_a_vector)),
    seeded=True,
    predicts="rankings",
    scorer=from_fitted,
)
def bpr(split: Artefact, settings: BPRSettings, out: Draft) -> None:
    """Vectors by Bayesian personalised ranking, and the orders they give."""
    rows = trained(split)
    vectors = fit(rows, settings, out.seed)
    write_rankings(out, "bpr", from_vectors(vectors, rows.known), split, settings)
    write_vectors(out, vectors, rows.known)
    out.metric(**cold_queries(split.table("queries"), rows))
