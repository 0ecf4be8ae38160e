"""Popularity of the next_item track: one order for everybody."""

from typing import ClassVar

import numpy as np

from pipeline.collab.ranked import blocks
from pipeline.collab.ranked_popularity import popular, ranked_popularity
from tests.contracts import RankerContract
from tests.toy_next import toy


class TestPopularity(RankerContract):
    stage = ranked_popularity
    personal: ClassVar[bool] = False


def test_rows_of_training_are_counted_and_others_are_not() -> None:
    tables = toy([[0, 1, 2, 3], [1, 0, 3, 2], [1, 3, 0]], 4)
    ((_, block),) = blocks(tables.part("test"), 9)
    assert popular(tables.trained)(block).tolist() == [[2, 3, -np.inf, -np.inf]] * 3
