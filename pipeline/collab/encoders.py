"""Collaborative models as encoders: the vectors that a language model reads in place of an id.

    a fitted model -> vectors.safetensors (user, item, user_of_row) -> vectors_of -> Encoded

| model | a user's vector | numbers |
| --- | --- | --- |
| mf | the user's: [factors, bias, 1]; an item's is [factors, 1, bias] | dim + 2 |
| ctr/lightgcn | the user's, averaged over the graph | dim |
| ctr/sasrec | the state after what the user had liked before the example | dim |
| ctr/din | of the example: [target item, attended past, user]; an item's is its vector three times | 3 dim |

With the biases of mf in its vectors, nothing that it learnt of an id is lost to who reads them, and a product
is the logit less one offset for all. The last two know the example, so a user has several vectors, and
`user_of_row` says which is whose. Examples of one user (mf, lightgcn) or with one liked past (sasrec) share a
row, so that what is equal can be seen by its number. Cold users and items have the mean vector.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.stage import Artefact, Draft, Input, Verdict

if TYPE_CHECKING:
    from torch import Tensor

FILE = "vectors"


class Encoded(NamedTuple):
    """Users (u, d) and items (n_items, d) float32; the row of `user` of each example (n_examples,) int64.

    Examples are counted in the order of the split's table.
    """

    user: NDArray[np.float32]
    item: NDArray[np.float32]
    user_of_row: NDArray[np.int64]

    def users_of(self, examples: pl.DataFrame, rows: pl.Series) -> pl.Series:
        """The row of `user` of each wanted `rows` (m,), numbers of the column `row` of the split's examples.

        Raises KeyError for a row that is no example.
        """
        held = examples.select("row", user_vector=pl.Series(self.user_of_row))
        found = rows.to_frame("row").join(held, on="row", how="left", maintain_order="left")["user_vector"]
        if found.null_count():
            raise KeyError(f"{found.null_count()} rows are no examples of the split")
        return found


def vectors_of(fitted: Artefact) -> Encoded:
    """The vectors that a finished encoder holds."""
    held = fitted.tensors(FILE)
    return Encoded(*(held[name].numpy() for name in Encoded._fields))


def write_vectors(out: Draft, encoded: Encoded) -> None:
    """Write the vectors. Raises ValueError where one is not finite."""
    tensors = as_tensors(encoded)
    for name in ("user", "item"):
        if not tensors[name].isfinite().all():
            raise ValueError(f"vectors of {name}s are not finite; a lower `lr` may help")
    out.tensors(FILE, tensors)


def as_tensors(encoded: Encoded) -> "dict[str, Tensor]":
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in encoded._asdict().items()}


def every_example_has_vectors(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """Each example has a user's vector and an item's, all of one width, and no user's vector is of nobody."""
    from safetensors.numpy import load_file

    split = inputs["split"]
    assert isinstance(split, Artefact)
    items = split.scan("examples").select("item").collect()["item"].to_numpy()
    held = Encoded(**load_file(draft.file(f"{FILE}.safetensors")))
    return judged(held, items)


def judged(held: Encoded, items: NDArray[Any]) -> Verdict:
    """Whether the vectors fit examples of these items (n_examples,)."""
    of, users, widths = held.user_of_row, len(held.user), {held.user.shape[1], held.item.shape[1]}
    said = []
    if len(of) != len(items):
        said.append(f"{len(of)} examples have vectors, the split has {len(items)}")
    if len(items) and items.max() >= len(held.item):
        said.append(f"item {items.max()} has no vector")
    if len(of) and not 0 <= of.min() <= of.max() < users:
        said.append("an example points at no vector")
    if len(widths) > 1:
        said.append(f"widths differ: {sorted(widths)}")
    return Verdict(not said, "; ".join(said), {"user_vectors": users, "width": max(widths)})
