"""The share rule: lists by hand."""

import numpy as np
import torch

from pipeline.collab.cold_share import rank_in, sharing, shelved, waiting, with_cold
from pipeline.collab.ranked import Block

GROUPS = np.array([0, 1, 0, 1, 0, -1])
COLD = np.array([False, False, True, True, True, True])
SCORES = np.array([[-1.0, -2.0, *[-np.inf] * 4]], dtype=np.float32)


def listed(share: float, scores: np.ndarray = SCORES) -> list[int]:
    found = with_cold(scores, GROUPS, COLD, share)[0]
    return np.argsort(-found, kind="stable")[: np.isfinite(found).sum()].tolist()


def test_a_cold_item_stands_behind_the_first_of_its_group_as_far_as_the_share_goes() -> None:
    assert listed(1.0) == [0, 2, 4, 1, 3]
    assert listed(0.5) == [0, 2, 1, 4]
    assert listed(0.4) == [0, 1, 2]
    assert listed(0.3) == [0, 1]
    assert listed(0.0) == [0, 1]


def test_an_item_without_a_group_is_never_let_in() -> None:
    assert 5 not in listed(1.0)


def test_scores_fall_strictly_along_the_list_also_where_they_were_equal() -> None:
    found = with_cold(np.array([[-1, -1, *[-np.inf] * 4]], dtype=np.float32), GROUPS, COLD, 1.0)[0]
    order = found[[0, 2, 4, 1, 3]]
    assert (np.diff(order) < 0).all()


def test_what_was_used_is_not_listed_but_what_is_like_it_is() -> None:
    used = [np.array([0])]
    found = with_cold(SCORES, GROUPS, COLD, 0.5, used)[0]
    kept = np.argsort(-found, kind="stable").tolist()
    assert [item for item in kept if np.isfinite(found[item]) and item != 0] == [1, 2]
    shelves = shelved(GROUPS, COLD)
    assert shelves == {0: [2, 4], 1: [3]}
    assert list(waiting([0, 1], GROUPS, shelves, 0.5, {0})) == [1, 2]
    assert list(waiting([0, 1], GROUPS, shelves, 1.0, {0})) == [2, 4, 1, 3]


def test_scores_are_shared_block_by_block_and_only_behind_the_first_places() -> None:
    block = Block(torch.arange(2), torch.tensor([0]), torch.tensor([0, 0, 1]))  # the second has used item 0
    scores = torch.from_numpy(np.repeat(SCORES, 2, axis=0))
    whole = sharing(lambda _: scores, GROUPS, COLD, 1.0)(block)
    assert whole[0].argsort(descending=True, stable=True)[:5].tolist() == [0, 2, 4, 1, 3]
    assert whole[1, [2, 4, 1, 3]].diff().max() < 0
    short = sharing(lambda _: scores, GROUPS, COLD, 1.0, listed=1)(block)
    assert torch.isfinite(short[0]).nonzero().flatten().tolist() == [0, 2, 4]
    assert torch.equal(scores, torch.from_numpy(np.repeat(SCORES, 2, axis=0)))  # the model's own are left alone


def test_the_rank_of_an_item_counts_from_one() -> None:
    assert [rank_in(iter([7, 3]), item) for item in (7, 3, 5)] == [1, 2, np.inf]
