"""What a click-through model reads of an example: categorical fields, a labelled history, dense vectors.

    split + items + users -> Fields: codes of users and items, pasts -> (with Dense) -> Asked

A field's codes are fitted on training alone: only values of users and items with training rows have a code of
their own. All others have code COLD, whose vector is the mean of the field's learnt ones; how many held-out
rows that concerns is counted. Having no value at all is a value. A dense vector, whatever it is of, joins as a
`Dense` for the users or the items, and a model reads it through one adaptor (`pipeline.ctr.adaptor`).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.collab.labelled import Known, held_out
from pipeline.collab.pasts import PAD, Items, liked_before

COLD = 0
MANY = 20  # different numbers of a profile field above which they are cut into tenths
Owner = Literal["user", "item"]
OWNERS: tuple[Owner, Owner] = ("user", "item")
Bools = NDArray[np.bool_]
YEAR = re.compile(r"\((\d{4})\)\s*$")


class Attribute(NamedTuple):
    """A categorical field of users or items: codes (n_owners, most) int64 below `size`, padded with PAD."""

    name: str
    of: Owner
    codes: NDArray[np.int64]
    size: int


class Fields(NamedTuple):
    """Attributes; of each example the last items (n, longest) int32, PAD on the right, and which it liked."""

    attributes: tuple[Attribute, ...]
    past: Items
    liked: Bools


class Dense(NamedTuple):
    """Vectors of some users or items: rows (n_vectors, width) float32; which of them each example reads (n,).

    An example that reads none has the number n_vectors.
    """

    rows: NDArray[np.float32]
    of_example: NDArray[np.int64]


def fields(examples: pl.LazyFrame, seen: Known, longest: int, tables: Sequence[pl.DataFrame] = ()) -> Fields:
    """Fields of a split's examples, in their order. tables: the dataset's items and users, for attributes."""
    return Fields(
        (*ids(seen), *(attribute for table in tables for attribute in attributes(table, seen))),
        *read_before(examples, seen.items, longest),
    )


def ids(seen: Known) -> tuple[Attribute, Attribute]:
    """Users and items themselves: a code each for those with training rows."""
    users, items = (np.where(known, np.cumsum(known), COLD)[:, None] for known in seen)
    return (
        Attribute("user", "user", users, int(seen.users.sum()) + 1),
        Attribute("item", "item", items, int(seen.items.sum()) + 1),
    )


def attributes(table: pl.DataFrame, seen: Known) -> list[Attribute]:
    """Categorical fields of a table `items` (categories, year of the title) or `users` (profile fields).

    A field that has one value for all is left out.
    """
    of: Owner = "item" if "item_id" in table.columns else "user"
    known = seen.items if of == "item" else seen.users
    rows = table.sort(of).head(len(known))
    found = [coded(name, of, values, known[: len(values)], len(known)) for name, values in values_of(rows, of)]
    return [one for one in found if one.size > 2]


def values_of(rows: pl.DataFrame, of: Owner) -> Iterable[tuple[str, list[list[str]]]]:
    """Name of each field and every owner's values in it."""
    if of == "item":
        yield "categories", [some or [] for some in rows["categories"].to_list()]
        yield "year", [YEAR.findall(title) for title in rows["title"]]
        return
    profiles = [profile(text) for text in rows["profile"]]
    for name in sorted({name for one in profiles for name in one}):
        yield name, [[one[name]] if name in one else [] for one in profiles]


def profile(text: str | None) -> dict[str, str]:
    """`age: 24, gender: M` as fields; none of null."""
    pairs = (part.partition(": ") for part in (text or "").split(", "))
    return {name: value for name, colon, value in pairs if colon}


def coded(name: str, of: Owner, values: list[list[str]], known: Bools, n: int) -> Attribute:
    """Values of each owner as codes: those of known owners from 1 in order of the text, all others COLD."""
    said = tenths([some or [""] for some in values], known)
    learnt = sorted({value for some, is_known in zip(said, known, strict=True) if is_known for value in some})
    code = {value: number for number, value in enumerate(learnt, 1)}
    rows = [[code.get(value, COLD) for value in some] for some in said]
    most = max(map(len, rows), default=1)
    padded = [row + [PAD] * (most - len(row)) for row in rows]
    padded += [[COLD] + [PAD] * (most - 1)] * (n - len(rows))  # owners that the table does not list
    return Attribute(name, of, np.array(padded, dtype=np.int64).reshape(n, most), len(learnt) + 1)


def tenths(values: list[list[str]], known: Bools) -> list[list[str]]:
    """Numbers of many kinds, such as ages, as tenths of the known owners; everything else as it is."""
    if any(len(some) != 1 for some in values):
        return values
    numbers = pl.Series([value for (value,) in values]).cast(pl.Float64, strict=False).to_numpy()
    told = numbers[known & np.isfinite(numbers)]
    if len(np.unique(told)) <= MANY or len(told) < known.sum() / 2:
        return values
    cuts = np.quantile(told, np.arange(1, 10) / 10)
    return [[str(np.searchsorted(cuts, x))] if np.isfinite(x) else [""] for x in numbers]


def read_before(examples: pl.LazyFrame, known_items: Bools, longest: int) -> tuple[Items, Bools]:
    """The last known items before each example (n, longest), liked or not, and which of them were liked."""
    both = examples.select(  # an item and its label as one number, all of them "liked"
        history=pl.col("history") * 2 + pl.col("history_labels").cast(pl.List(pl.UInt32)),
        history_labels=pl.col("history_labels").list.eval(pl.lit(1, pl.UInt8)),
    )
    found = liked_before(both, np.repeat(known_items, 2), longest)
    return np.where(found == PAD, PAD, found >> 1).astype(np.int32), (found != PAD) & (found & 1 == 1)


def cold_rows(examples: pl.DataFrame, found: Fields) -> dict[str, int]:
    """Held-out rows whose user's or item's value in a field was not learnt, for each field with some."""
    rows = held_out(examples)
    counts = {}
    for one in found.attributes:
        cold = (one.codes == COLD).any(1)[rows[one.of].to_numpy()]
        counts[f"cold_{one.name}_rows".replace(" ", "_")] = int(cold.sum())
    return {name: count for name, count in counts.items() if count}


def rows_of_owners(owners: NDArray[np.int64], of_example: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the vectors, one for each of `owners`, an example's own owner has; len(owners) for none."""
    most = max(int(owners.max(initial=-1)), int(of_example.max(initial=-1)))
    place = np.full(most + 1, len(owners), dtype=np.int64)
    place[owners] = np.arange(len(owners))
    return place[of_example]
