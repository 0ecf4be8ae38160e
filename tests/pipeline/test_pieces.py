"""Tables written piece by piece: judged as a whole table is, and bits that hang on the rows alone."""

from pathlib import Path

import polars as pl
import pytest
from dataframely.exc import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from pipeline import pieces
from pipeline.schema import Curve, Examples
from tests.toy_pairs import HAND, examples

ROWS = examples(HAND * 3, history=(4, 2))


def cut(frame: pl.DataFrame, *lengths: int) -> list[pl.DataFrame]:
    """The frame in pieces of these lengths, and one of the rest."""
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    starts = [0, *ends]
    return [frame.slice(start, length) for start, length in zip(starts, [*lengths, frame.height], strict=True)]


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12))
def test_pieces_are_of_one_length_and_hold_every_row_in_order(lengths: list[int], rows: int) -> None:
    numbers = pl.DataFrame({"n": range(sum(lengths) + 5)})
    found = list(pieces.even(cut(numbers, *lengths), rows))
    assert pl.concat(found).equals(numbers)
    assert {piece.height for piece in found[:-1]} <= {rows}
    assert 0 < found[-1].height <= rows


def test_no_frames_are_no_pieces() -> None:
    assert list(pieces.even([], 3)) == []
    assert list(pieces.even([ROWS.clear()], 3)) == []


@pytest.mark.parametrize("shape", ["lazy", "many", "one", "with empty ones"])
def test_however_rows_come_the_file_is_the_same(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "ROWS", 10)
    frames = {
        "lazy": ROWS.lazy(),
        "many": iter(cut(ROWS, 1, 2, 3, 11)),
        "one": [ROWS],
        "with empty ones": cut(ROWS, 0, 20, 0),
    }
    assert pieces.write(Examples, cut(ROWS, 5, 5), tmp_path / "first.parquet") == ROWS.height
    assert pieces.write(Examples, frames[shape], tmp_path / "second.parquet") == ROWS.height
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    assert pl.read_parquet(tmp_path / "second.parquet").equals(ROWS)
    assert pl.read_parquet_schema(tmp_path / "second.parquet") == ROWS.schema


def test_a_query_is_cast_and_put_in_order_like_a_frame(tmp_path: Path) -> None:
    loose = ROWS.cast({"user": pl.Int64, "label": pl.Int32}).select(
        pl.lit(1).alias("more"), *ROWS.columns[::-1]
    )
    pieces.write(Examples, loose.lazy(), tmp_path / "t.parquet")
    assert pl.read_parquet(tmp_path / "t.parquet").equals(ROWS)


def test_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    assert pieces.write(Examples, [], tmp_path / "t.parquet") == 0
    assert pl.read_parquet(tmp_path / "t.parquet").equals(ROWS.clear())


@pytest.mark.parametrize("lazy", [True, False])
def test_a_broken_row_in_a_late_piece_is_refused(
    lazy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "ROWS", 10)
    broken = ROWS.with_columns(user=pl.when(pl.col("row") == ROWS.height - 1).then(None).otherwise("user"))
    with pytest.raises(ValidationError, match=r"(?s)user.*nullability"):
        pieces.write(Examples, broken.lazy() if lazy else cut(broken, 7), tmp_path / "t.parquet")


def test_a_key_that_two_pieces_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS", 10)
    twice = pl.concat([ROWS, ROWS.head(2)])
    with pytest.raises(ValidationError, match="examples: 2 rows repeat the primary key row"):
        pieces.write(Examples, [twice], tmp_path / "examples.parquet")


def test_a_table_without_a_key_may_repeat_its_rows(tmp_path: Path) -> None:
    point = pl.DataFrame({"phase": "a", "step": 1, "metric": "loss", "value": 0.5})
    assert pieces.write(Curve, [point, point], tmp_path / "t.parquet") == 2
