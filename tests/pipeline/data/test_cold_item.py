"""The cold_item track's split, by hand, by property and against planted faults."""

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.cold_item import (
    ColdItemSettings,
    events_are_interactions,
    no_item_held_out_is_known,
    nothing_held_out_is_learnt,
    nothing_learnt_came_later,
    once_more,
    split_up,
    up_to_the_last,
)
from pipeline.data.next_item import Split
from pipeline.data.parts import SplitError
from pipeline.schema import Catalogue, Events, Queries
from tests.pipeline.data.test_next_item import asked, crowd, interactions

SHARES = {"valid_share": 0.2, "test_share": 0.2}
CHECKS = (no_item_held_out_is_known, nothing_learnt_came_later, events_are_interactions)


def split(rows: pl.DataFrame, n_items: int = 10, **chosen: Any) -> Split:
    items = pl.int_range(n_items, dtype=pl.UInt32, eager=True).alias("item")
    found = split_up(rows, items, ColdItemSettings.model_validate({**SHARES, **chosen}))
    return found._replace(
        events=Events.validate(found.events, cast=True),
        queries=Queries.validate(found.queries, cast=True),
        catalogue=Catalogue.validate(found.catalogue, cast=True),
    )


def judged(check: Any, found: Split, source: pl.DataFrame, **tables: pl.DataFrame) -> str:
    """What a check says of a draft with these tables in place of its own; nothing where it passes."""
    held = {**found._asdict(), "interactions": source, **tables}
    draft: Any = SimpleNamespace(read=held.__getitem__, table=held.__getitem__)
    verdict = check(draft, {"dataset": draft}, ColdItemSettings.model_validate(SHARES))
    return "" if verdict.passed else verdict.description


# --- by hand


def events(letters: str) -> pl.DataFrame:
    """One user's events, a letter each with the part of its item; the n-th is with item n."""
    named = {"t": "train", "v": "valid", "e": "test"}
    return pl.DataFrame({"row": range(len(letters)), "user": 0, "part": [named[p] for p in letters]})


@pytest.mark.parametrize(
    ("letters", "kept"),
    [
        ("ttettt", [0, 1, 2]),  # what came later is left out
        ("tetvtt", [0, 2, 3]),  # so are items held out that came earlier, of any part
        ("tvtet", [0, 2, 3]),
        ("ett", [0]),  # nothing before it
        ("ttt", [0, 1, 2]),  # none held out: all of it
    ],
)
def test_a_user_is_kept_up_to_the_last_event_held_out(letters: str, kept: list[int]) -> None:
    assert up_to_the_last(events(letters))["row"].to_list() == kept


def test_each_user_is_by_himself() -> None:
    both = pl.concat([events("tte"), events("tttt").with_columns(user=1, row=pl.col("row") + 3)])
    assert up_to_the_last(both)["row"].to_list() == [0, 1, 2, 3, 4, 5, 6]


def test_who_used_an_item_held_out_is_asked_once_after_all_known_items_before_it() -> None:
    found = split(crowd())
    cold = set(found.catalogue.filter(pl.col("place").is_null())["item"])
    assert len(cold) == 4
    assert [row[1] for row in sorted(asked(found), key=lambda row: row[1])] == list(range(12))
    for part, user, at, history, targets in asked(found):
        whole = crowd().filter(user=user).sort("row").rows(named=True)
        last = max(n for n, row in enumerate(whole) if row["item"] in cold)
        assert (targets, at) == ([whole[last]["item"]], whole[last]["at"])
        assert history == [row["item"] for row in whole[:last] if row["item"] not in cold]
        assert part in ("valid", "test")


def test_items_held_out_have_no_training_row() -> None:
    found = split(crowd())
    cold = found.catalogue.filter(pl.col("train_rows") == 0)["item"]
    assert found.events.filter(pl.col("item").is_in(cold.implode()))["part"].unique().sort().to_list() == [
        "test",
        "valid",
    ]


def test_another_seed_holds_out_others() -> None:
    first, second = (split(crowd(), seed=seed).catalogue["place"].is_null().to_list() for seed in (1, 2))
    assert first != second


def test_an_empty_part_says_what_to_change() -> None:
    rows = interactions([(0, 1, 1), (0, 2, 2)])
    with pytest.raises(SplitError, match=r"no event falls into .*train.*2 events have 2 items; change"):
        split(rows)
    with pytest.raises(ValidationError, match="leave nothing to learn from"):
        ColdItemSettings.model_validate({"valid_share": 0.5, "test_share": 0.5})


def test_filters_come_first() -> None:
    rows = crowd().with_columns(rating=pl.when(pl.col("item") == 3).then(1.0).otherwise(5.0).cast(pl.Float32))
    found = split(rows, like_at_least=4)
    assert 3 not in found.events["item"]
    assert found.not_liked == rows.filter(item=3).height


# --- what is learnt from


def test_known_items_are_split_once_more_for_a_fit_to_stop_by() -> None:
    whole = interactions([(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 9, 4), (1, 4, 5), (1, 5, 6)], "ttte" + "tt")
    found = once_more(whole)
    assert found.select("user", "item", "part").rows() == [
        (0, 1, "train"),
        (0, 2, "train"),
        (0, 3, "valid"),
        (1, 4, "train"),
        (1, 5, "train"),
    ]


def learnt(found: Split, warm: pl.DataFrame) -> str:
    """What the check says of a model that has learnt from `warm`."""
    inputs = {
        "split": SimpleNamespace(table=found._asdict().__getitem__),
        "warm": SimpleNamespace(table={"events": warm}.__getitem__),
    }
    verdict = nothing_held_out_is_learnt(None, inputs, None)  # type: ignore[arg-type]
    return "" if verdict.passed else verdict.description


def test_a_model_that_has_learnt_of_what_is_to_be_found_is_refused() -> None:
    found = split(crowd())
    warm = once_more(found.events)
    assert learnt(found, warm) == ""
    leak = found.events.filter(part="test").head(1).with_columns(part=pl.lit("train"))
    assert learnt(found, pl.concat([warm, leak])).startswith("1 rows of items that are to be found, 1 that are")


# --- properties

drawn_rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 30)), min_size=6, max_size=60
)


@settings(max_examples=40)
@given(drawn_rows, st.integers(0, 50), st.sampled_from([0.1, 0.3]))
def test_no_history_holds_the_future_or_an_item_held_out_and_nothing_later_is_learnt(
    drawn: list, seed: int, share: float
) -> None:
    rows = interactions(drawn)
    try:
        found = split(rows, seed=seed, test_share=share)
    except SplitError:  # nobody's last item held out is of one of the parts
        reject()
    train = found.events.filter(part="train")
    for _, user, at, history, targets in asked(found):
        own = train.filter(user=user).sort("row")
        assert history == own["item"].to_list()
        assert (own["at"] <= at).all()
        assert not set(targets) & set(train["item"])
    held: Any = SimpleNamespace(read=found._asdict().__getitem__, table={"interactions": rows}.__getitem__)
    for check in CHECKS:
        given_settings = ColdItemSettings.model_validate({**SHARES, "test_share": share, "seed": seed})
        assert check(held, {"dataset": held}, given_settings).passed


def test_a_split_hangs_on_no_order_of_rows_in_memory() -> None:
    one, other = (split(frame) for frame in (crowd(), crowd().sample(fraction=1, shuffle=True, seed=1)))
    assert one.events.equals(other.events)
    assert one.queries.equals(other.queries)


# --- planted faults


def test_a_training_row_of_an_item_held_out_is_found_whoever_used_it() -> None:
    found = split(crowd())
    lost = crowd().join(found.events, on="row", how="anti")  # events held out that nobody is asked for
    cold = found.catalogue.filter(pl.col("train_rows") == 0)["item"]
    leak = lost.filter(pl.col("item").is_in(cold.implode())).head(1).with_columns(part=pl.lit("train"))
    with_leak = pl.concat([found.events, Events.validate(leak.select(found.events.columns), cast=True)])
    said = judged(no_item_held_out_is_known, found, crowd(), events=with_leak)
    assert said == "1 training rows of items held out"


def test_an_item_held_out_in_a_history_and_a_known_target_are_found() -> None:
    found = split(crowd())
    swapped = found.queries.with_columns(history="targets", targets=pl.col("history").list.head(1))
    said = judged(no_item_held_out_is_known, found, crowd(), queries=swapped)
    assert said == "12 of them in histories; 12 targets that are not held out"


def test_a_training_row_after_the_query_is_found() -> None:
    found = split(crowd())
    user = found.queries["user"][0]
    late = found.events.with_columns(
        row=pl.when((pl.col("user") == user) & (pl.col("part") == "train"))
        .then(pl.col("row") + 10_000)
        .otherwise("row")
    )
    assert "training rows came after what their user is asked for" in judged(
        nothing_learnt_came_later, found, crowd(), events=late
    )


def test_a_shortened_history_and_a_doubled_query_are_found() -> None:
    found = split(crowd())
    short = found.queries.with_columns(pl.col("history").list.head(1))
    assert "histories are not what was used before" in judged(
        nothing_learnt_came_later, found, crowd(), queries=short
    )
    again = pl.concat([found.queries, found.queries.head(1)])
    assert "a user is asked twice" in judged(nothing_learnt_came_later, found, crowd(), queries=again)


def test_an_event_that_is_no_interaction_is_found() -> None:
    found = split(crowd())
    strange = found.events.with_columns(at=pl.col("at") + 1)
    said = judged(events_are_interactions, found, crowd(), events=strange)
    assert said.startswith(f"{found.events.height} are none, 0 stand twice")
