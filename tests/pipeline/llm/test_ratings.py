"""Ratings of what a history holds, by hand."""

import polars as pl

from pipeline.llm.ratings import history_ratings, notes

USES = {"row": pl.UInt32, "user": pl.UInt32, "item": pl.UInt32, "at": pl.Int64, "rating": pl.Float32}


def uses(*rows: tuple) -> pl.DataFrame:
    """(user, item, at, rating), numbered."""
    return pl.DataFrame([(n, *row) for n, row in enumerate(rows)], schema=USES, orient="row")


def example(user: int, at: int, *history: int) -> dict:
    return {"user": user, "at": at, "history": list(history)}


def examples(*rows: dict) -> pl.DataFrame:
    schema = {"user": pl.UInt32, "at": pl.Int64, "history": pl.List(pl.UInt32)}
    return pl.DataFrame(list(rows), schema=schema)


def test_each_item_has_its_own_users_rating() -> None:
    given = uses((1, 7, 10, 4.0), (2, 7, 11, 1.0), (1, 8, 12, 2.5), (1, 9, 13, None))
    found = history_ratings(examples(example(1, 20, 7, 8, 9), example(2, 20, 7), example(2, 5)), given)
    assert found.to_list() == [[4.0, 2.5, None], [1.0], []]


def test_no_rating_of_its_moment_or_later_is_told() -> None:
    given = uses((1, 7, 10, 4.0), (1, 7, 20, 1.0), (1, 7, 30, 2.0))
    assert history_ratings(examples(example(1, 20, 7)), given).to_list() == [[4.0]]
    assert history_ratings(examples(example(1, 21, 7)), given).to_list() == [[1.0]]
    assert history_ratings(examples(example(1, 10, 7)), given).to_list() == [[None]]


def test_an_item_used_twice_has_both_ratings_in_order() -> None:
    given = uses((1, 7, 10, 4.0), (1, 8, 11, 3.0), (1, 7, 12, 1.0))
    assert history_ratings(examples(example(1, 20, 7, 8, 7)), given).to_list() == [[4.0, 3.0, 1.0]]
    assert history_ratings(examples(example(1, 20, 8, 7)), given).to_list() == [
        [3.0, 1.0]
    ]  # a history cut short


def test_ratings_read_as_stars_and_what_has_none_as_liked_or_not() -> None:
    labels = pl.Series([[1, 1, 0], [], [0, 1]], dtype=pl.List(pl.UInt8))
    ratings = pl.Series([[5.0, 3.5, 1.0], [], [None, None]], dtype=pl.List(pl.Float32))
    assert notes(labels, ratings).to_list() == [["5 stars", "3.5 stars", "1 star"], [], ["disliked", "liked"]]
