"""Which items of a past are shown: by hand, and what the check of it finds."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.retrieval import chances, highest, misplaced, retrieval_check, similarities

ITEMS = pl.Series([0, 1, 2, 5], dtype=pl.UInt32)
VECTORS = np.array([[1, 0], [0, 2], [1, 1], [-3, 0]], dtype=np.float32)
LISTS = {"items": pl.List(pl.UInt32), "labels": pl.List(pl.UInt8), "notes": pl.List(pl.String)}


def past(*items: list[int]) -> pl.DataFrame:
    rows = [(own, [i % 2 for i in own], [f"note {i}" for i in own]) for own in items]
    return pl.DataFrame(rows, schema=LISTS, orient="row")


def test_similarities_are_cosines_with_ones_own_target() -> None:
    found = similarities(past([1, 2, 5], [], [0]), pl.Series([0, 0, 5], dtype=pl.UInt32), ITEMS, VECTORS)
    assert found.tolist() == pytest.approx([0, np.sqrt(0.5), -1, -1], abs=1e-6)


def test_an_item_without_a_vector_is_named() -> None:
    with pytest.raises(ValueError, match="item 4 has no vector"):
        similarities(past([4]), pl.Series([0], dtype=pl.UInt32), ITEMS, VECTORS)
    with pytest.raises(ValueError, match="item 9 has no vector"):
        similarities(past([0]), pl.Series([9], dtype=pl.UInt32), ITEMS, VECTORS)


def test_the_highest_are_kept_in_order_of_time_or_of_their_number() -> None:
    rows, number = past([10, 11, 12, 13], [], [20]), np.array([0.9, 0.1, 0.5, 0.7, -0.3])
    assert highest(rows, number, 3, "time")["items"].to_list() == [[10, 12, 13], [], [20]]
    assert highest(rows, number, 3, "similarity")["items"].to_list() == [[12, 13, 10], [], [20]]
    assert highest(rows, number, 0, "time")["items"].to_list() == [[], [], []]


def test_what_stands_beside_an_item_goes_along() -> None:
    found = highest(past([10, 11, 12]), np.array([0.3, 0.2, 0.9]), 2, "similarity")
    assert found.rows() == [([10, 12], [0, 0], ["note 10", "note 12"])]
    assert found.schema == past([]).schema


def test_of_equals_the_later_one_is_kept() -> None:
    rows, number = past([10, 11, 12]), np.zeros(3)
    assert highest(rows, number, 2, "time")["items"].to_list() == [[11, 12]]
    assert highest(rows, number, 2, "similarity")["items"].to_list() == [[11, 12]]


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5), st.integers(0, 7))
def test_everything_fits_into_a_long_enough_list(items: list[list[int]], longest: int) -> None:
    rows = past(*items)
    number = np.arange(sum(map(len, items)))[::-1]
    kept = highest(rows, number, longest, "time")
    assert kept["items"].to_list() == [own[:longest] for own in items]  # the earlier the higher
    assert highest(rows, number, 9, "time").equals(rows)


def test_chance_hangs_on_seed_row_and_place_only() -> None:
    both = chances(past([1, 2], [3, 4, 5]), pl.Series([7, 8], dtype=pl.UInt32), seed=1)
    alone = chances(past([6, 6, 6]), pl.Series([8], dtype=pl.UInt32), seed=1)
    assert both[2:].tolist() == alone.tolist()
    assert len(set(both.tolist())) == 5
    assert (
        both.tolist() != chances(past([1, 2], [3, 4, 5]), pl.Series([7, 8], dtype=pl.UInt32), seed=2).tolist()
    )


SIMILAR = pl.DataFrame(
    {"item": [0] * 3, "neighbour": [1, 2, 3], "similarity": [0.9, 0.8, 0.7]},
    schema={"item": pl.UInt32, "neighbour": pl.UInt32, "similarity": pl.Float32},
)
HISTORIES = pl.DataFrame(
    {"row": [4], "history": [[9, 3, 2, 1, 8]]}, schema={"row": pl.UInt32, "history": LISTS["items"]}
)


def prompts(shown: list[int], item: int = 0, form: int = 1, dropped: int = 0) -> pl.DataFrame:
    rows = {"row": [4], "item": [item], "shown": [shown], "form": [form], "items_dropped": [dropped]}
    return pl.DataFrame(rows, schema_overrides={"row": pl.UInt32, "item": pl.UInt32, "shown": LISTS["items"]})


@pytest.mark.parametrize(
    ("shown", "longest", "at_fault"),
    [
        ([2, 1], 2, False),
        ([1, 2], 2, False),  # the order is the variant's own
        ([3, 1], 2, True),  # 2 is nearer than 3
        ([2, 8], 2, True),  # 8 is not even among the neighbours
        ([3, 2, 1, 8], 4, False),  # of two that are not neighbours either may stand
        ([1], 2, True),  # too few
        ([9, 3, 2, 1, 8], 7, False),
    ],
)
def test_a_wrong_retrieval_is_found(shown: list[int], longest: int, at_fault: bool) -> None:
    assert misplaced(prompts(shown), HISTORIES, SIMILAR, longest)["row"].to_list() == [4] * at_fault
    draft = SimpleNamespace(read=lambda name: prompts(shown), variant="retrieved")
    assert judge(draft, longest).passed != at_fault


def judge(draft: SimpleNamespace, longest: int):
    inputs = {
        "split": SimpleNamespace(scan=lambda name: HISTORIES.lazy()),
        "similar": SimpleNamespace(scan=lambda name: SIMILAR.lazy()),
    }
    return retrieval_check(("retrieved",)).run(draft, inputs, SimpleNamespace(history=longest))  # type: ignore[arg-type]


def test_the_target_itself_is_the_nearest() -> None:
    again = pl.concat([SIMILAR, SIMILAR.with_columns(item=pl.lit(8, pl.UInt32))])
    assert misplaced(prompts([2, 8], item=8), HISTORIES, again, 2)["row"].to_list() == [4]  # 1 is nearer than 2
    assert misplaced(prompts([1, 8], item=8), HISTORIES, again, 2).is_empty()
    assert misplaced(prompts([1, 2], item=8), HISTORIES, again, 2)["row"].to_list() == [4]


def test_controls_second_forms_and_cut_prompts_are_not_judged() -> None:
    wrong = prompts([9, 8])
    for table, variant in (
        (wrong, "recent"),
        (prompts([9, 8], form=2), "retrieved"),
        (prompts([9], dropped=1), "retrieved"),
    ):
        assert judge(SimpleNamespace(read=lambda name, table=table: table, variant=variant), 2).passed
    assert not judge(SimpleNamespace(read=lambda name: wrong, variant="retrieved"), 2).passed
