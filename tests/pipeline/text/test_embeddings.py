"""Vectors of texts: principal components against another library, cosines by hand, and what checks find."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text import embeddings
from pipeline.text.embeddings import as_array, every_item_has_a_vector, mean_cosine, principal, unit


def cloud(n: int = 200, width: int = 12, seed: int = 0) -> np.ndarray:
    """Rows far from the origin, of other spread in every direction."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, width)) * np.arange(1, width + 1) + 50).astype(np.float32)


def test_components_are_those_of_another_library_up_to_sign() -> None:
    from sklearn.decomposition import PCA

    theirs = PCA(n_components=5, svd_solver="full").fit(cloud().astype(np.float64))
    ours = principal(cloud(), 5)
    assert np.abs(ours.coordinates) == pytest.approx(np.abs(theirs.transform(cloud())), abs=1e-3)
    assert ours.share == pytest.approx(theirs.explained_variance_ratio_.sum(), abs=1e-6)


def test_a_direction_points_to_where_its_largest_number_is_positive() -> None:
    rows = np.array([[0, 0], [-4, 0], [4, 0], [0, 1], [0, -1]], dtype=np.float32)
    found = principal(rows, 2).coordinates
    assert found == pytest.approx(rows, abs=1e-6)
    assert principal(-rows, 2).coordinates == pytest.approx(-rows, abs=1e-6)


def test_blocks_of_rows_change_nothing_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = principal(cloud(), 4).coordinates
    monkeypatch.setattr(embeddings, "ROWS_AT_ONCE", 7)
    assert principal(cloud(), 4).coordinates == pytest.approx(whole, rel=1e-5, abs=1e-4)


def test_no_more_components_than_rows_span() -> None:
    flat = np.outer(np.arange(9), np.ones(6)).astype(np.float32)  # a line
    assert principal(flat, 4).coordinates.shape == (9, 1)
    assert principal(cloud(4), 12).coordinates.shape == (4, 3)
    assert principal(cloud(1), 12).coordinates.tolist() == [[0.0]]


def test_rows_that_are_all_alike_have_no_direction() -> None:
    same = principal(np.ones((5, 3), dtype=np.float32), 2)
    assert (same.coordinates.tolist(), same.share) == ([[0.0]] * 5, 0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 5))
def test_all_components_keep_all_distances(n: int, width: int, seed: int) -> None:
    rows = cloud(n, width, seed)
    found = principal(rows, width).coordinates
    theirs, ours = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (rows, found))
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-2)


def test_unit_rows_have_length_one_and_zeros_stay() -> None:
    assert unit(np.array([[3, 4], [0, 0]], dtype=np.float32)) == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


def test_mean_cosine_tells_a_cone_from_a_cloud() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 20)).astype(np.float32)
    assert abs(mean_cosine(rows)) < 0.02
    assert mean_cosine(rows + 20) > 0.95
    assert mean_cosine(np.zeros((3, 2), dtype=np.float32)) == 1
    assert mean_cosine(rows[:1]) == 1
    opposite = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    assert mean_cosine(opposite) == -1  # a row is never compared with itself


def table(*vectors: list[float], items: list[int] | None = None) -> pl.DataFrame:
    rows = {"item": items or list(range(len(vectors))), "vector": list(vectors)}
    return pl.DataFrame(rows, schema={"item": pl.UInt32, "vector": pl.List(pl.Float32)})


def test_a_table_becomes_the_array_that_it_holds() -> None:
    assert as_array(table([1, 2], [3, 4])).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("found", "passes"),
    [
        (table([1, 2], [3, 4]), True),
        (table([1, 2]), False),
        (table([1, 2], [3, 4], items=[1, 0]), False),
        (table([1, 2], [3]), False),
        (table([1, 2], [3, float("nan")]), False),
    ],
)
def test_a_missing_moved_short_or_broken_vector_is_found(found: pl.DataFrame, passes: bool) -> None:
    wanted = SimpleNamespace(table=lambda name: table([0], [0]).select("item"))
    verdict = every_item_has_a_vector(SimpleNamespace(read=lambda name: found), {"item_text": wanted}, None)  # type: ignore[arg-type]
    assert verdict.passed == passes


def test_collapsed_vectors_are_found() -> None:
    for cosine, passes in ((0.1, True), (0.93, False)):
        draft = SimpleNamespace(metrics={"mean_cosine": cosine})
        assert embeddings.not_collapsed(draft, {}, None).passed == passes  # type: ignore[arg-type]
    assert [check.blocking for check in embeddings.EMBEDDING_CHECKS] == [True, False]
