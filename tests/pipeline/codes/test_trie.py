"""The trie: what may follow a beginning, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codes.ids import Ids
from pipeline.codes.trie import grow

CODES = np.array([[1, 0, 0], [0, 2, 0], [1, 0, 1], [0, 0, 0]])
SMALL = Ids(np.array([10, 11, 12, 13]), CODES, (2, 3, 2))


def test_children_are_the_codes_that_go_on_to_an_id() -> None:
    trie = grow(SMALL)
    assert trie.children(0, torch.tensor([0])).tolist() == [[0, 1]]
    assert trie.children(1, torch.tensor([0, 1])).tolist() == [[0, -1, 1], [2, -1, -1]]
    assert trie.children(2, torch.tensor([2, 0])).tolist() == [[2, 3], [0, -1]]


def test_leaves_are_the_items_in_order_of_their_codes() -> None:
    trie = grow(SMALL)
    assert trie.items.tolist() == [13, 11, 10, 12]
    assert [len(depth.code) for depth in trie.depths] == [1, 2, 3, 4]
    assert trie.depths[2].parent.tolist() == [0, 0, 1]


def test_a_node_is_alive_while_anything_below_it_may_be_shown() -> None:
    hidden = torch.zeros(2, 14, dtype=torch.bool)
    hidden[0, [10, 12]] = True
    hidden[1, [10, 11, 12, 13]] = True
    root, first, second, leaf = grow(SMALL).alive(hidden)
    assert root.tolist() == [[True], [False]]
    assert first.tolist() == [[True, False], [False, False]]
    assert second[0].tolist() == [True, True, False]
    assert leaf[0].tolist() == [True, True, False, False]


@given(st.sets(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30), st.randoms())
def test_every_walk_to_a_leaf_spells_an_id_and_every_id_is_found(found, random) -> None:
    rows = sorted(found, key=lambda _: random.random())
    trie = grow(Ids(np.arange(len(rows)) + 5, np.array(rows), (4, 4, 4)))
    spelled, front = {}, [(0, ())]
    for depth in range(3):
        children = trie.children(depth, torch.tensor([node for node, _ in front])).tolist()
        front = [
            (child, (*codes, code))
            for (_, codes), line in zip(front, children, strict=True)
            for code, child in enumerate(line)
            if child >= 0
        ]
    spelled = {codes: int(trie.items[node]) - 5 for node, codes in front}
    assert spelled == {codes: place for place, codes in enumerate(rows)}


@pytest.mark.parametrize(
    ("codes", "items", "said"),
    [
        ([], [], "no id to build"),
        ([[0, 3]], [1], r"outside the sizes \(2, 3\)"),
        ([[-1, 0]], [1], r"outside the sizes \(2, 3\)"),
        ([[1, 2], [0, 0], [1, 2]], [7, 8, 9], "item 9 has the same id"),
    ],
)
def test_ids_that_are_none_are_refused(codes, items, said) -> None:
    with pytest.raises(ValueError, match=said):
        grow(Ids(np.array(items, dtype=np.int64), np.array(codes, dtype=np.int64).reshape(-1, 2), (2, 3)))
