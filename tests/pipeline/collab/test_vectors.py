"""Vectors of the next_item track: products, cold rows, and the guard on their tables."""

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipeline.collab.bpr import bpr
from pipeline.collab.labelled import Known
from pipeline.collab.ranked import Block
from pipeline.collab.vectors import Vectors, every_id_has_a_vector, from_vectors, write_vectors
from pipeline.stage import Draft
from pipeline.store import Store
from tests.toy_next import Toy, spec_of, store_with, toy

KNOWN = Known(np.array([True, True, False]), np.array([True, False, True]))
HELD = Vectors(
    np.array([[1, 0], [3, 2], [9, 9]], dtype=np.float32), np.array([[1, 1], [5, 5], [0, 2]], dtype=np.float32)
)
TABLES = toy([[0, 2, 2, 0], [2, 0, 0]], 3, new=[[0]])


def test_scores_are_inner_products_and_a_cold_user_has_the_mean_vector() -> None:
    block = Block(torch.tensor([0, 2]), torch.tensor([], dtype=torch.int64), torch.tensor([0, 0, 0]))
    found = from_vectors(HELD, KNOWN)(block)
    assert found.tolist() == [[1, -np.inf, 0], [3, -np.inf, 2]]


@pytest.fixture
def store(tmp_path) -> Store:
    return store_with(TABLES, tmp_path)


def draft_of(store: Store, tables: Toy = TABLES) -> Draft:
    draft = Draft(store.draft(store.root / "drafts"), bpr, spec_of(bpr, store), store.root)
    write_vectors(draft, HELD, KNOWN)
    return draft


def verdict(draft: Draft, store: Store):
    return every_id_has_a_vector(draft, {"split": store.get("next_item/split", "6" * 32)}, None)


def test_tables_hold_the_mean_where_there_are_no_training_rows(store) -> None:
    draft = draft_of(store)
    assert draft.read("user_vectors")["vector"].to_list() == [[1, 0], [3, 2], [2, 1]]
    assert draft.read("item_vectors")["vector"].to_list() == [[1, 1], [0.5, 1.5], [0, 2]]
    assert draft.read("item_vectors")["trained"].to_list() == [True, False, True]
    tensors = load_file(draft.file("vectors.safetensors"))
    assert tensors["users"].tolist() == draft.read("user_vectors")["vector"].to_list()


def test_the_guard_passes_whole_tables(store) -> None:
    assert verdict(draft_of(store), store).passed


@pytest.mark.parametrize("table", ["user_vectors", "item_vectors"])
@pytest.mark.parametrize("fault", ["missing", "short"])
def test_the_guard_sees_a_missing_or_a_short_vector(store, table: str, fault: str) -> None:
    draft = draft_of(store)
    rows = draft.read(table)
    short = [*rows["vector"].to_list()[:2], [1.0]]
    whole = rows.with_columns(vector=pl.Series(short, dtype=pl.List(pl.Float32)))
    draft.table(table, rows.head(2) if fault == "missing" else whole)
    assert not verdict(draft, store).passed
