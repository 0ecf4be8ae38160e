from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data import splits
from pipeline.data.histories import Histories, slices
from pipeline.data.splits import (
    SplitError,
    SplitSettings,
    capped,
    examples,
    no_future,
    nothing_lost_or_doubled,
    past,
    timeline,
    two_classes,
)
from pipeline.schema import Examples, Interactions
from pipeline.stage import StageFailed
from tests.pipeline.data.project import Project

LIKES = {"like_at_least": 4}


def interactions(rows: list[tuple], part: str | None = None) -> pl.DataFrame:
    """Rows of (user, item, rating, at), in the order of time."""
    whole = [(i, *row, part) for i, row in enumerate(sorted(rows, key=lambda row: row[3]))]
    columns = ["row", "user", "item", "rating", "at", "part"]
    types = {"part": pl.String, "rating": pl.Float32}
    return Interactions.validate(
        pl.DataFrame(whole, schema=columns, schema_overrides=types, orient="row"), cast=True
    )


def split(rows: pl.DataFrame, clock: str = "time", **settings) -> pl.DataFrame:
    chosen = SplitSettings(**{**LIKES, **settings})
    found, known = examples(rows, chosen, clock)
    whole = pl.concat(Histories(found, past(known, chosen), chosen.history).beside(found))
    return Examples.validate(whole, cast=True)


TEN = [(n % 2, n, 1 + n % 5, 100 + n) for n in range(10)]


# --- parts


def test_the_latest_rows_are_the_test_part_and_those_before_the_valid_part() -> None:
    found = split(interactions(TEN), valid_share=0.2, test_share=0.3)
    assert found["part"].to_list() == ["train"] * 5 + ["valid"] * 2 + ["test"] * 3
    assert found["label"].to_list() == [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]


def test_rows_of_the_very_moment_of_a_cut_go_to_the_later_part() -> None:
    rows = [(0, n, 5, at) for n, at in enumerate([1, 2, 3, 3, 3, 4, 5, 5, 5, 6])]
    found = split(interactions(rows), valid_share=0.3, test_share=0.2)
    assert found["part"].to_list() == ["train"] * 5 + ["valid"] + ["test"] * 4
    assert found.filter(part="valid")["at"].to_list() == [4]


def test_rows_that_cannot_be_cut_say_so() -> None:
    with pytest.raises(SplitError, match=r"no row falls into train.*10 rows have only 1 different times"):
        split(interactions([(0, n, 5, 1) for n in range(10)]))


def test_shares_must_leave_something_to_learn_from() -> None:
    with pytest.raises(ValidationError, match="leave nothing to learn from"):
        SplitSettings(valid_share=0.5, test_share=0.5)


def test_a_published_split_is_taken_as_it_is() -> None:
    rows = interactions(TEN).with_columns(part=pl.Series(["train", "test"] * 4 + ["valid", "valid"]))
    assert split(rows, kind="published")["part"].to_list() == rows["part"].to_list()


def test_a_published_split_that_is_not_there_names_the_setting() -> None:
    with pytest.raises(SplitError, match=r"name its column in data\.dataset\.interactions\.columns\.part"):
        split(interactions(TEN), kind="published")


def test_an_order_counted_per_user_is_not_cut_at_one_moment() -> None:
    rows = [(user, place, 5, place) for user in range(6) for place in range(5)]
    with pytest.raises(SplitError, match=r"30 rows share 5 places of it.*use kind: per_user"):
        split(interactions(rows), clock="order")
    assert split(interactions(TEN), clock="order")["part"].n_unique() == 3


def test_per_user_the_last_rows_of_each_are_held_out() -> None:
    rows = (
        [(0, n, 1 + n % 5, n) for n in range(10)]
        + [(1, n, 5, n) for n in range(3)]
        + [(2, 0, 5, 0), (2, 1, 5, 9)]
    )
    found = split(interactions(rows), clock="order", kind="per_user")
    parts = found.sort("user", "at").group_by("user", maintain_order=True).agg("part")["part"].to_list()
    assert parts == [["train"] * 8 + ["valid", "test"], ["train", "valid", "test"], ["train", "train"]]


def test_of_users_split_apart_the_second_half_is_held_out_and_moments_stay_whole() -> None:
    counts = {user: 5 for user in range(10)}
    rows = [(user, n, 1 + n % 5, n) for user, many in counts.items() for n in range(many)]
    found = split(interactions(rows), clock="order", kind="users", valid_share=0.2, test_share=0.3)
    by_user = found.sort("user", "at").group_by("user", maintain_order=True).agg("part")["part"].to_list()
    assert sorted(by_user) == sorted(
        [["train"] * 5] * 5 + [["train"] * 3 + ["valid"] * 2] * 2 + [["train"] * 3 + ["test"] * 2] * 3
    )
    tied = [(user, n, 1 + n % 5, (0, 1, 1, 1, 2, 3)[n]) for user in range(3) for n in range(6)]
    found = split(interactions(tied), kind="users", valid_share=0.3, test_share=0.3)
    assert set(found.filter(part="test")["at"]) == set(found.filter(part="valid")["at"]) == {2, 3}


# --- labels


def test_ratings_without_a_bound_say_what_they_are() -> None:
    with pytest.raises(SplitError, match="ratings run from 1 to 5: set like_at_least"):
        split(interactions(TEN), like_at_least=None)


def test_rows_without_ratings_need_negatives() -> None:
    rows = interactions([(u, i, None, t) for u, i, _, t in TEN])
    with pytest.raises(SplitError, match="set negatives_per_positive"):
        split(rows)
    found = split(rows, negatives_per_positive=1, valid_share=0.2, test_share=0.3)
    assert found.filter(pl.col("row") < 10)["label"].to_list() == [1] * 10
    drawn = found.filter(pl.col("row") >= 10)
    assert drawn["label"].unique().to_list() == [0]
    assert set(drawn["part"]) == {"train", "valid", "test"}
    assert drawn["history"].list.len().min() == 0


def test_a_drawn_negative_has_the_history_of_its_moment_and_stands_in_none() -> None:
    rows = interactions([(u, i, None, t) for u, i, _, t in TEN])
    found = split(rows, negatives_per_positive=2)
    real = {
        (u, t): h for u, t, h in found.filter(pl.col("row") < 10).select("user", "at", "history").iter_rows()
    }
    for user, at, history in found.filter(pl.col("row") >= 10).select("user", "at", "history").iter_rows():
        assert history == real[user, at]


# --- what histories are made of


def by_row(found: pl.DataFrame, column: str = "history") -> dict[int, list[int]]:
    return dict(found.select("row", column).iter_rows())


def test_by_default_a_held_out_row_shows_what_train_holds_and_no_more() -> None:
    rows = interactions([(0, n, 1 + n % 5, n) for n in range(10)])
    found = split(rows, valid_share=0.2, test_share=0.3)
    assert by_row(found)[3] == [0, 1, 2]
    assert {row: by_row(found)[row] for row in range(5, 10)} == {row: [0, 1, 2, 3, 4] for row in range(5, 10)}
    assert by_row(found, "history_labels")[9] == [0, 0, 0, 1, 1]


def test_any_shows_earlier_held_out_rows_with_their_labels() -> None:
    rows = interactions([(0, n, 1 + n % 5, n) for n in range(10)])
    found = split(rows, valid_share=0.2, test_share=0.3, history_from="any")
    assert by_row(found)[9] == list(range(9))
    assert by_row(found, "history_labels")[9] == [0, 0, 0, 1, 1, 0, 0, 0, 1]


def test_a_published_split_whose_parts_overlap_in_time_shows_train_only_to_train_rows_too() -> None:
    rows = interactions([(0, n, 5, n) for n in range(6)])
    parts = pl.Series("part", ["train", "test", "train", "valid", "train", "test"])
    found = split(rows.with_columns(parts), kind="published")
    assert by_row(found) == {0: [], 1: [0], 2: [0], 3: [0, 2], 4: [0, 2], 5: [0, 2, 4]}


def test_the_shortest_history_counts_what_histories_may_hold() -> None:
    rows = interactions([(u, i, 5, t) for u, i, _, t in TEN])
    assert split(rows, min_history=4, valid_share=0.2, test_share=0.3)["part"].to_list() == ["train"] * 5
    assert split(rows, min_history=3, valid_share=0.2, test_share=0.3).filter(part="test")[
        "user"
    ].to_list() == [0]


# --- what was seen, and caps


def test_seen_counts_are_of_the_train_part_only() -> None:
    rows = [(0, 7, 5, 1), (0, 8, 5, 2), (1, 7, 5, 3), (1, 9, 5, 4), (2, 9, 5, 5)]
    found = split(interactions(rows), valid_share=0.2, test_share=0.2)
    assert found["part"].to_list() == ["train", "train", "train", "valid", "test"]
    assert found["user_seen"].to_list() == [2, 2, 1, 1, 0]
    assert found["item_seen"].to_list() == [2, 1, 2, 0, 0]


def test_a_short_history_leaves_valid_and_test_only() -> None:
    rows = interactions([(u, i, 5, t) for u, i, _, t in TEN])
    found = split(rows, min_history=4, valid_share=0.2, test_share=0.3, history=2, history_from="any")
    assert found["part"].to_list() == ["train"] * 5 + ["test"] * 2
    assert found["history"].list.len().max() == 2


def crowd(seed: int = 1, rows: int = 400) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    numbers = {
        "user": draw.integers(0, 30, rows),
        "item": draw.integers(0, 50, rows),
        "at": draw.integers(0, 90, rows),
        "label": draw.integers(0, 2, rows),
    }
    frame = pl.DataFrame(numbers).unique(["user", "item", "at"], maintain_order=True)
    return frame.with_row_index("row")


def test_caps_keep_whole_users_up_to_their_share() -> None:
    rows = crowd()
    found = capped(rows, 50, 6, salt=1)
    assert 49 <= found.height <= 50
    sizes = found.group_by("user").len()
    assert sizes["len"].max() == 6
    assert (sizes["len"] < 6).sum() <= 1 + (rows.group_by("user").len()["len"] < 6).sum()
    assert found["row"].is_sorted()


def test_no_cap_keeps_all_and_a_cap_of_one_keeps_one() -> None:
    rows = crowd()
    assert capped(rows, None, None, salt=1).equals(rows)
    assert capped(rows, 10_000, None, salt=1).equals(rows)
    assert capped(rows, 1, None, salt=1).height == 1


def test_no_user_of_several_rows_is_left_with_one() -> None:
    rows = pl.DataFrame({"row": range(40), "user": [n // 4 for n in range(40)], "item": 1, "at": range(40)})
    for most in range(2, 41):
        found = capped(rows, most, None, salt=1)
        assert found.group_by("user").len()["len"].min() != 1
        assert found.height == (most if most % 4 != 1 else most - 1)


def test_a_larger_cap_only_adds_users() -> None:
    rows = crowd()
    few, more = capped(rows, 48, 6, salt=1), capped(rows, 120, 6, salt=1)
    assert set(few["row"]) <= set(more["row"])


@given(st.integers(0, 1000), st.integers(2, 80), st.integers(2, 9))
def test_caps_do_not_hang_on_the_order_of_rows_or_on_labels(seed: int, most: int, per_user: int) -> None:
    rows = crowd()
    other = rows.sample(fraction=1, shuffle=True, seed=seed).with_columns(row=pl.int_range(pl.len()), label=0)
    keys = ["user", "item", "at"]
    one, two = (capped(f, most, per_user, salt=2).select(keys).sort(keys) for f in (rows, other))
    assert one.equals(two)


# --- properties of the whole

events = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(1, 5), st.integers(0, 30)),
    min_size=12,
    max_size=80,
    unique_by=lambda row: (row[0], row[1], row[3]),
)


@given(events, st.sampled_from(["time", "per_user", "users"]), st.sampled_from(["train", "any"]))
def test_no_interaction_is_lost_or_doubled_and_no_history_holds_the_future(
    drawn: list, kind: str, history_from: str
) -> None:
    rows = interactions(drawn)
    try:
        found = split(rows, kind=kind, history_from=history_from, history=100)
    except SplitError:  # too few different times to cut
        return
    keys = ["row", "user", "item", "at"]
    assert found.select(keys).equals(rows.select(keys))
    allowed = found if history_from == "any" else found.filter(part="train")
    uses = set(allowed.select("user", "item", "at").iter_rows())
    for user, at, history in found.select("user", "at", "history").iter_rows():
        assert len(history) == sum(u == user and t < at for u, _, t in uses)
        assert all(any((user, item, t) in uses for t in range(at)) for item in history)
    if kind == "time":
        spans = {part: found.filter(part=part)["at"] for part in ("train", "valid", "test")}
        assert spans["train"].max() < spans["valid"].min() <= spans["valid"].max() < spans["test"].min()


# --- checks against planted faults


class Planted:
    """A draft of examples as a broken stage would have written them, and the dataset behind it."""

    def __init__(self, rows: pl.DataFrame, source: pl.DataFrame, **metrics) -> None:
        self.rows, self.source = rows, source
        parts = source.height - rows.filter(pl.col("part") != "train").height
        self.metrics = {
            "train_rows_before_caps": parts,
            "valid_rows_before_caps": 2,
            "test_rows_before_caps": 3,
        }
        self.metrics |= metrics

    def scan(self, name: str) -> pl.LazyFrame:
        return (self.rows if name == "examples" else self.source).lazy()

    def judged(self, check, **settings):
        return check(self, {"dataset": self}, SplitSettings(**{**LIKES, **settings}))


def planted(change: pl.Expr | None = None, history_from: str = "train", **metrics) -> Planted:
    source = interactions(TEN)
    rows = split(source, valid_share=0.2, test_share=0.3, history_from=history_from)
    return Planted(rows.with_columns(change) if change is not None else rows, source, **metrics)


def at_row(row: int, value: pl.Expr, column: str) -> pl.Expr:
    return pl.when(pl.col("row") == row).then(value).otherwise(pl.col(column)).alias(column)


def test_sound_examples_pass_every_check() -> None:
    for history_from in ("train", "any"):
        good = planted(history_from=history_from)
        for check in (no_future, nothing_lost_or_doubled):
            assert good.judged(check, history_from=history_from).passed


def test_a_held_out_row_in_a_history_fails_the_check_unless_any_is_allowed() -> None:
    leaky = planted(history_from="any")
    verdict = leaky.judged(no_future)
    assert verdict.description.startswith("3 histories hold an item of that moment or later or outside train")
    assert leaky.judged(no_future, history_from="any").passed
    swapped = at_row(9, pl.concat_list(pl.col("history").list.head(1), pl.lit(5, pl.UInt32)), "history")
    assert not planted(swapped).judged(no_future).passed


def test_histories_in_a_split_without_a_train_part_fail_the_check() -> None:
    nothing = planted(pl.lit("test").alias("part"), history_from="any")
    assert not nothing.judged(no_future, kind="published").passed


def test_of_a_large_train_part_every_so_many_rows_are_looked_at(monkeypatch) -> None:
    monkeypatch.setattr(splits, "TRAIN_LOOKED_AT", 2)
    assert planted().judged(no_future).facts == {"histories_looked_at": 3 + 5}


def test_pieces_make_no_difference_to_the_check(monkeypatch) -> None:
    fault = at_row(9, pl.col("history").list.head(1), "history")
    monkeypatch.setattr(splits, "slices", lambda rows: slices(rows, 4))
    assert planted().judged(no_future).facts == {"histories_looked_at": 10}
    assert planted(fault).judged(no_future).description.startswith("1 histories")


def test_a_history_with_the_target_itself_fails_the_check() -> None:
    leak = at_row(6, pl.concat_list(pl.col("history").list.head(2), pl.col("item")), "history")
    verdict = planted(leak).judged(no_future)
    assert not verdict.passed
    assert verdict.description.startswith("1 histories hold an item of that moment or later")


def test_a_history_with_a_later_item_or_another_users_item_fails_the_check() -> None:
    for item in (8, 1):  # user 0 takes item 8 later, and item 1 never
        leak = at_row(4, pl.concat_list(pl.col("history").list.head(1), pl.lit(item, pl.UInt32)), "history")
        assert not planted(leak).judged(no_future).passed


def test_a_history_that_lacks_or_keeps_too_much_fails_the_check() -> None:
    assert not planted(at_row(4, pl.col("history").list.head(1), "history")).judged(no_future).passed
    assert not planted().judged(no_future, history=2).passed
    assert (
        not planted(at_row(4, pl.col("history_labels").list.head(1), "history_labels")).judged(no_future).passed
    )


def test_a_train_row_of_the_test_time_fails_the_check() -> None:
    verdict = planted(at_row(9, pl.lit("train"), "part")).judged(no_future)
    assert verdict.description == "valid begins before train has ended; test begins before train has ended"
    verdict = planted(at_row(9, pl.lit("train"), "part")).judged(no_future, kind="per_user")
    assert "for 1 users" in verdict.description
    assert planted(at_row(9, pl.lit("train"), "part")).judged(no_future, kind="published").passed


def test_a_doubled_row_fails_the_check() -> None:
    good = planted()
    doubled = Planted(pl.concat([good.rows, good.rows.head(1)]), good.source)
    assert "1 rows stand twice" in doubled.judged(nothing_lost_or_doubled).description


def test_a_row_that_changed_its_item_fails_the_check() -> None:
    verdict = planted(at_row(3, pl.lit(0, pl.UInt32), "item")).judged(nothing_lost_or_doubled)
    assert verdict.description == "examples differ from the interactions that they were made of"


def test_a_lost_row_fails_the_check() -> None:
    good = planted()
    lost = Planted(good.rows.filter(pl.col("row") != 0), good.source)
    assert "interactions of the train part are missing" in lost.judged(nothing_lost_or_doubled).description
    verdict = planted(valid_rows_before_caps=1).judged(nothing_lost_or_doubled)
    assert verdict.description == "10 interactions went in and 9 were given a part"


def test_a_part_of_one_class_fails_the_check() -> None:
    shares = {"train_positive_share": 0.5, "valid_positive_share": 0.5, "test_positive_share": 1.0}
    verdict = planted(**shares).judged(two_classes)
    assert not verdict.passed
    assert verdict.description == "one class or no row in test: is like_at_least 4 right?"
    assert "no item was left to draw" in planted(**shares).judged(two_classes, like_at_least=None).description
    assert planted(**{**shares, "test_positive_share": 0.9}).judged(two_classes).passed


# --- the stage

EVENTS = {"file": "a.csv", "columns": {"user_id": "u", "item_id": "i", "at": "t", "rating": "r"}}


def toy(project: Project, **settings):
    lines = [f"u{n % 7},i{n % 11},{1000 + 10 * n},{1 + (n * n) % 5}" for n in range(200)]
    project.write("shop/a.csv", "u,i,t,r\n" + "\n".join(lines) + "\n")
    return project.make(source={"locations": "shop"}, dataset={"interactions": EVENTS}, ctr={"split": settings})


def test_the_stage_writes_examples_metrics_and_a_picture_that_pass_its_checks(project: Project) -> None:
    artefact = toy(project, like_at_least=4, test_rows=10, rows_per_user=4)
    assert {name: check["passed"] for name, check in artefact.manifest["checks"].items()} == {
        "no_future": True,
        "nothing_lost_or_doubled": True,
        "two_classes": True,
    }
    metrics = artefact.metrics
    assert [metrics[f"{part}_rows_before_caps"] for part in ("train", "valid", "test")] == [160, 20, 20]
    assert metrics["test_rows"] == artefact.table("examples").filter(part="test").height in (9, 10)
    assert metrics["train_rows"] == 160
    assert metrics["train_cold_user_share"] == 0
    assert artefact.file("pictures/timeline.svg").stat().st_size > 1000


def test_the_same_study_makes_the_same_bits(project: Project, tmp_path: Path) -> None:
    first = toy(project, like_at_least=4).manifest["files"]
    assert toy(Project(tmp_path / "other"), like_at_least=4).manifest["files"] == first


def test_the_stage_says_what_is_missing(project: Project) -> None:
    with pytest.raises(StageFailed, match="ratings run from 1 to 5: set like_at_least"):
        toy(project)


def test_a_timeline_of_an_order_has_no_dates() -> None:
    rows, known = examples(interactions(TEN), SplitSettings(**LIKES), "time")
    axes = timeline(known, "order").axes[0]
    assert axes.get_xlabel() == "order"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "valid", "test"]
    assert rows.height == 10
