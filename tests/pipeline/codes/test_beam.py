"""The beam against exact scores: the same numbers, the same first items, nothing that is no item's."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pipeline.codes import beam as decoding
from pipeline.codes.beam import Writer, beam, exact
from pipeline.codes.ids import Ids, with_digits
from pipeline.codes.prefixes import FIRST
from pipeline.codes.t5 import T5, Shape
from pipeline.codes.trie import grow
from pipeline.collab.pairs import generator

ITEMS, USERS = 300, 120
RNG = np.random.default_rng(0)
CODES = with_digits(RNG.integers(8, size=(ITEMS, 3)))
IDS = Ids(np.arange(ITEMS) + 4, CODES, (8, 8, 8, int(CODES[:, -1].max()) + 1))  # items 0 to 3 have no id
STARTS = tuple(int(start) for start in FIRST + np.r_[0, np.cumsum(IDS.sizes)[:-1]])
INPUTS = torch.from_numpy(RNG.integers(2, 26, size=(USERS, 9)))
N_ITEMS = ITEMS + 5


def learn(network: T5) -> None:
    """Teach it something: which items follow a first token, some more often than others."""
    steps = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(60):
        rows = RNG.integers(USERS, size=32)
        item = (INPUTS[rows, 0].numpy() * 11 + np.minimum(RNG.geometric(0.03, size=32), 299)) % ITEMS
        outputs = torch.from_numpy(CODES[item]) + torch.tensor(STARTS)
        steps.zero_grad()
        cross_entropy(network(INPUTS[rows], outputs).flatten(0, 1), outputs.flatten()).backward()
        steps.step()


@pytest.fixture(scope="module")
def network() -> T5:
    shape = Shape(
        STARTS[-1] + IDS.sizes[-1], width=16, inner=32, heads=2, head_width=8, layers=1, decoder_layers=2
    )
    found = T5(shape, generator(1))
    learn(found)
    return found


@pytest.fixture(scope="module", params=["after", "before"])
def writer(request, network: T5) -> Writer:
    return Writer(network, grow(IDS), STARTS, request.param)


@pytest.fixture(scope="module")
def scores(writer: Writer) -> torch.Tensor:
    return exact(writer, INPUTS, N_ITEMS)


@torch.no_grad()
def by_hand(writer: Writer, user: int, item: int) -> float:
    """The log-probability of one item's id, by reading it whole."""
    codes = torch.from_numpy(CODES[item - 4])
    written = (codes + torch.tensor(STARTS))[None]
    logits, total = writer.network(INPUTS[user : user + 1], written)[0], 0.0
    for place, start in enumerate(STARTS):
        same = (CODES[:, :place] == CODES[item - 4, :place]).all(1)
        valid = torch.from_numpy(np.unique(CODES[same, place])) + start
        line = logits[place] if writer.mask == "after" else logits[place, valid]
        total += (logits[place, written[0, place]] - line.logsumexp(0)).item()
    return total


def test_exact_scores_are_those_of_each_id_read_whole(writer: Writer, scores: torch.Tensor) -> None:
    for user, item in [(0, 4), (3, 77), (119, 303), (60, 200)]:
        assert float(scores[user, item]) == pytest.approx(by_hand(writer, user, item), abs=1e-4)


def test_items_without_an_id_have_no_score(scores: torch.Tensor) -> None:
    assert (scores[:, [0, 1, 2, 3, 304]] == -torch.inf).all()
    assert scores[:, 4:304].isfinite().all()


def test_probabilities_of_all_items_sum_to_one_where_only_the_valid_count(writer, scores) -> None:
    total = scores.exp().sum(1)
    if writer.mask == "before":
        assert torch.allclose(total, torch.ones(USERS), atol=1e-4)
    else:
        assert (total < 1).all()


def test_exact_scores_do_not_hang_on_how_many_nodes_are_read_at_once(writer, scores, monkeypatch) -> None:
    monkeypatch.setattr(decoding, "NODES", 700)
    assert torch.allclose(exact(writer, INPUTS, N_ITEMS), scores, atol=1e-5)


def test_fifty_beams_find_the_exact_first_ten_of_nearly_everyone(writer, scores) -> None:
    found = beam(writer, INPUTS, 50)
    best = scores.topk(10).indices
    same = (found.items[:, :10].sort().values == best.sort().values).all(1)
    assert same.float().mean() >= 0.99
    assert torch.allclose(found.scores, scores.gather(1, found.items), atol=1e-4)


def test_as_many_beams_as_items_give_all_scores(writer, scores) -> None:
    found = beam(writer, INPUTS, 1000)
    assert found.items.shape == (USERS, ITEMS)
    spread = torch.full_like(scores, -torch.inf).scatter(1, found.items, found.scores)
    assert torch.allclose(spread, scores, atol=1e-4)


def test_few_beams_are_fewer_and_still_fall(writer) -> None:
    found = beam(writer, INPUTS, 3)
    assert found.items.shape == (USERS, 3)
    assert (found.scores.diff() <= 0).all()


def test_every_id_written_is_an_items_and_comes_once(writer) -> None:
    found = beam(writer, INPUTS, 50)
    known = {tuple(codes): item for item, codes in zip(IDS.items.tolist(), CODES.tolist(), strict=True)}
    for items, codes in zip(found.items.tolist(), found.codes.tolist(), strict=True):
        assert [known.get(tuple(code)) for code in codes] == items
        assert len(set(items)) == 50


def test_hidden_items_never_come_out_and_their_place_is_filled(writer, scores) -> None:
    hidden = torch.zeros(USERS, N_ITEMS, dtype=torch.bool)
    hidden.scatter_(1, scores.topk(40).indices, True)
    found = beam(writer, INPUTS, 50, hidden)
    assert found.scores.isfinite().all()
    assert not hidden.gather(1, found.items).any()
    best = scores.masked_fill(hidden, -torch.inf).topk(5).indices
    assert (found.items[:, :5] == best).all(1).float().mean() > 0.9


def test_where_all_but_two_are_hidden_two_have_a_score(writer) -> None:
    hidden = torch.ones(USERS, N_ITEMS, dtype=torch.bool)
    hidden[:, [9, 100]] = False
    found = beam(writer, INPUTS, 20, hidden)
    finite = found.scores.isfinite()
    assert (finite.sum(1) == 2).all()
    assert set(found.items[finite].tolist()) == {9, 100}
