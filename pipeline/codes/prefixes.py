"""What a writer of ids reads and learns from: histories as tokens, every beginning of one a sample.

    training rows -> samples (every place but a user's first is a target) -> inputs (b, s), outputs (b, places)

| token | what it is |
| --- | --- |
| 0 | padding, and what the decoder starts with |
| 1 | the end of the input |
| 2 ... | code c of place l: 2 + the sizes of the places before l + c |
| the last | buckets of users, where there are any: a hash of the source's id |

An input is [user] + the ids of the last items + end, so it is never empty.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.codes.ids import Ids
from pipeline.collab.events import Trained

END, FIRST = 1, 2
Ints = NDArray[np.int64]


class Tokens(NamedTuple):
    """Tokens of items (n_items, places), all -1 for an item without an id; where each place's tokens begin;
    tokens of users (n_users,), or None; how many tokens there are."""

    items: Ints
    starts: tuple[int, ...]
    users: Ints | None
    vocabulary: int


@dataclass(frozen=True)
class Samples:
    """Items of all users one after another; of each sample its user, its first input and its target, which is
    also where its inputs end (m,)."""

    items: Ints
    user: Ints
    start: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.target)


def tokens_of(ids: Ids, n_items: int, users: Sequence[str] | None, buckets: int) -> Tokens:
    """The tokens of ids and of users' source ids, in order of user; `buckets` 0: users have none."""
    starts = FIRST + np.r_[0, np.cumsum(ids.sizes)]
    found = np.full((n_items, len(ids.sizes)), -1, dtype=np.int64)
    found[ids.items] = ids.codes + starts[:-1]
    end = int(starts[-1])
    places = tuple(int(start) for start in starts[:-1])
    if users is None or not buckets:
        return Tokens(found, places, None, end)
    hashed = np.array([end + bucket(user, buckets) for user in users], dtype=np.int64)
    return Tokens(found, places, hashed, end + buckets)


def bucket(user_id: str, buckets: int) -> int:
    """One of so many buckets, the same in every run and on every machine."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


def samples(rows: Trained, tokens: Tokens, history: int) -> Samples:
    """One sample for each training row but a user's first: up to `history` items before it, and the row's item.

    Rows of items without an id are left out before. Raises ValueError where no user has two rows.
    """
    kept = tokens.items[rows.item, 0] >= 0
    user, item = rows.user[kept], rows.item[kept]
    place = np.arange(len(user))
    begin = np.searchsorted(user, user)  # where each row's user begins
    target = place[place > begin]
    if not len(target):
        raise ValueError("no user has two training events, so there is no next item to learn from")
    return Samples(item, user[target], np.maximum(begin[target], target - history), target)


def last_of_each(found: Samples) -> Samples:
    """Each user's last sample alone."""
    last = np.flatnonzero(np.r_[found.user[1:] != found.user[:-1], True])
    return replace(found, user=found.user[last], start=found.start[last], target=found.target[last])


def lengths(found: Samples, tokens: Tokens, rows: Ints) -> Ints:
    """Input tokens of some samples."""
    items = found.target[rows] - found.start[rows]
    return items * tokens.items.shape[1] + 1 + (tokens.users is not None)


def batch(found: Samples, tokens: Tokens, rows: Ints) -> tuple[Tensor, Tensor]:
    """Inputs (b, s), padded on the right, and outputs (b, places) of some samples."""
    inputs = rectangle(found.items, found.start[rows], found.target[rows], found.user[rows], tokens)
    return inputs, torch.from_numpy(tokens.items[found.items[found.target[rows]]])


def rectangle(items: Ints, start: Ints, stop: Ints, users: Ints, tokens: Tokens) -> Tensor:
    """Inputs (b, s) of runs of items [start, stop), each with its user's token before and the end behind."""
    places, front = tokens.items.shape[1], int(tokens.users is not None)
    size = front + (stop - start) * places
    found = np.zeros((len(start), int(size.max()) + 1), dtype=np.int64)
    column = np.arange(found.shape[1])
    inside = (column >= front) & (column < size[:, None])
    row, at = np.nonzero(inside)
    nth, place = np.divmod(at - front, places)
    found[row, at] = tokens.items[items[start[row] + nth], place]
    found[np.arange(len(start)), size] = END
    if tokens.users is not None:
        found[:, 0] = tokens.users[users]
    return torch.from_numpy(found)


def asked(items: Ints, offsets: Ints, users: Ints, tokens: Tokens, history: int) -> Tensor:
    """Inputs (b, s) of whole histories items[offsets[i]:offsets[i + 1]]: the last ones that have an id."""
    known = tokens.items[items, 0] >= 0
    before = np.r_[0, np.cumsum(known)]
    stop = before[offsets[1:]]
    start = np.maximum(before[offsets[:-1]], stop - history)
    return rectangle(items[known], start, stop, users, tokens)
