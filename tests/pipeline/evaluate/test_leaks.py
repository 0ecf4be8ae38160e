"""Leakage guards, each seen to catch the leak that it is there for."""

import polars as pl
import pytest

from pipeline.evaluate import leaks

INTERACTIONS = pl.DataFrame(
    {"user": [1, 1, 1, 1, 2], "item": [10, 11, 12, 10, 13], "at": [100, 200, 300, 400, 250]},
    schema={"user": pl.UInt32, "item": pl.UInt32, "at": pl.Int64},
)
EXAMPLES = pl.DataFrame(
    {"row": [2, 3, 4], "user": [1, 1, 2], "item": [12, 10, 13], "label": [1, 0, 1], "at": [300, 400, 250]},
    schema={"row": pl.UInt32, "user": pl.UInt32, "item": pl.UInt32, "label": pl.UInt8, "at": pl.Int64},
)


def prompts(*shown: list[int]) -> pl.DataFrame:
    lists = pl.Series("shown", list(shown), dtype=pl.List(pl.UInt32))
    return EXAMPLES.select("row", "user", "item").with_columns(lists)


def test_a_past_of_the_past_is_no_leak() -> None:
    good = prompts([10, 11], [10, 11, 12], [])
    assert leaks.shown_too_early(good, EXAMPLES, INTERACTIONS).is_empty()


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        ([10, 12], (2, 1, 12)),  # the target itself, used at the same moment
        ([11, 13], (2, 1, 13)),  # another user's item
        ([99], (2, 1, 99)),  # an item that nobody ever used
    ],
)
def test_an_item_from_elsewhere_or_later_is_named(shown: list[int], fault: tuple[int, int, int]) -> None:
    found = leaks.shown_too_early(prompts(shown, [], []), EXAMPLES, INTERACTIONS)
    assert found.rows() == [fault]


def test_an_item_of_the_same_moment_is_a_leak() -> None:
    same = INTERACTIONS.with_columns(at=pl.lit(300, pl.Int64))
    assert leaks.shown_too_early(prompts([11], [], []), EXAMPLES, same).rows() == [(2, 1, 11)]


def test_a_target_in_its_own_history_is_a_leak_unless_used_before() -> None:
    used_before = prompts([], [10, 11], [])
    assert leaks.targets_shown(used_before).rows() == [(3, 1, 10)]
    assert leaks.targets_leaked(used_before, EXAMPLES, INTERACTIONS).is_empty()
    leaked = prompts([12], [10], [13])
    assert leaks.targets_leaked(leaked, EXAMPLES, INTERACTIONS).rows() == [(2, 1, 12), (4, 2, 13)]


FORM = {"form": pl.lit(1, pl.UInt8), "vectors": pl.concat_list(pl.lit(7, pl.UInt32))}


def honest(examples: pl.DataFrame) -> pl.DataFrame:
    text = pl.format("will {} like {}?", "user", "item")
    return examples.select("row", "label", prompt=text).with_columns(**FORM)


def test_labels_that_are_not_read_move_nothing() -> None:
    assert leaks.moved_by_labels(honest, EXAMPLES, honest(EXAMPLES)).is_empty()


def test_a_prompt_that_reads_one_label_is_found() -> None:
    def leaky(examples: pl.DataFrame) -> pl.DataFrame:
        hint = pl.when(row=3).then(pl.col("label").cast(pl.String)).otherwise(pl.lit(""))
        return honest(examples).with_columns(prompt=pl.concat_str("prompt", hint))

    assert leaks.moved_by_labels(leaky, EXAMPLES, leaky(EXAMPLES))["row"].to_list() == [3]


def test_a_vector_that_hangs_on_one_label_is_found() -> None:
    def leaky(examples: pl.DataFrame) -> pl.DataFrame:
        shown = pl.when(row=3).then(pl.col("label").cast(pl.UInt32)).otherwise(pl.lit(7, pl.UInt32))
        return honest(examples).with_columns(vectors=pl.concat_list(shown))

    assert leaks.moved_by_labels(leaky, EXAMPLES, leaky(EXAMPLES))["row"].to_list() == [3]


def test_a_row_that_comes_or_goes_with_the_labels_is_found() -> None:
    def likes_only(examples: pl.DataFrame) -> pl.DataFrame:
        return honest(examples.filter(label=1))

    moved = leaks.moved_by_labels(likes_only, EXAMPLES, likes_only(EXAMPLES))
    assert sorted(moved["row"]) == [2, 3, 4]


# --- labels that histories show

USED = pl.DataFrame(
    {"row": range(7), "user": [1, 1, 1, 1, 2, 1, 2], "item": [10, 11, 10, 12, 12, 13, 14]},
    schema={"row": pl.UInt32, "user": pl.UInt32, "item": pl.UInt32},
)
PARTS = pl.Series("part", ["train", "train", "valid", "valid", "train", "test", "test"])
TYPES = {"history": pl.List(pl.UInt32), "history_labels": pl.List(pl.UInt8)}


def shown(*histories: list[int]) -> pl.DataFrame:
    """Examples of USED with these histories, every item liked."""
    lists = {"history": list(histories), "history_labels": [[1] * len(one) for one in histories]}
    return USED.with_columns(PARTS, **{n: pl.Series(v, dtype=TYPES[n]) for n, v in lists.items()}, label=0)


HONEST = shown([], [10], [10, 11], [10, 11], [], [10, 11], [12])
LEAKY = shown([], [10], [10, 11], [10, 11, 10], [], [10, 11, 10, 12], [12])


def test_labels_of_train_are_left_in_histories() -> None:
    assert leaks.with_held_out_turned(HONEST, USED, HONEST["row"]).equals(HONEST)


def test_labels_of_held_out_uses_are_turned_a_second_use_of_an_item_too() -> None:
    turned = leaks.with_held_out_turned(LEAKY, USED, LEAKY["row"])
    assert turned["history_labels"].to_list() == [[], [1], [1, 1], [1, 1, 0], [], [1, 1, 0, 0], [1]]
    assert turned.drop("history_labels").equals(LEAKY.drop("history_labels"))
    assert turned.schema == LEAKY.schema


def test_a_drawn_negative_of_train_does_not_make_an_item_one_of_train() -> None:
    drawn = HONEST.head(1).with_columns(row=pl.lit(99, pl.UInt32), item=pl.lit(12, pl.UInt32))
    both = pl.concat([LEAKY, drawn])
    turned = leaks.with_held_out_turned(both, USED, both["row"])
    assert turned["history_labels"].to_list()[5] == [1, 1, 0, 0]


def test_histories_of_rows_that_nobody_asks_about_are_left() -> None:
    turned = leaks.with_held_out_turned(LEAKY, USED, pl.Series([5]))
    assert turned["history_labels"].to_list() == [[], [1], [1, 1], [1, 1, 1], [], [1, 1, 0, 0], [1]]


def tells_likes(examples: pl.DataFrame) -> pl.DataFrame:
    told = pl.col("history_labels").list.sum().cast(pl.String)
    return examples.select("row", prompt=told).with_columns(**FORM)


def test_a_prompt_that_shows_a_held_out_label_is_found_where_histories_are_of_train() -> None:
    moved = leaks.moved_by_labels(tells_likes, LEAKY, tells_likes(LEAKY), USED)
    assert sorted(moved["row"]) == [3, 5]
    assert leaks.moved_by_labels(tells_likes, HONEST, tells_likes(HONEST), USED).is_empty()
    assert leaks.moved_by_labels(tells_likes, LEAKY, tells_likes(LEAKY)).is_empty()


def of_the_row_before(examples: pl.DataFrame) -> pl.DataFrame:
    """What a shuffled control might do: each prompt shows the past of another that is asked about."""
    told = tells_likes(examples)
    return told.with_columns(pl.col("prompt").shift(1, fill_value="none"))


def test_a_label_in_a_history_that_another_prompt_shows_is_found_in_a_sample() -> None:
    sample = of_the_row_before(LEAKY).filter(pl.col("row") == 6)
    make = lambda turned: of_the_row_before(turned).filter(pl.col("row") == 6)  # noqa: E731
    assert leaks.moved_by_labels(make, LEAKY, sample, USED, LEAKY["row"])["row"].to_list() == [6]
