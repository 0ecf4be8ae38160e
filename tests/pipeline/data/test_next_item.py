"""The next_item track's split, by hand, by property and against planted faults."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.next_item import (
    NextItemSettings,
    Split,
    catalogue_is_of_train,
    cold_ones_are_apart,
    core,
    facts,
    no_future,
    nothing_lost_or_doubled,
    split_up,
)
from pipeline.data.parts import SplitError
from pipeline.schema import Catalogue, Events, Interactions, Queries
from pipeline.stage import StageFailed
from tests.pipeline.data.project import Project

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


# --- the other kinds


def test_a_cut_by_time_asks_once_per_user_for_all_that_comes_after_it() -> None:
    rows = interactions([*TWO_USERS, (0, 9, 18), (0, 7, 19)])
    found = split(rows, kind="time", valid_share=0.2, test_share=0.4)
    assert asked(found) == [
        ("test", 0, 16, [1, 3, 5], [7, 9]),  # item 7 twice: one target
        ("test", 2, 17, [], [8]),
        ("valid", 0, 14, [1, 3], [5]),
        ("valid", 1, 15, [2, 4], [6]),
    ]


def test_rows_of_the_cuts_own_moment_go_to_the_later_part() -> None:
    rows = interactions([(u, u, at) for u, at in enumerate([1, 2, 3, 5, 5, 6, 9, 9, 9, 9])])
    found = split(rows, kind="time", valid_share=0.3, test_share=0.3).events
    assert found["part"].to_list() == ["train"] * 3 + ["valid"] * 3 + ["test"] * 4


def test_an_order_counted_per_user_is_no_time() -> None:
    rows = interactions([(u, i, i) for u in range(5) for i in range(6)])
    with pytest.raises(SplitError, match=r"30 rows share 6 places of it.*use kind: leave_last"):
        split(rows, kind="time", clock="order")


def test_published_parts_are_taken_as_they_are() -> None:
    rows = interactions([(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4), (1, 5, 5)], "ttvet")
    assert asked(split(rows, kind="published")) == [
        ("test", 0, 4, [1, 2, 3], [4]),
        ("valid", 0, 3, [1, 2], [3]),
    ]
    with pytest.raises(SplitError, match="no event falls into valid: the source names no such part"):
        split(interactions([(0, 1, 1), (0, 2, 2)], "te"), kind="published")
    with pytest.raises(SplitError, match="name its column"):
        split(interactions(TWO_USERS), kind="published")


def test_a_published_train_row_after_the_target_is_in_no_history() -> None:
    rows = interactions([(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4)], "tevt")
    assert asked(split(rows, kind="published")) == [("test", 0, 2, [1], [2]), ("valid", 0, 3, [1], [3])]


def crowd(users: int = 12, items: int = 10, each: int = 9) -> pl.DataFrame:
    """Every user uses `each` items, one a moment, in an order of their own."""
    return interactions([(u, (u + n * 3) % items, 100 * n + u) for u in range(users) for n in range(each)])


def test_a_random_split_has_about_the_shares_and_every_user_keeps_a_train_row() -> None:
    events = split(crowd(users=300), kind="random", valid_share=0.3, test_share=0.5).events
    shares = [events.filter(part=part).height / events.height for part in ("train", "valid", "test")]
    assert shares == pytest.approx([0.24, 0.28, 0.48], abs=0.03)
    assert events.filter(part="train")["user"].n_unique() == 300
    one_each = split(interactions(TWO_USERS), kind="random", valid_share=0.4, test_share=0.5, seed=3).events
    assert one_each.filter(part="train")["user"].unique().sort().to_list() == [0, 1, 2]


def test_a_random_history_holds_the_events_of_the_parts_before_whatever_their_time() -> None:
    found = split(crowd(), kind="random", valid_share=0.3, test_share=0.3)
    later = 0
    for part, user, at, history, _ in asked(found):
        past = found.events.filter(user=user).filter(
            pl.col("part").is_in(["train", "valid"][: 1 + (part == "test")])
        )
        assert history == past["item"].to_list()
        later += past.filter(pl.col("at") > at).height
    assert later > 0


def test_another_seed_draws_other_rows() -> None:
    one, other = (split(crowd(), kind="random", seed=seed).events["part"].to_list() for seed in (1, 2))
    assert one != other


def test_items_split_apart_take_all_their_events_with_them() -> None:
    found = split(crowd(), kind="cold_item", valid_share=0.2, test_share=0.3)
    parts = found.events.group_by("part").agg(pl.col("item").unique())
    sizes = dict(parts.select("part", pl.col("item").list.len()).iter_rows())
    assert sizes == {"train": 5, "valid": 2, "test": 3}
    cold = found.catalogue.filter(pl.col("place").is_null())["item"].to_list()
    for _, _, _, history, targets in asked(found):
        assert set(targets) <= set(cold)
        assert not set(history) & set(cold)
    assert facts(found)["test_cold_targets"] == facts(found)["test_targets"] == 3 * 12 - 3


def test_users_split_apart_are_asked_for_their_last_event_after_all_their_others() -> None:
    found = split(crowd(), kind="cold_user", valid_share=0.2, test_share=0.3)
    assert found.events.group_by("part").agg(pl.col("user").n_unique()).sort("part").rows() == [
        ("test", 4),
        ("train", 6),
        ("valid", 2),
    ]
    for _, user, at, history, targets in asked(found):
        own = found.events.filter(user=user)
        assert (*history, *targets) == tuple(own["item"])
        assert at == own["at"].max()
    assert facts(found)["test_users_not_learnt_from"] == 4


# --- filters


def test_rows_below_the_threshold_or_without_a_rating_are_no_likes() -> None:
    rows = [(0, n, n) for n in range(7)]
    found = split(interactions(rows, ratings=[5, 3, 4, None, 5, 4, 1]), like_at_least=4)
    assert found.events["item"].to_list() == [0, 2, 4, 5]
    assert found.not_liked == 3
    with pytest.raises(SplitError, match="leave like_at_least out"):
        split(interactions(rows), like_at_least=4)


def test_a_core_is_filtered_until_nobody_falls() -> None:
    # item 9 falls, then user 2 is short, then item 3: only a second and third pass find them
    rows = [(u, i, 10 * u + i) for u in (0, 1) for i in (0, 1, 2)]
    rows += [(2, 0, 30), (2, 3, 31), (2, 9, 32), (1, 3, 33)]
    found = core(interactions(rows), user_core=3, item_core=2)
    assert sorted(found.select("user", "item").rows()) == [(u, i) for u in (0, 1) for i in (0, 1, 2)]
    whole = split(interactions(rows), user_core=3, item_core=2)
    assert (whole.events.height, whole.outside_core) == (6, 4)


def test_filters_that_leave_nothing_say_so() -> None:
    with pytest.raises(SplitError, match="the filters leave none of 8 interactions"):
        split(interactions(TWO_USERS), user_core=9)


def test_users_too_short_to_hold_out_say_so() -> None:
    with pytest.raises(SplitError, match="no event falls into test and valid: no user has three events"):
        split(interactions([(0, 1, 1), (0, 2, 2), (1, 1, 3)]))
    with pytest.raises(SplitError, match="2 events of 1 users and 2 items have 2 different times"):
        split(interactions([(0, 1, 1), (0, 2, 2)]), kind="cold_user")


def test_shares_must_leave_something_to_learn_from() -> None:
    with pytest.raises(ValidationError, match="leave nothing to learn from"):
        NextItemSettings.model_validate({"valid_share": 0.5, "test_share": 0.5})


# --- catalogue and facts


def test_the_catalogue_numbers_only_items_with_train_rows() -> None:
    found = split(interactions(TWO_USERS), n_items=9).catalogue
    assert found["place"].to_list() == [None, 0, 1, 2, None, None, None, None, 3]
    assert found["train_rows"].to_list() == [0, 1, 1, 1, 0, 0, 0, 0, 1]


def test_test_items_change_no_place() -> None:
    other = [(*row[:2], row[2]) if row[2] != 16 else (0, 0, 16) for row in TWO_USERS]
    assert split(interactions(other)).catalogue["place"].to_list() == (
        split(interactions(TWO_USERS)).catalogue["place"].to_list()
    )


def test_facts_count_what_makes_queries_hard() -> None:
    found = facts(split(interactions([*TWO_USERS, (0, 3, 20)])))
    assert (found["train_events"], found["users"]) == (5, 3)
    assert found["items_learnt_from"] == 5
    assert (found["test_queries"], found["test_targets"], found["test_mean_history"]) == (2, 2, 3.0)
    assert found["test_targets_used_before"] == 1  # item 3 again
    assert found["test_cold_targets"] == 1
    assert found["valid_users_not_learnt_from"] == found["valid_empty_histories"] == 0


# --- properties

drawn_rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 30)), min_size=6, max_size=60
)
SETTINGS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 50),
        "valid_share": st.sampled_from([0.1, 0.3]),
        "test_share": st.sampled_from([0.1, 0.4]),
        "user_core": st.sampled_from([1, 1, 2, 3]),
        "item_core": st.sampled_from([1, 1, 1, 2]),
    }
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(drawn=drawn_rows, chosen=SETTINGS)
def test_no_event_is_lost_or_doubled_and_no_history_holds_the_future(
    kind: str, drawn: list, chosen: dict
) -> None:
    rows = interactions(drawn)
    try:
        found = split(rows, kind=kind, **chosen)
    except SplitError:  # too few rows for the filters or the parts
        reject()
    events = found.events
    keys = ["row", "user", "item", "at"]
    assert events["row"].is_unique().all()
    assert events.join(rows, on=keys, how="semi").height == events.height == rows.height - found.outside_core
    for part, user, at, history, targets in asked(found):
        own = [row for row in events.select("part", "user", "item", "at").rows() if row[1] == user]
        held = [n for n, row in enumerate(own) if row[0] == part]
        held = held[-1:] if kind == "cold_user" else held
        known = {"cold_user": {part}, "cold_item": {"train"}}.get(kind, {"train", "valid"} - {part})
        past = own if kind == "random" else own[: held[0]]
        assert history == [item for p, _, item, _ in past if p in known]
        assert targets == list(dict.fromkeys(own[n][2] for n in held))
        assert at == own[held[0]][3]
        if kind not in ("random", "cold_user", "cold_item"):
            assert history == [item for _, _, item, _ in past]
    for check in CHECKS:
        assert planted(found, rows).judged(check, kind=kind, **chosen).passed


@settings(deadline=None, max_examples=40)
@given(drawn_rows, st.integers(1, 4), st.integers(1, 4))
def test_a_core_is_the_largest_set_that_keeps_its_word(drawn: list, user_core: int, item_core: int) -> None:
    rows = interactions(drawn)
    found = core(rows, user_core, item_core)
    for name, least in (("user", user_core), ("item", item_core)):
        assert all(rows >= least for rows in found.group_by(name).len()["len"])
    left = set(range(rows.height)) - set(found["row"])
    for row in left:  # nobody who fell can come back, alone or with all their rows
        for name, least in (("user", user_core), ("item", item_core)):
            back = rows.filter(pl.col(name) == rows[name][row])
            both = pl.concat([found, back]).unique("row")
            assert core(both, user_core, item_core).sort("row").equals(found.sort("row")), (name, least)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_split_hangs_on_no_order_of_rows_in_memory(kind: str, seed: int) -> None:
    rows = crowd()
    one, other = (split(frame, kind=kind) for frame in (rows, rows.sample(fraction=1, shuffle=True, seed=seed)))
    assert one.events.equals(other.events)
    assert one.queries.equals(other.queries)
    assert one.catalogue.equals(other.catalogue)


# --- checks against planted faults


class Planted:
    """A draft as a broken stage would have written it, and the dataset behind it."""

    def __init__(self, found: Split, source: pl.DataFrame, **tables: pl.DataFrame) -> None:
        self.tables = {**found._asdict(), "interactions": source, **tables}
        self.metrics = {"left_out_not_liked": found.not_liked, "left_out_by_core": found.outside_core}

    def read(self, name: str) -> pl.DataFrame:
        return self.tables[name]

    table = read

    def judged(self, check, **settings):
        return check(self, {"dataset": self}, NextItemSettings(**settings))


def planted(found: Split, source: pl.DataFrame, **tables: pl.DataFrame) -> Planted:
    return Planted(found, source, **tables)


def broken(table: str, change: pl.Expr, kind: str = "leave_last", **settings) -> Planted:
    """A sound split of the crowd with one column of one table changed."""
    found = split(crowd(), kind=kind, **settings)
    return planted(found, crowd(), **{table: getattr(found, table).with_columns(change)})


def at_query(part: str, user: int, value: pl.Expr, column: str) -> pl.Expr:
    here = (pl.col("part") == part) & (pl.col("user") == user)
    return pl.when(here).then(value).otherwise(pl.col(column)).alias(column)


def at_row(row: int, value: object, column: str) -> pl.Expr:
    return pl.when(pl.col("row") == row).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)


@pytest.mark.parametrize(
    "history",
    [
        pl.concat_list("history", pl.col("targets").list.head(1)),
        pl.col("history").list.head(3),
        pl.col("history").list.tail(3),
        pl.col("history").list.reverse(),
        pl.concat_list(pl.col("history").list.head(-1), pl.lit(9, pl.UInt32)),
        pl.lit([], pl.List(pl.UInt32)),
    ],
    ids=["target", "end lost", "beginning lost", "turned round", "another's item", "nothing"],
)
@pytest.mark.parametrize("kind", ["leave_last", "time", "random", "cold_user"])
def test_a_wrong_history_fails_the_check(history: pl.Expr, kind: str) -> None:
    user = split(crowd(), kind=kind).queries.filter(part="test")["user"][0]
    verdict = broken("queries", at_query("test", user, history, "history"), kind).judged(no_future, kind=kind)
    assert not verdict.passed
    assert verdict.description.startswith("1 histories hold what came later or was not used")


def test_a_history_of_a_later_train_row_fails_the_check() -> None:
    rows = interactions([(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4)], "tevt")
    found = split(rows, kind="published")
    leak = found.queries.with_columns(at_query("test", 0, pl.lit([1, 4], pl.List(pl.UInt32)), "history"))
    assert not planted(found, rows, queries=leak).judged(no_future, kind="published").passed


def test_parts_that_overlap_fail_the_check() -> None:
    late = at_row(crowd().height - 1, "train", "part")
    assert "for 1 users" in broken("events", late).judged(no_future).description
    cut = broken("events", late, "time").judged(no_future, kind="time")
    assert "valid begins before train has ended; test begins before train has ended" in cut.description
    assert "for " not in cut.description.split(";")[0]


def test_rows_out_of_time_fail_the_check() -> None:
    verdict = broken("events", at_row(3, 10_000, "at")).judged(no_future)
    assert "rows are not numbered in order of time" in verdict.description


def test_a_lost_a_doubled_and_a_changed_row_fail_the_check() -> None:
    found = split(crowd())
    lost = planted(found, crowd(), events=found.events.filter(pl.col("row") != 5))
    assert (
        lost.judged(nothing_lost_or_doubled).description == "of 108 interactions 107 are events and 0 left out"
    )
    doubled = planted(found, crowd(), events=pl.concat([found.events, found.events[5]]))
    assert "1 rows stand twice" in doubled.judged(nothing_lost_or_doubled).description
    changed = broken("events", at_row(5, 9, "item")).judged(nothing_lost_or_doubled)
    assert "events differ from the interactions" in changed.description


def test_rows_left_out_without_a_filter_fail_the_check() -> None:
    found = split(crowd())._replace(outside_core=1)
    lost = planted(found, crowd(), events=found.events.filter(pl.col("row") != 5))
    assert "left out though there is no filter" in lost.judged(nothing_lost_or_doubled).description
    assert lost.judged(nothing_lost_or_doubled, user_core=2).passed


def test_targets_that_are_not_the_held_out_events_fail_the_check() -> None:
    for value in (pl.lit([9], pl.List(pl.UInt32)), pl.concat_list("targets", pl.lit(9, pl.UInt32))):
        verdict = broken("queries", at_query("test", 4, value, "targets")).judged(nothing_lost_or_doubled)
        assert verdict.description == "the targets are not the held-out events, each item once"


def test_a_query_lost_doubled_or_of_another_moment_fails_the_check() -> None:
    found = split(crowd())
    for queries in (
        found.queries.filter(~((pl.col("part") == "test") & (pl.col("user") == 4))),
        pl.concat([found.queries, found.queries[4]]),
        found.queries.with_columns(at_query("valid", 2, pl.col("at") + 1, "at")),
    ):
        verdict = planted(found, crowd(), queries=queries).judged(nothing_lost_or_doubled)
        assert "there is not one query for each user" in verdict.description


@pytest.mark.parametrize("kind", ["cold_item", "cold_user"])
def test_an_item_or_a_user_in_two_parts_fails_the_check(kind: str) -> None:
    row = split(crowd(), kind=kind).events.filter(part="test")["row"][0]
    fault = broken("events", at_row(row, "train", "part"), kind)
    verdict = fault.judged(cold_ones_are_apart, kind=kind)
    assert verdict.description.startswith(f"1 {kind.removeprefix('cold_')}s stand in two parts; ")
    assert fault.judged(cold_ones_are_apart).passed


def test_a_query_for_a_known_item_fails_the_check() -> None:
    known = split(crowd(), kind="cold_item").events.filter(part="train")["item"][0]
    asked_for = at_query("test", 4, pl.lit([known], pl.List(pl.UInt32)), "targets")
    verdict = broken("queries", asked_for, "cold_item").judged(cold_ones_are_apart, kind="cold_item")
    assert verdict.description == "0 items stand in two parts; 1 targets are of items that were learnt from"


def test_a_catalogue_with_a_place_for_a_cold_item_or_in_another_order_fails_the_check() -> None:
    found = split(crowd(), kind="cold_item")

    def said(change: pl.Expr) -> str:
        fault = planted(found, crowd(), catalogue=found.catalogue.with_columns(change))
        return fault.judged(catalogue_is_of_train, kind="cold_item").description

    assert said(pl.col("item")) == ""
    assert "places are not those of the items with train rows" in said(pl.col("place").fill_null(99))
    assert said((7 - pl.col("place")).alias("place")) == "places are not in order of item"
    assert said(pl.col("item") + 1).startswith("items are not numbered from 0")
    assert said(pl.col("train_rows") * 2) == "train rows are miscounted"


# --- the stage

EVENTS = {"file": "a.csv", "columns": {"user_id": "u", "item_id": "i", "at": "t", "rating": "r"}}


def toy(project: Project, **settings):
    lines = [f"u{n % 7},i{n % 11},{1000 + 10 * n},{1 + (n * n) % 5}" for n in range(77)]
    project.write("shop/a.csv", "u,i,t,r\n" + "\n".join(lines) + "\n")
    data = {"source": {"locations": "shop"}, "dataset": {"interactions": EVENTS}}
    return project.make("next_item/split", **data, next_item={"split": settings})


@pytest.mark.parametrize("kind", KINDS)
def test_the_stage_writes_its_tables_and_passes_its_checks(project: Project, kind: str) -> None:
    artefact = toy(project, kind=kind, like_at_least=2, valid_share=0.2, test_share=0.3)
    assert {name: check["passed"] for name, check in artefact.manifest["checks"].items()} == {
        check.__name__: True for check in CHECKS
    }
    assert all(check["blocking"] for check in artefact.manifest["checks"].values())
    assert artefact.metrics["kind"] == kind
    assert artefact.metrics["events"] + artefact.metrics["left_out_not_liked"] == 77
    assert artefact.table("catalogue").height == 11


def test_the_same_study_makes_the_same_bits(project: Project, tmp_path: Path) -> None:
    first = toy(project, kind="random").manifest["files"]
    assert toy(Project(tmp_path / "other"), kind="random").manifest["files"] == first


def test_the_stage_says_what_is_missing(project: Project) -> None:
    with pytest.raises(StageFailed, match=r"name its column in data\.dataset"):
        toy(project, kind="published")


def test_every_setting_is_described() -> None:
    assert all(field.description for field in NextItemSettings.model_fields.values())
