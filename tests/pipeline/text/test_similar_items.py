"""Similar items: neighbours by hand and by brute force, and what the checks find."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.schema import SimilarItems
from pipeline.text import similar_items
from pipeline.text.embeddings import unit
from pipeline.text.similar_items import SimilarItemsSettings, nearest

EAST, NORTH, NORTH_EAST, WEST = [2, 0], [0, 1], [3, 3], [-1, 0]


def found(vectors: np.ndarray, k: int, at_once: int = 4096, items: list[int] | None = None) -> pl.DataFrame:
    numbers = pl.Series(items or range(len(vectors)), dtype=pl.UInt32)
    return SimilarItems.validate(pl.concat(nearest(numbers, vectors, k, at_once)), cast=True)


def test_neighbours_by_hand() -> None:
    table = found(np.array([EAST, NORTH, NORTH_EAST, WEST], dtype=np.float32), k=2)
    half = pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert table.rows() == [
        (0, 1, 2, half),
        (0, 2, 1, 0),
        (1, 1, 2, half),
        (1, 2, 0, 0),  # east and west are equally far from north: in order of item
        (2, 1, 0, half),
        (2, 2, 1, half),
        (3, 1, 1, 0),
        (3, 2, 2, pytest.approx(-np.sqrt(0.5), abs=1e-6)),
    ]


def test_items_are_named_by_their_numbers_not_their_places() -> None:
    table = found(np.array([EAST, NORTH, NORTH_EAST], dtype=np.float32), k=1, items=[5, 7, 30])
    assert table.select("item", "neighbour").rows() == [(5, 30), (7, 30), (30, 5)]


def test_an_item_among_many_equals_is_still_not_its_own_neighbour() -> None:
    table = found(np.ones((9, 3), dtype=np.float32), k=3)
    assert table.filter(pl.col("item") == pl.col("neighbour")).is_empty()
    assert table.filter(item=0)["neighbour"].to_list() == [1, 2, 3]
    assert table.group_by("item").len()["len"].unique().to_list() == [3]


def test_no_more_neighbours_than_items() -> None:
    assert found(np.eye(4, dtype=np.float32), k=50).height == 12
    assert list(nearest(pl.Series([0]), np.ones((1, 2), dtype=np.float32), 5)) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(1, 12), st.integers(1, 50), st.integers(0, 9))
def test_neighbours_are_those_of_brute_force_whatever_the_batch(
    n: int, width: int, k: int, at_once: int, seed: int
) -> None:
    vectors = np.random.default_rng(seed).integers(-2, 3, (n, width)).astype(np.float32)
    table, cosines = found(vectors, k, at_once), unit(vectors) @ unit(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    best = -np.sort(-cosines, axis=1)[:, : min(k, n - 1)]
    assert table["similarity"].to_numpy().reshape(best.shape) == pytest.approx(best, abs=2e-6)
    shown = cosines[table["item"].to_numpy(), table["neighbour"].to_numpy()]
    assert table["similarity"].to_numpy() == pytest.approx(shown, abs=2e-6)
    assert table.select("item", "neighbour").is_unique().all()


GOOD = pl.DataFrame(
    {
        "item": [0, 0, 1, 1, 2, 2],
        "rank": [1, 2] * 3,
        "neighbour": [1, 2, 0, 2, 1, 0],
        "similarity": [0.9, 0.5] * 3,
    }
)
FAULTS = {
    "none_is_its_own_neighbour": [
        GOOD.with_columns(neighbour=pl.Series([0, 2, 0, 2, 1, 0])),
        GOOD.with_columns(neighbour=pl.Series([1, 1, 0, 2, 1, 0])),
    ],
    "similarities_fall_from_one": [
        GOOD.with_columns(similarity=pl.Series([1.5, 0.5] * 3)),
        GOOD.with_columns(similarity=pl.Series([0.9, 0.5, 0.5, 0.9, 0.9, 0.5])),
    ],
    "as_many_as_asked": [GOOD.head(5), GOOD.with_columns(rank=pl.lit(1))],
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_check_passes_what_is_good_and_finds_its_faults(name: str) -> None:
    check = getattr(similar_items, name)
    items = SimpleNamespace(scan=lambda name: GOOD.lazy().select("item").unique())

    def judge(table: pl.DataFrame) -> bool:
        draft = SimpleNamespace(scan=lambda name: table.lazy())
        return check(draft, {"vectors": items}, SimilarItemsSettings(k=2)).passed

    assert judge(GOOD)
    assert [judge(fault) for fault in FAULTS[name]] == [False, False]


def test_both_kinds_of_vectors_have_their_own_stage() -> None:
    stages = (similar_items.lm, similar_items.text)
    assert [(s.name, s.inputs["vectors"], s.reference.split(":")[1]) for s in stages] == [
        ("similar_items/lm", "lm_embeddings", "lm"),
        ("similar_items/text", "text_embeddings", "text"),
    ]
