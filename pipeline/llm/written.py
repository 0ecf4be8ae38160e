"""Lists that a language model wrote, made orders: every list whole, and how its text was read.

the retriever's order + texts -> titles read against each list -> orders, and counts of each text
"""

from collections.abc import Mapping
from itertools import pairwise

import polars as pl

from pipeline.text.lists import read_list

ORDERS = {
    "track": pl.String,
    "part": pl.String,
    "user": pl.UInt32,
    "rank": pl.UInt32,
    "item": pl.UInt32,
    "score": pl.Float64,
    "target": pl.Boolean,
}
READ = {
    "part": pl.String,
    "user": pl.UInt32,
    "text": pl.String,
    "named": pl.UInt32,
    "again": pl.UInt32,
    "outside": pl.UInt32,
}


def read_lists(
    own: pl.DataFrame, written: Mapping[tuple[str, int], str], titles: Mapping[int, str], like: float
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Orders of all lists by what was written, filled up in the retriever's order, and how each text was read.

    own: the retriever's order (track, part, user, rank, item, target), sorted; written: (part, user) -> text;
    titles: item -> title as the model was told it. A score is how many candidates stand behind.
    """
    orders, read = [], []
    lists = own.group_by("track", "part", "user", maintain_order=True).agg("item", "target")
    for track, part, user, items, target in lists.iter_rows():
        found = read_list(written[part, user], [titles[item] for item in items], like)
        read.append((part, user, written[part, user], found.named, found.again, found.outside))
        orders += [
            (track, part, user, rank, items[place], float(len(items) - rank), target[place])
            for rank, place in enumerate(found.order, 1)
        ]
    return pl.DataFrame(orders, schema=ORDERS, orient="row"), pl.DataFrame(read, schema=READ, orient="row")


def how_read(read: pl.DataFrame, titles: int) -> dict[str, float | None]:
    """Of all titles written the shares that are valid (a candidate, for the first time), named again and
    outside the list; and of the first `titles` places the share that was filled up. None where there is
    nothing."""
    summed = read.select(valid="named", again="again", outside="outside").sum()
    counts = summed.cast(pl.Int64).row(0, named=True)
    whole = sum(counts.values())
    shares = {name: count / whole if whole else None for name, count in counts.items()}
    named = read["named"].clip(upper_bound=titles).sum()
    shares["filled_up"] = 1 - named / (titles * read.height) if read.height else None
    return {f"{name}_share": value if value is None else round(value, 6) for name, value in shares.items()}


def copied(orders: pl.DataFrame, read: pl.DataFrame, told: pl.DataFrame) -> float | None:
    """Share of neighbours among the named titles that stand side by side in the prompt's list too, in this
    order.

    1 for a model that copies a piece of the list; about 1 over its length for one that does not look at the
    order. orders: part, user, rank, item; read: part, user, named; told: part, user, candidates. None without
    neighbours.
    """
    key = ("part", "user")
    named = orders.join(read, on=key).filter(pl.col("rank") <= pl.col("named")).sort(*key, "rank")
    both = named.group_by(key, maintain_order=True).agg("item").join(told, on=key, maintain_order="left")
    beside = [
        pair in set(pairwise(candidates))
        for items, candidates in both.select("item", "candidates").iter_rows()
        for pair in pairwise(items)
    ]
    return round(sum(beside) / len(beside), 6) if beside else None
