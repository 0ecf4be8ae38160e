import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.negatives import mixed, with_negatives

TYPES = {
    "row": pl.UInt32,
    "part": pl.String,
    "user": pl.UInt32,
    "item": pl.UInt32,
    "label": pl.UInt8,
    "at": pl.Int64,
}


def frame(rows: list[tuple[str, int, int, int]]) -> pl.DataFrame:
    """Likes of (part, user, item, at), numbered as they come."""
    return pl.DataFrame([(i, p, u, x, 1, t) for i, (p, u, x, t) in enumerate(rows)], schema=TYPES, orient="row")


def drawn(rows: pl.DataFrame, clock: str = "time", per_positive: int = 1, seed: int = 1) -> pl.DataFrame:
    found = with_negatives(rows, clock, per_positive, seed)
    assert found.head(rows.height).equals(rows)
    return found.slice(rows.height)


def test_a_negative_was_there_before_and_was_not_used_by_the_user() -> None:
    rows = frame([("train", 0, 7, 1), ("train", 1, 8, 2), ("test", 0, 9, 3)])
    found = drawn(rows)
    # nothing was there before the first; user 1 may get 7; user 0 has used 7, so 8 is left
    assert found.select("row", "part", "user", "item", "label", "at").rows() == [
        (3, "train", 1, 7, 0, 2),
        (4, "test", 0, 8, 0, 3),
    ]


def test_an_item_of_the_same_moment_was_not_there_before() -> None:
    assert drawn(frame([("train", 0, 7, 1), ("train", 1, 8, 1)])).is_empty()


def test_an_item_that_the_user_takes_later_may_be_drawn() -> None:
    rows = frame([("train", 1, 8, 1), ("train", 0, 7, 2), ("test", 0, 8, 3)])
    assert drawn(rows).filter(pl.col("at") == 2)["item"].to_list() == [8]


def test_a_user_who_used_everything_gets_none() -> None:
    rows = frame([("train", 0, 7, 1), ("train", 0, 8, 2), ("train", 0, 7, 3)])
    assert drawn(rows).is_empty()


def test_with_an_order_only_items_of_train_are_drawn() -> None:
    rows = frame([("train", 0, 1, 0), ("train", 1, 2, 0), ("test", 0, 3, 1), ("test", 1, 4, 1)])
    found = drawn(rows, "order", 8)
    assert set(found["item"]) <= {1, 2}
    assert found.filter(pl.col("user") == 0)["item"].unique().to_list() == [2]


def many(users: int = 40, items: int = 60) -> pl.DataFrame:
    draw = np.random.default_rng(3)
    return frame([("train", int(draw.integers(users)), int(draw.integers(items)), t) for t in range(600)])


def test_several_for_each_like_are_different_items() -> None:
    found = drawn(many(), per_positive=3)
    late = found.filter(pl.col("at") > 300).group_by("user", "at").agg(pl.len(), pl.col("item").n_unique())
    assert (late["len"] == late["item"]).all()
    assert late["len"].mean() > 2.7  # type: ignore[operator]


def test_the_same_seed_draws_the_same_and_another_draws_others() -> None:
    assert drawn(many()).equals(drawn(many()))
    assert not drawn(many(), seed=2)["item"].equals(drawn(many())["item"])


def test_the_order_of_rows_changes_no_draw() -> None:
    rows = many()
    shuffled = rows.sample(fraction=1, shuffle=True, seed=5)
    keys = ["user", "at", "item"]
    assert drawn(rows).select(keys).sort(keys).equals(drawn(shuffled).select(keys).sort(keys))


def test_draws_are_even_over_what_was_there() -> None:
    rows = frame([("train", 0, item, 0) for item in range(10)] + [("test", 1, 3, 1 + t) for t in range(2000)])
    counts = drawn(rows).filter(pl.col("user") == 1)["item"].value_counts().sort("item")
    assert counts["item"].to_list() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert counts["count"].is_between(170, 280).all()


rows_of = st.lists(
    st.tuples(st.just("train"), st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)), min_size=1
)


@given(rows_of, st.integers(1, 3), st.integers(0, 5))
def test_no_negative_was_used_or_unknown_at_its_moment(likes, per_positive: int, seed: int) -> None:
    rows = frame(sorted(likes, key=lambda row: row[3]))
    found = drawn(rows, per_positive=per_positive, seed=seed)
    for user, item, at in found.select("user", "item", "at").iter_rows():
        assert not any(u == user and i == item and t <= at for _, u, i, t in likes)
        assert any(i == item and t < at for _, _, i, t in likes)
    assert found.height <= per_positive * len(likes)
    assert found["row"].to_list() == list(range(rows.height, rows.height + found.height))


def by_hand(seed: int, *numbers: int) -> int:
    """SplitMix64 in plain whole numbers (Steele, Lea and Flood, OOPSLA 2014)."""
    state, cut = seed, 2**64
    for number in numbers:
        state = ((state ^ (number % cut)) + 0x9E3779B97F4A7C15) % cut
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % cut
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % cut
        state ^= state >> 31
    return state


@given(st.integers(0, 2**32), st.integers(-(2**62), 2**62), st.integers(0, 2**32 - 1))
def test_the_hash_is_the_same_on_every_machine(seed: int, at: int, item: int) -> None:
    found = mixed(seed, np.array([at]), np.array([item], dtype=np.uint32))
    assert found.tolist() == [by_hand(seed, at, item)]
