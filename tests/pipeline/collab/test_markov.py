"""Markov counts: transitions by hand, ties by popularity, and the figures on Amazon Beauty."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.collab.events import trained_rows
from pipeline.collab.markov import follow, markov, transitions
from pipeline.collab.ranked import blocks, order
from pipeline.data.next_item import NextItemSettings, split_up
from pipeline.evaluate.ranking import figures
from tests.contracts import RankerContract
from tests.toy_next import toy

WALKS = [[0, 1, 2, 0, 1, 3, 4], [0, 1, 0, 2, 4, 3], [2, 0, 3, 4, 1]]
TABLES = toy(WALKS, 6, new=[[5, 3], [4]])


class TestMarkov(RankerContract):
    stage = markov


def test_transitions_are_counted_inside_a_user_and_inside_training() -> None:
    counts = transitions(TABLES.trained).toarray()  # train: 0 1 2 0 1, 0 1 0 2, 2 0 3
    assert counts[:4, :4].tolist() == [[0, 3, 1, 1], [1, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert counts[4:].sum() == 0


def test_a_row_of_training_is_one_transition_or_the_first_of_its_user() -> None:
    rows = TABLES.trained
    assert transitions(rows).sum() == len(rows.item) - len(np.unique(rows.user))


def test_scores_are_counts_after_the_last_item_plus_a_share_of_popularity() -> None:
    ((_, block),) = blocks(TABLES.part("valid"), 9)
    found = follow(TABLES.trained)(block)
    share = np.array([5, 3, 3, 1], dtype=np.float32) / 6
    assert np.allclose(found[0, :4], np.array([1, 0, 1, 0]) + share)  # last 1
    assert np.allclose(found[1, :4], np.array([2, 0, 0, 0]) + share)  # last 2
    assert np.isneginf(found[:, 4:].numpy()).all()


def test_equal_counts_stand_by_popularity_then_by_item() -> None:
    found = order(follow(TABLES.trained), TABLES.part("valid"), 6, masked=False)
    own = found.filter(pl.col("user") == 0, pl.col("score").is_not_null())
    assert own["item"].to_list() == [
        0,
        2,
        1,
        3,
    ]  # 0 and 2 came once after 1; the rest by popularity


def test_no_history_or_an_unknown_last_item_gives_the_popular_items() -> None:
    found = order(follow(TABLES.trained), TABLES.part("test"), 6, masked=False)
    for user in (3, 4):
        own = found.filter(pl.col("user") == user, pl.col("score").is_not_null())
        assert own["item"].to_list() == [0, 1, 2, 3]


def test_only_the_last_item_counts() -> None:
    longer = TABLES.part("valid").with_columns(
        history=pl.concat_list(pl.lit([3, 3], pl.List(pl.UInt32)), "history")
    )
    scores = follow(TABLES.trained)
    first, second = (next(blocks(asked, 9))[1] for asked in (TABLES.part("valid"), longer))
    assert scores(first).equal(scores(second))


def test_figures_on_amazon_beauty_are_those_of_the_design(shared_data: Path) -> None:
    source = pl.read_parquet(shared_data / "amazon-beauty-p5" / "interactions.parquet")
    rows = source.select(
        row=pl.int_range(pl.len(), dtype=pl.UInt32),
        user=pl.col("user_idx").cast(pl.UInt32) - 1,
        item=pl.col("item_idx").cast(pl.UInt32) - 1,
        rating=pl.lit(None, dtype=pl.Float32),
        at=pl.col("seq_pos").cast(pl.Int64),
    )
    split = split_up(in_order(rows), rows["item"].unique(), NextItemSettings(), "order")
    scores = follow(trained_rows(split.events, split.queries, split.catalogue.height))
    found = figures(order(scores, split.queries.filter(part="test"), split.catalogue.height, top=0))
    got = [found[name].mean() for name in ("recall_5", "ndcg_5", "recall_10", "ndcg_10")]
    assert got == pytest.approx([0.0513, 0.0389, 0.0668, 0.0439], abs=1e-4)


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows numbered in order of time, as the dataset stage numbers them."""
    return rows.sort("at", "row").with_columns(row=pl.int_range(pl.len(), dtype=pl.UInt32))
