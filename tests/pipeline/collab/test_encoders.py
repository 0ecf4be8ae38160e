"""Vectors as a file: what is written is read, and what does not fit is said."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.collab.encoders import Encoded, every_example_has_vectors, judged, vectors_of, write_vectors
from pipeline.collab.mf import MFSettings, mf
from tests.toy_pairs import HAND, SPLIT, draft_of, examples, make, store_with, taste

ITEMS = np.array([0, 2, 1, 2])


def encoded(users: int = 2, items: int = 3, width: int = 4, of: tuple[int, ...] = (0, 1, 1, 0)) -> Encoded:
    rows = np.arange(users * width, dtype=np.float32).reshape(users, width)
    return Encoded(rows, np.ones((items, 4), np.float32), np.array(of, np.int64))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (encoded(), ""),
        (encoded(of=(0, 1, 1)), "3 examples have vectors, the split has 4"),
        (encoded(items=2), "item 2 has no vector"),
        (encoded(of=(0, 1, 2, 0)), "an example points at no vector"),
        (encoded(of=(0, 1, -1, 0)), "an example points at no vector"),
        (encoded(width=5), "widths differ: [4, 5]"),
    ],
)
def test_vectors_that_do_not_fit_the_examples_are_said(held: Encoded, said: str) -> None:
    verdict = judged(held, ITEMS)
    assert (verdict.passed, verdict.description) == (not said, said)
    assert verdict.facts["user_vectors"] == 2


def test_the_check_reads_the_file_and_the_split(tmp_path: Path) -> None:
    split = store_with(examples(HAND), tmp_path).get("ctr/split", SPLIT)
    draft = draft_of(mf, tmp_path, {})
    write_vectors(draft, encoded(of=(0, 1) * 7))
    verdict = every_example_has_vectors(draft, {"split": split}, MFSettings())
    assert verdict.description == "item 4 has no vector"


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    broken = encoded()
    broken.item[1, 2] = np.inf
    with pytest.raises(ValueError, match="vectors of items are not finite"):
        write_vectors(draft_of(mf, tmp_path, {}), broken)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = make(mf, taste(), tmp_path, dim=3, penalties=(1.0,), epochs=2)
    found, rows = vectors_of(made), taste()
    assert found.user.shape == (30, 5)
    assert found.user_of_row.tolist() == rows["user"].to_list()


def test_examples_are_found_by_their_row() -> None:
    rows = pl.DataFrame({"row": [7, 3, 9, 12]}, schema={"row": pl.UInt32})
    wanted = pl.Series([12, 3, 3], dtype=pl.UInt32)
    assert encoded(of=(1, 0, 1, 1)).users_of(rows, wanted).to_list() == [1, 0, 0]


def test_a_row_that_is_no_example_is_refused() -> None:
    rows = pl.DataFrame({"row": [7, 3, 9, 12]}, schema={"row": pl.UInt32})
    with pytest.raises(KeyError, match="1 rows are no examples"):
        encoded().users_of(rows, pl.Series([3, 4], dtype=pl.UInt32))
