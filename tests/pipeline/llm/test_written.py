"""Lists that a model wrote, made orders, by hand."""

import polars as pl
import pytest

from pipeline.llm.written import copied, how_read, read_lists

TITLES = {5: "Heat", 6: "Alien", 7: "Brazil"}
OWN = pl.DataFrame(
    [
        ("rerank/retrieved_5", "test", user, rank, item, item == 7)
        for user in (1, 2)
        for rank, item in enumerate((6, 5, 7), 1)
    ],
    schema={
        "track": pl.String,
        "part": pl.String,
        "user": pl.UInt32,
        "rank": pl.UInt32,
        "item": pl.UInt32,
        "target": pl.Boolean,
    },
    orient="row",
)
WRITTEN = {("test", 1): ' "Brazil", "Alien", "brazil", "Jaws"', ("test", 2): "nothing of it"}
ORDERS, READ = read_lists(OWN, WRITTEN, TITLES, 0.85)


def test_a_list_is_ordered_as_written_and_filled_up_in_the_retrievers_order() -> None:
    assert ORDERS.drop("track").rows() == [
        ("test", 1, 1, 7, 2.0, True),
        ("test", 1, 2, 6, 1.0, False),
        ("test", 1, 3, 5, 0.0, False),
        ("test", 2, 1, 6, 2.0, False),
        ("test", 2, 2, 5, 1.0, False),
        ("test", 2, 3, 7, 0.0, True),
    ]
    assert set(ORDERS["track"]) == {"rerank/retrieved_5"}


def test_what_was_written_is_kept_with_how_it_was_read() -> None:
    assert READ.drop("text").rows() == [("test", 1, 2, 1, 1), ("test", 2, 0, 0, 1)]
    assert READ["text"].to_list() == list(WRITTEN.values())


def test_shares_are_of_all_titles_and_of_the_first_places() -> None:
    found = how_read(READ, titles=2)
    assert found == {"valid_share": 0.4, "again_share": 0.2, "outside_share": 0.4, "filled_up_share": 0.5}
    assert set(how_read(READ.clear(), titles=2).values()) == {None}


@pytest.mark.parametrize(("told", "share"), [([7, 6, 5], 1.0), ([6, 7, 5], 0.0), ([7, 5, 6], 0.0)])
def test_what_is_copied_stands_side_by_side_in_the_prompt(told: list[int], share: float) -> None:
    prompts = pl.DataFrame(
        {"part": ["test", "test"], "user": [1, 2], "candidates": [told, told]},
        schema_overrides={"user": pl.UInt32, "candidates": pl.List(pl.UInt32)},
    )
    assert copied(ORDERS, READ, prompts) == share
    assert copied(ORDERS, READ.filter(user=2), prompts) is None
