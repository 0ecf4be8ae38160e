"""Recommendations: lists by hand, what is masked, and every check's fault planted."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.collab import ranked
from pipeline.collab.markov import markov
from pipeline.collab.ranked_popularity import ranked_popularity
from pipeline.evaluate.recommendations import (
    RecommendationsSettings,
    known_by_now,
    lists_are_full,
    nothing_used_is_recommended,
    places_without_gaps,
    recommendations,
    recommended,
    without,
)
from pipeline.schema import Recommendations
from pipeline.stage import Draft, Verdict
from pipeline.study import StudyError
from tests.toy_next import artefact, draft, make, split_of, toy

# Train rows of items 0 to 3: 1, 2, 2, 1; none of 4 and 5. User 3 came after training; user 0 has used all four.
WALKS = toy([[0, 1, 2, 3], [2, 1, 0, 4], [2, 3, 4, 1]], 6, new=[[5, 1]])
DISLIKED = (3, 0)  # an interaction that the track's filters left out
LISTS = [(1, 1, 3, 1.0), (2, 1, 0, 1.0), (3, 1, 2, 2.0), (3, 2, 3, 1.0)]  # user, rank, item, training rows


def interactions() -> pl.DataFrame:
    left_out = pl.DataFrame([DISLIKED], schema={"user": pl.UInt32, "item": pl.UInt32}, orient="row")
    return pl.concat([WALKS.events.select("user", "item"), left_out])


def counts(block: ranked.Block) -> torch.Tensor:
    return torch.tensor([1.0, 2, 2, 1, -torch.inf, -torch.inf]).repeat(len(block.user), 1)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Two fitted models, their split and the dataset."""
    made = [make(one, WALKS, tmp_path) for one in (markov, ranked_popularity)]
    people = pl.DataFrame({"user": range(4), "user_id": [f"u{n}" for n in range(4)]})
    films = pl.DataFrame({"item": range(6), "item_id": [f"i{n}" for n in range(6)]})
    dataset = artefact(
        tmp_path / "dataset",
        interactions=interactions(),
        users=people.cast({"user": pl.UInt32}),
        items=films.cast({"item": pl.UInt32}).with_columns(title=pl.format("Film {}", "item")),
    )
    return {"rankings": made, "split": split_of(made[0]), "dataset": dataset}


@pytest.fixture
def written(inputs: dict[str, Any], tmp_path: Path) -> Callable[..., Draft]:
    """The stage's draft under some settings."""

    def write(**settings: Any) -> Draft:
        out = draft(recommendations, tmp_path)
        recommendations(**inputs, settings=RecommendationsSettings(**settings), out=out)
        return out

    return write


def test_lists_are_the_first_items_that_were_never_used_at_all() -> None:
    found = recommended(counts, WALKS.events, interactions(), 6, top=2)
    assert found.sort("user", "rank").rows() == LISTS


def test_an_item_that_the_filters_left_out_would_be_shown_without_the_dataset() -> None:
    found = recommended(counts, WALKS.events, WALKS.events, 6, top=2)
    assert found.filter(user=3)["item"].to_list() == [2, 0]


def test_all_parts_are_history_in_the_order_in_which_they_happened() -> None:
    found = known_by_now(WALKS.events.sample(fraction=1, shuffle=True, seed=1))
    assert found["history"].to_list() == [[0, 1, 2, 3], [2, 1, 0, 4], [2, 3, 4, 1], [5, 1]]
    assert found["user"].to_list() == [0, 1, 2, 3]
    assert found["targets"].list.len().sum() == 0


@pytest.mark.parametrize("users_at_once", [1, 2, 5, 99])
def test_what_is_masked_hangs_on_no_block(users_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    monkeypatch.setattr(ranked, "CELLS", 30 * users_at_once)
    users = [1, 4, 5, 9, 11]
    events = pl.DataFrame(
        {"row": range(40), "user": random.choice(users, 40), "item": random.integers(0, 30, 40), "at": 0}
    ).cast({"user": pl.UInt32, "item": pl.UInt32})
    found = recommended(lambda block: torch.zeros(len(block.user), 30), events, events, 30, top=30)
    used = {user: set(own["item"]) for (user,), own in events.partition_by("user", as_dict=True).items()}
    listed = {user: own["item"].to_list() for (user,), own in found.partition_by("user", as_dict=True).items()}
    assert listed == {user: sorted(set(range(30)) - items) for user, items in used.items()}


def test_the_models_own_scores_are_left_alone() -> None:
    held = torch.zeros(1, 3)
    block = ranked.Block(torch.tensor([7]), torch.tensor([1]), torch.tensor([0, 1]))
    used = pl.DataFrame({"user": [7], "item": [1]})
    assert without(lambda _: held, used)(block).tolist() == [[0, -torch.inf, 0]]
    assert held.tolist() == [[0, 0, 0]]


# --- the stage


def test_the_table_names_users_items_and_the_model(written: Callable[..., Draft]) -> None:
    out = written(method="popularity", top=2)
    rows = out.read("recommendations")
    assert rows.select("user", "rank", "item", "score").rows() == LISTS
    assert rows["user_id"].to_list() == ["u1", "u2", "u3", "u3"]
    assert rows["title"].to_list() == ["Film 3", "Film 0", "Film 2", "Film 3"]
    assert rows["item_id"].to_list() == ["i3", "i0", "i2", "i3"]
    assert set(rows.select("method", "variant", "seed").rows()) == {("popularity", "default", 0)}
    assert out.metrics["users"] == 3
    assert out.metrics["coverage"] == 3 / 6


def test_where_no_method_is_named_validation_chooses(
    written: Callable[..., Draft], inputs: dict[str, Any]
) -> None:
    for made, value in zip(inputs["rankings"], (0.3, 0.4), strict=True):
        made.manifest["metrics"]["valid_ndcg_10"] = value
    out = written()
    assert (out.metrics["method"], out.metrics["valid_ndcg_10"]) == ("popularity", 0.4)
    assert set(out.read("recommendations")["method"]) == {"popularity"}


def test_a_method_that_is_not_there_is_refused_with_those_that_are(written: Callable[..., Draft]) -> None:
    with pytest.raises(StudyError, match="no fitted model 'sasrec'; known: markov, popularity"):
        written(method="sasrec")


def test_sound_lists_pass_and_short_ones_are_told(
    written: Callable[..., Draft], inputs: dict[str, Any]
) -> None:
    out, settings = written(method="popularity", top=2), RecommendationsSettings(top=2)
    assert [c.name for c in recommendations.checks if c.blocking and c.run(out, inputs, settings).passed] == [
        "nothing_used_is_recommended",
        "places_without_gaps",
    ]
    short = lists_are_full(out, inputs, settings)
    assert (short.passed, short.description) == (False, "3 of 4 lists are short")
    assert short.facts == {"share_full": 0.25}


ROW = {"user": 1, "user_id": "u1", "rank": 1, "item": 3, "item_id": "i3", "title": "Film 3", "score": 1.0}
NAMED = {"method": "popularity", "variant": "default", "seed": 0}


def judged(check: Callable[..., Verdict], inputs: dict[str, Any], *rows: dict[str, Any]) -> str:
    table = pl.DataFrame(
        [{**ROW, **NAMED, **row} for row in rows], schema=Recommendations.create_empty().schema
    )
    found = check(SimpleNamespace(read=lambda name: table), inputs, RecommendationsSettings())
    assert found.passed == (not found.description)
    return found.description


def test_a_planted_used_item_is_named(inputs: dict[str, Any]) -> None:
    assert judged(nothing_used_is_recommended, inputs, {}) == ""
    assert judged(nothing_used_is_recommended, inputs, {"item": 4}) == "1 recommended items were used before"
    left_out = {"user": DISLIKED[0], "item": DISLIKED[1]}
    assert judged(nothing_used_is_recommended, inputs, left_out) == "1 recommended items were used before"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{}, {"rank": 2, "item": 5}], ""),
        ([{"rank": 2}], "1 lists have a gap or a doubled place"),
        ([{}, {"item": 5}], "1 lists have a gap or a doubled place"),
        ([{}, {"rank": 2}], "1 lists hold an item twice"),
        ([{"user": 8}], "1 lists are of users without events"),
    ],
)
def test_planted_faults_of_places_are_named(
    inputs: dict[str, Any], rows: list[dict[str, Any]], words: str
) -> None:
    assert judged(places_without_gaps, inputs, *rows) == words
