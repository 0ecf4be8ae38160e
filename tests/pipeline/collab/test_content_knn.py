"""Content neighbours: profiles and orders by hand, and what they do with items that nobody has used."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.collab.content_knn import ContentKNNSettings, alike, content_knn, directions, profiles, tried
from pipeline.collab.ranked import Block, order
from pipeline.stage import Source, run
from pipeline.store import Artefact
from tests import toy_next
from tests.contracts import RankerContract
from tests.specs import spec_from
from tests.toy_items import VECTORS, put

ITEMS = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 0]], dtype=np.float32)
USUAL = np.array([0.5, 0.5], dtype=np.float32)


def block(*histories: list[int]) -> Block:
    items = torch.tensor([item for history in histories for item in history], dtype=torch.int64)
    offsets = torch.tensor([0, *np.cumsum([len(history) for history in histories])])
    return Block(torch.arange(len(histories)), items, offsets)


def embeddings(vectors: np.ndarray) -> pl.DataFrame:
    """A table `item_embeddings` of items 0, 1, 2 ..."""
    return pl.DataFrame(
        {"item": range(len(vectors)), "vector": vectors.tolist()},
        schema={"item": pl.UInt32, "vector": pl.List(pl.Float32)},
    )


def put_vectors(store: Any) -> None:
    """Vectors of the circle: an item's parity, and in the same half of it how far round it is."""
    item = np.arange(toy_next.ITEMS)
    angle = np.pi * item / toy_next.CIRCLE
    vectors = np.stack([(item % 2) * 2.0, (1 - item % 2) * 2.0, np.cos(angle), np.sin(angle)], axis=1)
    put(store, "text_embeddings", VECTORS, item_embeddings=embeddings(vectors))


class TestContentKNN(RankerContract):
    stage = content_knn

    @classmethod
    def make(cls, folders: pytest.TempPathFactory, seed: int = 1) -> Artefact:
        store = toy_next.store_with(toy_next.circles(), folders.mktemp("ranker"))
        put_vectors(store)
        inputs = {
            "split": Source("next_item/split", toy_next.SPLIT),
            "vectors": Source("text_embeddings", VECTORS),
        }
        return run(spec_from(cls.stage, store, inputs, {}, cls.settings))[0]

    def test_cold_items_are_never_recommended(self, rankings: pl.DataFrame) -> None:
        """Here they are: texts say as much of them as of the others."""
        cold = rankings.filter(pl.col("item") >= toy_next.COLD_ITEM, pl.col("user") < toy_next.LEARNT)
        assert cold["score"].null_count() == 0
        assert (cold["rank"] <= toy_next.ITEMS // 2).any()

    def test_cold_users_get_an_order_and_all_the_same(self, rankings: pl.DataFrame) -> None:
        """Who has no history has an order; who has one of cold items is answered by their texts."""
        empty = rankings.filter(user=toy_next.EMPTY)
        assert empty["score"].null_count() == 0
        first = rankings.filter(pl.col("user") == toy_next.NEW_ON_COLD, pl.col("score").is_not_null())
        assert first["score"].null_count() == 0
        assert first.height == toy_next.ITEMS - 1

    def test_a_user_is_asked_with_all_that_ever_happened(self, made: Artefact) -> None:
        found = toy_next.asked_again(made, toy_next.circles().part("valid"))
        assert found.filter(pl.col("score").is_not_null(), user=0).height == toy_next.ITEMS - toy_next.STEPS + 2


# --- by hand


def test_a_profile_is_the_mean_of_the_last_items() -> None:
    found = profiles(block([0, 1], [1, 1, 0, 0], [2], []), ITEMS, 2, USUAL)
    assert found == pytest.approx(np.array([[0.5, 0.5], [1, 0], [0.6, 0.8], USUAL]))
    whole = profiles(block([0, 1], [1, 1, 0, 0]), ITEMS, 9, USUAL)
    assert whole == pytest.approx(np.array([[0.5, 0.5], [0.5, 0.5]]))


def test_the_order_is_by_cosine_and_an_item_without_a_text_is_last() -> None:
    rows = toy_next.toy([[0, 0, 1, 1]], 4).trained
    found = alike(rows, ITEMS, 1)(block([0], [1], []))
    assert found[:, :3].numpy() == pytest.approx(np.array([[1, 0, 0.6], [0, 1, 0.8], [1, 0, 0.6]]))
    assert (found[:, 3] == -torch.inf).all()  # and who has no history gets what training rows were like


def test_lengths_of_vectors_do_not_count() -> None:
    found = directions(embeddings(ITEMS * np.array([[2], [3], [5], [1]])), 5)
    assert found[:4] == pytest.approx(ITEMS)
    assert not found[4].any()  # an item that the table does not hold


def test_the_length_that_validation_likes_best_is_kept() -> None:
    assert tried({1: 0.1, 3: 0.2, 10: 0.2})["chosen"].to_list() == [False, True, False]


def test_a_length_that_helps_is_found(tmp_path: Path) -> None:
    """Item 2 is like 0, and 3 like 1; the target follows the last item, whatever came before."""
    vectors = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]])
    walks = [[1, 1, 1, 0, 2, 2], [0, 0, 0, 1, 3, 3]]
    store = toy_next.store_with(toy_next.toy(walks, 4), tmp_path)
    put(store, "text_embeddings", VECTORS, item_embeddings=embeddings(vectors))
    inputs = {
        "split": Source("next_item/split", toy_next.SPLIT),
        "vectors": Source("text_embeddings", VECTORS),
    }
    made = run(spec_from(content_knn, store, inputs, {}, {"last": [4, 1]}))[0]
    assert made.metrics["last"] == 1
    assert made.table("trials")["candidate"].to_list() == ["last=4", "last=1"]
    first = order(
        alike(toy_next.toy(walks, 4).trained, directions(embeddings(vectors), 4), 1),
        toy_next.toy(walks, 4).part("valid"),
        4,
    ).filter(rank=1)
    assert first["item"].to_list() == [2, 3]


def test_a_length_of_nothing_is_refused() -> None:
    for last in ([], [0]):
        with pytest.raises(ValueError, match="last"):
            ContentKNNSettings.model_validate({"last": last})
