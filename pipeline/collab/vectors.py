"""Users and items as vectors on the next_item track: scores, tables, and who has no training rows.

    vectors of users and items -> inner products -> Scores; tables user_vectors, item_vectors

A user without training rows has the mean vector of those with some: they get what the average taste says. An
item without any has the mean vector in the table, for models that read it, and is never recommended.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.collab.events import Floats, hidden, trained
from pipeline.collab.labelled import Known, mean_where_cold
from pipeline.collab.mf import vector_table
from pipeline.schema import ItemVectors, UserVectors
from pipeline.stage import Artefact, Draft, Input, Verdict

if TYPE_CHECKING:
    from pipeline.collab.ranked import Scores

TABLES = {"user_vectors": UserVectors, "item_vectors": ItemVectors}


class Vectors(NamedTuple):
    """Vectors of users (n_users, d) and items (n_items, d), float32."""

    users: Floats
    items: Floats


def from_vectors(vectors: Vectors, known: Known) -> "Scores":
    """Scores: inner products of users and items; a cold user has the mean vector."""
    users = mean_where_cold(vectors.users, known.users)
    return lambda block: hidden(products(users[block.user.numpy()], vectors.items), known.items)


def from_fitted(split: Artefact, fitted: Artefact, settings: Any) -> "Scores":
    """Scores of a finished artefact: inner products of the vectors that it holds."""
    return from_vectors(stored(fitted), trained(split).known)


def stored(fitted: Artefact) -> Vectors:
    """The vectors that `write_vectors` wrote: the mean where there are no training rows."""
    held = fitted.tensors("vectors")
    return Vectors(held["users"].numpy(), held["items"].numpy())


def products(users: Floats, items: Floats) -> Floats:
    """Inner products (n, n_items) of all pairs; on one thread, so that the bits are the same everywhere."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return users @ items.T


def write_vectors(out: Draft, vectors: Vectors, known: Known) -> None:
    """Tables and safetensors of the vectors, the mean where there are no training rows."""
    import torch

    users, items = (mean_where_cold(rows, seen) for rows, seen in zip(vectors, known, strict=True))
    out.table("user_vectors", vector_table("user", users, known.users))
    out.table("item_vectors", vector_table("item", items, known.items))
    out.tensors("vectors", {"users": torch.from_numpy(users), "items": torch.from_numpy(items)})


def every_id_has_a_vector(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """Every user of a query and every item of the catalogue has a vector, all of one width."""
    split = inputs["split"]
    assert isinstance(split, Artefact)
    missing, widths = {}, set()
    for entity, table in (("user", "queries"), ("item", "catalogue")):
        vectors = draft.read(f"{entity}_vectors")
        widths |= set(vectors["vector"].list.len().unique())
        asked = split.table(table).select(entity).unique()
        missing[f"{entity}s"] = asked.join(vectors, on=entity, how="anti").height
    return Verdict(not any(missing.values()) and len(widths) == 1, f"widths {sorted(widths)}", missing)
