"""Samples and tokens, by hand."""

import hashlib

import numpy as np
import pytest

from pipeline.codes.ids import Ids
from pipeline.codes.prefixes import asked, batch, bucket, lengths, samples, tokens_of
from pipeline.collab.events import Trained

IDS = Ids(np.array([0, 1, 3]), np.array([[0, 1], [2, 0], [1, 1]]), (3, 2))
ROWS = Trained(np.array([0, 0, 0, 0, 1, 2, 2]), np.array([0, 1, 3, 0, 1, 3, 1]), 3, 4)


def test_tokens_are_offset_by_place_and_an_item_without_an_id_has_none() -> None:
    found = tokens_of(IDS, 4, None, 0)
    assert found.items.tolist() == [[2, 6], [4, 5], [-1, -1], [3, 6]]
    assert found.starts == (2, 5)
    assert found.vocabulary == 7
    assert found.users is None


def test_users_come_behind_all_codes() -> None:
    found = tokens_of(IDS, 4, ["a", "b", "c"], 5)
    assert found.vocabulary == 12
    assert found.users is not None
    assert found.users.tolist() == [7 + bucket(name, 5) for name in "abc"]


@pytest.mark.parametrize("user_id", ["1", "A2SUAM1J3GNN3B", "ü"])
def test_a_bucket_is_the_first_eight_bytes_of_blake2b(user_id) -> None:
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).hexdigest()
    assert bucket(user_id, 2000) == int(digest, 16) % 2000


def test_buckets_are_the_same_for_ever() -> None:
    assert [bucket(name, 2000) for name in ("1", "2", "A2SUAM1J3GNN3B")] == [1910, 1100, 385]


def test_every_place_but_a_users_first_is_a_target() -> None:
    found = samples(ROWS, tokens_of(IDS, 4, None, 0), history=2)
    assert found.user.tolist() == [0, 0, 0, 2]
    assert found.start.tolist() == [0, 0, 1, 5]
    assert found.target.tolist() == [1, 2, 3, 6]


def test_events_of_items_without_an_id_are_left_out_before() -> None:
    rows = Trained(np.array([0, 0, 0]), np.array([0, 2, 1]), 1, 4)
    found = samples(rows, tokens_of(IDS, 4, None, 0), history=5)
    assert found.items.tolist() == [0, 1]
    assert found.target.tolist() == [1]


def test_users_with_one_event_teach_nothing() -> None:
    rows = Trained(np.array([0, 1]), np.array([0, 1]), 2, 4)
    with pytest.raises(ValueError, match="no user has two training events"):
        samples(rows, tokens_of(IDS, 4, None, 0), history=5)


def test_a_batch_holds_user_codes_end_and_padding() -> None:
    tokens = tokens_of(IDS, 4, ["a", "b", "c"], 5)
    found = samples(ROWS, tokens, history=2)
    inputs, outputs = batch(found, tokens, np.array([2, 3]))
    assert tokens.users is not None
    a, c = tokens.users[0], tokens.users[2]
    assert inputs.tolist() == [[a, 4, 5, 3, 6, 1], [c, 3, 6, 1, 0, 0]]
    assert outputs.tolist() == [[2, 6], [4, 5]]
    assert lengths(found, tokens, np.array([2, 3])).tolist() == [6, 4]


def test_a_question_reads_the_last_known_items_and_is_never_empty() -> None:
    tokens = tokens_of(IDS, 4, None, 0)
    items, offsets = np.array([0, 1, 2, 3, 2, 2]), np.array([0, 4, 4, 6])
    found = asked(items, offsets, np.array([0, 1, 2]), tokens, history=2)
    assert found.tolist() == [[4, 5, 3, 6, 1], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
