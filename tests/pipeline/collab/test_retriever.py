"""The retriever's own order of its lists, and figures beside it, by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from pipeline.collab.retriever import beside_the_retriever, own_order
from tests.toy_next import artefact

ORDER = ("track", "method", "variant", "seed", "part", "user", "rank", "item", "score", "target")


def test_the_order_is_that_of_the_model_and_seed_that_retrieved_and_of_its_lists(tmp_path: Path) -> None:
    rows = [
        ("rerank/random_20", "als", "default", 4, "test", 1, 1, 9, 1.0, True),
        ("rerank/retrieved_5", "als", "default", 4, "test", 1, 2, 8, 0.5, True),
        ("rerank/retrieved_5", "als", "default", 4, "test", 1, 1, 9, 1.0, False),
        ("rerank/retrieved_5", "als", "default", 2, "test", 1, 1, 8, 1.0, True),
        ("rerank/retrieved_5", "als", "seen_kept", 4, "test", 1, 1, 8, 1.0, True),
        ("rerank/retrieved_5", "bpr", "default", 4, "test", 1, 1, 8, 1.0, True),
    ]
    orders = artefact(tmp_path / "orders", rankings=pl.DataFrame(rows, schema=list(ORDER), orient="row"))
    lists = artefact(tmp_path / "lists", candidates=pl.DataFrame({"list": ["retrieved_5"] * 2}))
    retrieved = cast(Any, SimpleNamespace(scan=lists.scan, metrics={"retriever": "als"}))
    found = own_order(retrieved, orders)
    assert found.select("user", "rank", "item", "score", "target").rows() == [
        (1, 1, 9, 1.0, False),
        (1, 2, 8, 0.5, True),
    ]


def order(*rows: tuple[int, int, int, float | None, bool]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "rank", "item", "score", "target"], orient="row")


def test_figures_stand_beside_and_a_target_that_was_put_in_is_lost_in_the_open_form() -> None:
    own = order(
        (1, 1, 5, 3.0, True),
        (1, 2, 6, 2.0, False),
        (2, 1, 5, 3.0, False),
        (2, 2, 6, 2.0, True),  # last: perhaps not retrieved
        (3, 1, 6, None, True),  # not even scored
        (3, 2, 5, None, False),
        (4, 1, 7, 9.0, False),
        (4, 2, 6, 8.0, True),
        (4, 3, 5, 7.0, False),
    )
    ours = order(*((user, 1, 5 if user == 1 else 6, 1.0, True) for user in (1, 2, 3, 4)))
    found = beside_the_retriever(ours, own)
    assert (found["hr_1"], found["retriever_hr_1"]) == (1, 1 / 4)
    assert (found["hr_10"], found["retriever_hr_10"]) == (1, 3 / 4)
    assert found["retriever_ndcg_10"] == pytest.approx((1 + 2 * 0.63093) / 4, abs=1e-5)
    assert found["open_hr_10"] == 2 / 4
