"""Which vectors of knowledge each row of a model reads, in each form of a method that reads them.

    vectors + rows (user, item, at) + what each user's text tells -> Dense of users, Dense of items -> Adaptor

A user's vector is read only for rows strictly later than all that its text tells; other rows, and owners
without a text, read the learnt `missing` one (`pipeline.ctr.adaptor`).
"""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipeline.ctr.fields import Dense, rows_of_owners
from pipeline.knowledge.vectors import Vectors
from pipeline.llm.examples import donors

if TYPE_CHECKING:
    from torch import Generator

    from pipeline.ctr.adaptor import Adaptor, Experts


def reads_of(found: Vectors, rows: pl.DataFrame, pasts: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which user vector and which item vector each row (user, item, at) reads; the count of vectors for none.

    A user's is read only where the row is strictly later than all that it tells (pasts: user, until).
    """
    user, item = (rows[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    until = rows.join(pasts, on="user", how="left", maintain_order="left")["until"]
    early = (rows["at"] <= until).fill_null(True).to_numpy()
    users = np.where(early, len(found.user), rows_of_owners(found.user_owner, user))
    return users, rows_of_owners(found.item_owner, item)


def dense_of(
    found: Vectors, rows: pl.DataFrame, pasts: pl.DataFrame, form: str, seed: int
) -> tuple[Dense, Dense]:
    """The vectors that a form reads, and which of them each row reads."""
    reads = reads_of(found, rows, pasts)
    held = [np.asarray(found.user), np.asarray(found.item)]
    if form == "random":
        held = [noise(rows.shape, seed, kind) for kind, rows in enumerate(held)]
    if form == "shuffled":
        reads = tuple(np.append(others(a, seed), len(a))[of] for a, of in zip(held, reads, strict=True))
    return Dense(held[0], reads[0]), Dense(held[1], reads[1])


def noise(shape: tuple[int, ...], seed: int, kind: int) -> np.ndarray:
    return np.random.default_rng((seed, kind)).normal(size=shape).astype(np.float32)


def others(table: np.ndarray, seed: int) -> np.ndarray:
    """For each vector (n, d) the row of another, unequal one, where not more than half are the same."""
    return donors(np.unique(table, axis=0, return_inverse=True)[1].ravel(), seed)


def adaptor_of(
    dense: tuple[Dense, Dense], to: int, shape: "Experts", form: str, draws: "Generator"
) -> "Adaptor":
    """The adaptor that a form reads its vectors through, to fields of `to` numbers: of users, items or both."""
    import torch

    from pipeline.ctr.adaptor import ITEM, USER, Adaptor

    kinds = {"user_only": (USER,), "item_only": (ITEM,)}.get(form, (USER, ITEM))
    tables = (torch.from_numpy(dense[0].rows), torch.from_numpy(dense[1].rows))
    return Adaptor(tables, to, shape, draws, kinds)
