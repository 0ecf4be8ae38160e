"""The next_item track's split, by hand, by property and against planted faults."""

import polars as pl

from pipeline.data.next_item import (
    NextItemSettings,
    Split,
    catalogue_is_of_train,
    cold_ones_are_apart,
    facts,
    no_future,
    nothing_lost_or_doubled,
    split_up,
)
from pipeline.schema import Catalogue, Events, Interactions, Queries

KINDS = ("leave_last", "time", "random", "cold_item", "cold_user")
CHECKS = (no_future, nothing_lost_or_doubled, cold_ones_are_apart, catalogue_is_of_train)


def interactions(
    rows: list[tuple[int, int, int]], parts: str = "", ratings: list | None = None
) -> pl.DataFrame:
    """Rows of (user, item, at) in the order of the source; parts: a letter a row, as t, v, e."""
    named = {"t": "train", "v": "valid", "e": "test"}
    whole = pl.DataFrame(
        {
            "user": [row[0] for row in rows],
            "item": [row[1] for row in rows],
            "at": [row[2] for row in rows],
            "rating": ratings or [None] * len(rows),
            "part": [named[p] for p in parts] or [None] * len(rows),
        },
        schema_overrides={"rating": pl.Float32, "part": pl.String},
    )
    return Interactions.validate(whole.sort("at", maintain_order=True).with_row_index("row"), cast=True)


def split(rows: pl.DataFrame, n_items: int = 10, clock: str = "time", **settings) -> Split:
    items = pl.int_range(n_items, dtype=pl.UInt32, eager=True).alias("item")
    found = split_up(rows, items, NextItemSettings(**settings), clock)
    return found._replace(
        events=Events.validate(found.events, cast=True),
        queries=Queries.validate(found.queries, cast=True),
        catalogue=Catalogue.validate(found.catalogue, cast=True),
    )


def asked(found: Split) -> list[tuple]:
    """Queries as (part, user, at, history, targets)."""
    return found.queries.rows()


TWO_USERS = [(0, 1, 10), (1, 2, 11), (0, 3, 12), (1, 4, 13), (0, 5, 14), (1, 6, 15), (0, 7, 16), (2, 8, 17)]


# --- leave_last


def test_the_last_event_is_test_the_one_before_valid_and_short_users_are_only_learnt_from() -> None:
    found = split(interactions(TWO_USERS))
    assert asked(found) == [
        ("test", 0, 16, [1, 3, 5], [7]),
        ("test", 1, 15, [2, 4], [6]),
        ("valid", 0, 14, [1, 3], [5]),
        ("valid", 1, 13, [2], [4]),
    ]
    assert found.events["part"].to_list() == ["train"] * 3 + ["valid", "valid", "test", "test", "train"]


def test_events_of_one_moment_stand_in_the_order_of_the_source() -> None:
    found = split(interactions([(0, 3, 5), (0, 1, 5), (0, 2, 5), (0, 4, 5)]))
    assert asked(found) == [("test", 0, 5, [3, 1, 2], [4]), ("valid", 0, 5, [3, 1], [2])]
    assert facts(found)["test_queries_at_a_shared_moment"] == 1


def test_an_order_counted_per_user_is_enough() -> None:
    found = split(
        interactions([(0, 1, 0), (1, 2, 0), (0, 3, 1), (1, 4, 1), (0, 5, 2), (1, 6, 2)]), clock="order"
    )
    assert [row[4] for row in asked(found)] == [[5], [6], [3], [4]]
