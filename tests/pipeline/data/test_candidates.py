"""Stored candidate lists, by hand, by property and against planted faults."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.candidates import (
    RANDOM,
    CandidatesSettings,
    Used,
    lists_are_full,
    placed,
    pools,
    random_list,
    retrieved_list,
    sampled,
    the_target_once_and_nothing_used,
)
from pipeline.schema import Candidates, Events, Queries, Rankings
from tests.pipeline.data.project import Project

KEYS = ["list", "part", "user"]


def pairs(rows: list[tuple[int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user": pl.UInt32, "item": pl.UInt32}, orient="row")


def queries(rows: list[tuple[str, int, list[int]]]) -> pl.DataFrame:
    """Rows of (part, user, targets)."""
    return Queries.validate(
        pl.DataFrame(
            {
                "part": [row[0] for row in rows],
                "user": [row[1] for row in rows],
                "at": 0,
                "history": [[]] * len(rows),
                "targets": [row[2] for row in rows],
            },
            schema_overrides={"history": pl.List(pl.UInt32)},
        ),
        cast=True,
    )


def pool(n: int, least: int = 0) -> dict:
    return dict.fromkeys(("valid", "test"), np.arange(least, n, dtype=np.uint32))


def lists(name: str, asked: pl.DataFrame, used: pl.DataFrame, items: dict, seed: int = 1) -> pl.DataFrame:
    return Candidates.validate(random_list(name, asked, Used(used), items, seed), cast=True)


ONE = queries([("test", 7, [3])])


# --- random lists


def test_a_list_is_the_target_and_others_never_used_at_places_from_one() -> None:
    used = pairs([(7, 3), (7, 4), (7, 5), (8, 6)])
    found = lists("random_20", ONE, used, pool(100))
    assert found["place"].to_list() == list(range(1, 21))
    assert found.filter(label=1)["item"].to_list() == [3]
    others = found.filter(label=0)["item"]
    assert others.n_unique() == 19
    assert not set(others) & {3, 4, 5}


def test_of_several_targets_the_first_is_in_the_list_and_the_others_are_not() -> None:
    asked = queries([("test", 7, [5, 3, 4])])
    found = lists("random_10", asked, pairs([(7, 3), (7, 4), (7, 5)]), pool(14))
    assert found.filter(label=1)["item"].to_list() == [5]
    assert not set(found["item"]) & {3, 4}


def test_a_user_who_used_nearly_everything_gets_what_is_left() -> None:
    used = pairs([(7, item) for item in range(500) if item not in (20, 300, 499)])
    found = lists("random_10", ONE, used, pool(500))
    assert sorted(found["item"]) == [3, 20, 300, 499]
    assert found["place"].to_list() == [1, 2, 3, 4]


def test_a_user_who_used_everything_has_the_target_alone() -> None:
    found = lists("random_10", ONE, pairs([(7, item) for item in range(9)]), pool(9))
    assert found.rows() == [("random_10", "test", 7, 1, 3, 1)]


def test_a_longer_list_holds_the_items_of_a_shorter_one() -> None:
    asked = queries([(part, user, [user]) for part in ("valid", "test") for user in range(40)])
    used = pairs([(user, user) for user in range(40)])
    long, short = (lists(name, asked, used, pool(60)) for name in RANDOM)
    assert short.join(long, on=["part", "user", "item", "label"], how="anti").is_empty()


def test_valid_and_test_lists_of_a_user_are_drawn_apart() -> None:
    asked = queries([("valid", 7, [3]), ("test", 7, [3])])
    found = lists("random_10", asked, pairs([(7, 3)]), pool(1000)).filter(label=0)
    assert not set(found.filter(part="valid")["item"]) & set(found.filter(part="test")["item"])


def test_another_users_query_changes_no_list() -> None:
    used = pairs([(7, 3), (9, 3)])
    alone = lists("random_20", ONE, used, pool(50))
    beside = lists("random_20", queries([("test", 7, [3]), ("test", 9, [3])]), used, pool(50))
    assert beside.filter(user=7).equals(alone)


def test_items_and_places_are_drawn_evenly() -> None:
    users = 4000
    asked = queries([("test", user, [user % 30]) for user in range(users)])
    found = lists("random_10", asked, pairs([(user, user % 30) for user in range(users)]), pool(30))
    places = found.filter(label=1)["place"].value_counts()["count"]
    assert places.len() == 10
    assert all(320 < count < 480 for count in places)
    drawn = found.filter(label=0)["item"].value_counts()["count"]
    assert drawn.len() == 30
    assert all(1050 < count < 1350 for count in drawn)


def test_another_seed_draws_other_items_and_places() -> None:
    asked = queries([("test", user, [0]) for user in range(50)])
    one, other = (lists("random_10", asked, pairs([(u, 0) for u in range(50)]), pool(99), s) for s in (1, 2))
    assert one.filter(label=1)["place"].to_list() != other.filter(label=1)["place"].to_list()
    assert one.filter(label=0)["item"].to_list() != other.filter(label=0)["item"].to_list()


def test_lists_in_pieces_are_the_lists_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = queries([(part, user, [user]) for part in ("valid", "test") for user in range(23)])
    used = pairs([(user, item) for user in range(23) for item in range(user, 23 + user)])
    whole = lists("random_20", asked, used, pool(70))
    monkeypatch.setattr("pipeline.data.candidates.QUERIES_AT_ONCE", 5)
    assert lists("random_20", asked, used, pool(70)).equals(whole)


def test_no_query_makes_an_empty_table() -> None:
    found = lists("random_10", queries([]), pairs([(1, 1)]), pool(9))
    assert found.is_empty()


EVENTS = Events.validate(
    pl.DataFrame(
        {
            "row": range(6),
            "part": ["train", "train", "valid", "valid", "test", "test"],
            "user": [0, 1, 0, 1, 0, 1],
            "item": [8, 2, 4, 4, 6, 5],
            "at": range(6),
        }
    ),
    cast=True,
)


def test_items_with_events_are_drawn_from_and_where_items_are_apart_those_of_the_part() -> None:
    whole = pools(EVENTS, "leave_last")
    assert [items.tolist() for items in whole.values()] == [[2, 4, 5, 6, 8]] * 2
    apart = pools(EVENTS, "cold_item")
    assert {part: items.tolist() for part, items in apart.items()} == {"valid": [4], "test": [5, 6]}


# --- a sample of users


EVERYONE = queries([(part, user, [user]) for part in ("valid", "test") for user in range(200) if user != 5])


def test_a_sample_holds_whole_users_and_a_larger_one_holds_the_smaller() -> None:
    small, large = (sampled(EVERYONE, users, seed=1) for users in (30, 60))
    assert small["user"].n_unique() == 30
    assert small.height == 60
    assert small.join(large, on=["part", "user"], how="anti").is_empty()
    assert sampled(EVERYONE, 30, seed=1).equals(
        sampled(EVERYONE.sample(fraction=1.0, shuffle=True, seed=2), 30, 1).sort(
            "part", "user", descending=[True, False]
        )
    )
    assert set(sampled(EVERYONE, 30, seed=2)["user"]) != set(small["user"])


def test_without_a_number_or_with_too_large_a_one_everybody_has_lists() -> None:
    assert sampled(EVERYONE, None, seed=1).equals(EVERYONE)
    assert sampled(EVERYONE, 999, seed=1).equals(EVERYONE)


# --- a retriever's list


def rankings(rows: list[tuple], **named) -> pl.DataFrame:
    """Rows of (part, user, rank, item, score)."""
    frame = pl.DataFrame(rows, schema=["part", "user", "rank", "item", "score"], orient="row")
    said = {"track": "next_item", "method": "ease", "variant": "default", "seed": 0, "target": False, **named}
    whole = frame.with_columns(**{k: v if isinstance(v, pl.Expr) else pl.lit(v) for k, v in said.items()})
    return Rankings.validate(whole.select(Rankings.column_names()), cast=True)


ORDER = rankings(
    [("test", 7, rank, 10 + rank, 9.0 - rank) for rank in range(1, 8)] + [("test", 7, 90, 3, -5.0)]
)


def test_a_retrievers_list_is_its_first_unused_items_in_its_order_around_the_target() -> None:
    found = retrieved_list(ORDER, ONE, Used(pairs([(7, 3), (7, 12)])), seed=1, size=4)
    assert set(found["list"]) == {"retrieved_4"}
    assert found.filter(label=1)["item"].to_list() == [3]
    assert found.filter(label=0)["item"].to_list() == [11, 13, 14]
    assert found["place"].to_list() == [1, 2, 3, 4]


def test_a_target_that_the_retriever_found_takes_no_second_place() -> None:
    found = retrieved_list(ORDER, queries([("test", 7, [12])]), Used(pairs([(7, 12)])), seed=1, size=4)
    assert sorted(found["item"]) == [11, 12, 13, 14]


def test_items_that_the_retriever_could_not_score_are_not_retrieved() -> None:
    unscored = ORDER.with_columns(score=pl.when(pl.col("rank") < 3).then("score"))
    found = retrieved_list(unscored, ONE, Used(pairs([(7, 3)])), seed=1, size=4)
    assert found.filter(label=0)["item"].to_list() == [11, 12]


def test_the_targets_place_is_drawn_whatever_its_rank() -> None:
    asked = queries([("test", user, [0]) for user in range(1000)])
    rows = [("test", user, rank, rank - 1, -float(rank)) for user in range(1000) for rank in range(1, 6)]
    found = retrieved_list(rankings(rows), asked, Used(pairs([(u, 0) for u in range(1000)])), 1, size=5)
    places = found.filter(label=1)["place"].value_counts()["count"]
    assert places.len() == 5
    assert all(count > 150 for count in places)


def test_several_retrievers_and_missing_queries_are_refused() -> None:
    used = Used(pairs([(7, 3)]))
    with pytest.raises(ValueError, match="by one method, variant and seed"):
        retrieved_list(pl.concat([ORDER, ORDER.with_columns(method=pl.lit("als"))]), ONE, used, seed=1)
    with pytest.raises(ValueError, match="1 queries have no ranking"):
        retrieved_list(ORDER, queries([("test", 7, [3]), ("test", 8, [3])]), used, seed=1)


# --- properties


@st.composite
def worlds(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """(queries, what was used, items): every target is used, as events are."""
    n_items = draw(st.integers(2, 60))
    item = st.integers(0, n_items - 1)
    asked = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(["valid", "test"]), st.integers(0, 8)),
            st.lists(item, min_size=1, max_size=4, unique=True),
            min_size=1,
        )
    )
    used = draw(st.lists(st.tuples(st.integers(0, 8), item), max_size=120))
    used += [(user, target) for (_, user), targets in asked.items() for target in targets]
    return queries([(*key, targets) for key, targets in asked.items()]), pairs(used), n_items


@settings(deadline=None, max_examples=60)
@given(worlds(), st.sampled_from(sorted(RANDOM)), st.integers(0, 9))
def test_every_list_holds_its_target_once_nothing_used_and_all_that_fits(
    world: tuple[pl.DataFrame, pl.DataFrame, int], name: str, seed: int
) -> None:
    asked, used, n_items = world
    found = lists(name, asked, used, pool(n_items), seed)
    for part, user, targets in asked.select("part", "user", "targets").iter_rows():
        rows = found.filter(part=part, user=user)
        mine = set(used.filter(user=user)["item"])
        assert rows.filter(label=1)["item"].to_list() == targets[:1]
        assert not set(rows.filter(label=0)["item"]) & mine
        assert rows["item"].is_unique().all()
        assert rows.height == min(RANDOM[name], 1 + n_items - len(mine))
        assert rows["place"].to_list() == list(range(1, rows.height + 1))
    assert found.select(KEYS).unique().height == asked.height
    assert found.equals(lists(name, asked.reverse(), used.reverse(), pool(n_items), seed))
    assert planted(found, asked, used, n_items).judged().passed


# --- checks against planted faults


class Planted:
    """A draft of candidates as a broken stage would have written it, with the split and dataset behind it."""

    def __init__(self, **tables: pl.DataFrame) -> None:
        self.tables = tables
        self.metrics = {f"{name}_short": 0 for name in RANDOM}

    def read(self, name: str) -> pl.DataFrame:
        return self.tables[name]

    table = read

    def judged(self, check=the_target_once_and_nothing_used, **chosen):
        return check(self, {"dataset": self, "split": self}, CandidatesSettings(**chosen))


def planted(found: pl.DataFrame, asked: pl.DataFrame, used: pl.DataFrame, n_items: int) -> Planted:
    return Planted(
        candidates=found, queries=asked, interactions=used, events=pairs([(0, item) for item in range(n_items)])
    )


ASKED = queries([("test", 7, [3]), ("test", 8, [4]), ("valid", 7, [5])])
USED = pairs([(7, 1), (7, 3), (7, 5), (8, 4), (8, 2)])


def broken(change: pl.Expr) -> str:
    """What the check says of sound lists with one column changed."""
    return planted(sound().with_columns(change), ASKED, USED, 40).judged().description


def sound() -> pl.DataFrame:
    return pl.concat([lists(name, ASKED, USED, pool(40)) for name in RANDOM])


def of_user_8(column: str, label: int, value: int) -> pl.Expr:
    """One item of user 8's list of ten (the first of those with this label) changed."""
    here = (pl.col("list") == "random_10") & (pl.col("user") == 8) & (pl.col("label") == label)
    first = here & (here.cum_sum() == 1)
    return pl.when(first).then(pl.lit(value)).otherwise(pl.col(column)).cast(pl.UInt32).alias(column)


def test_sound_lists_pass() -> None:
    assert broken(pl.col("item")) == ""


def test_a_list_without_its_target_or_with_another_or_with_two_fails_the_check() -> None:
    assert "1 lists have not their query's first target once" in broken(of_user_8("item", 1, 2))
    assert "1 lists have not their query's first target once" in broken(of_user_8("label", 1, 0))
    assert "1 lists have not their query's first target once" in broken(of_user_8("label", 0, 1))


def test_a_used_item_fails_the_check() -> None:
    assert broken(of_user_8("item", 0, 2)) == "1 items were used by their user"


def test_an_item_twice_fails_the_check() -> None:
    found = sound().filter(list="random_10", user=8, label=0)["item"]
    assert broken(of_user_8("item", 0, found[1])) == "1 lists hold an item twice"


def test_a_gap_between_places_fails_the_check() -> None:
    assert broken(of_user_8("place", 0, 30)) == "1 lists have gaps between places"


def test_an_item_without_events_fails_the_check() -> None:
    assert broken(of_user_8("item", 0, 77)) == "1 items have no event"


def test_a_missing_list_and_a_list_of_no_query_fail_the_check() -> None:
    lost = sound().filter(~((pl.col("user") == 8) & (pl.col("list") == "random_10")))
    assert (
        "1 lists have not their query's first target once"
        in planted(lost, ASKED, USED, 40).judged().description
    )
    more = planted(sound(), ASKED.filter(user=7), USED, 40).judged().description
    assert more == "2 lists are of no query"


def test_lists_of_other_users_than_those_drawn_fail_the_check() -> None:
    drawn = sampled(ASKED, 1, CandidatesSettings().seed)
    held = sound().join(drawn, on=["part", "user"], how="semi")
    assert planted(held, ASKED, USED, 40).judged(users=1).passed
    assert not planted(sound(), ASKED, USED, 40).judged(users=1).passed
    other = sound().join(drawn, on=["part", "user"], how="anti")
    assert not planted(other, ASKED, USED, 40).judged(users=1).passed


def test_short_lists_are_told() -> None:
    draft = planted(sound(), ASKED, USED, 40)
    assert draft.judged(lists_are_full).passed
    draft.metrics["random_20_short"] = 3
    assert draft.judged(lists_are_full).description == "3 lists of random_20 are short"


def test_places_keep_the_others_in_their_order() -> None:
    rows = pl.DataFrame({"part": "test", "user": [7], "target": [3]}, schema_overrides={"user": pl.UInt32})
    others = pl.DataFrame({"part": "test", "user": [7] * 3, "item": [9, 1, 5], "nth": [0, 1, 2]})
    others = others.cast({"user": pl.UInt32})
    orders = {tuple(placed("any", rows, others, seed)["item"]) for seed in range(60)}
    assert orders == {(3, 9, 1, 5), (9, 3, 1, 5), (9, 1, 3, 5), (9, 1, 5, 3)}


# --- the stage


def test_the_stage_writes_both_lists_and_passes_its_checks(project: Project) -> None:
    lines = [f"u{n % 7},i{n * n % 61},{1000 + 10 * n},{1 + (n * n) % 5}" for n in range(200)]
    project.write("shop/a.csv", "u,i,t,r\n" + "\n".join(lines) + "\n")
    columns = {"user_id": "u", "item_id": "i", "at": "t", "rating": "r"}
    artefact = project.make(
        "rerank/candidates",
        source={"locations": "shop"},
        dataset={"interactions": {"file": "a.csv", "columns": columns}},
        next_item={"split": {"like_at_least": 3}},
    )
    checks = artefact.manifest["checks"]
    assert checks["the_target_once_and_nothing_used"]["passed"]
    assert checks["the_target_once_and_nothing_used"]["blocking"]
    assert not checks["lists_are_full"]["blocking"]
    split = project.made["next_item/split"]
    assert artefact.metrics["random_20_lists"] == split.table("queries").height == 14
    disliked = project.made["dataset"].table("interactions").filter(pl.col("rating") < 3)
    others = artefact.table("candidates").filter(label=0)
    assert disliked.height > 0
    assert others.join(disliked, on=["user", "item"], how="semi").is_empty()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in CandidatesSettings.model_fields.values())
