"""Caser's filters, against loops over positions, heights and filters."""

import torch
from torch import Tensor

from pipeline.collab.caser import CaserSettings
from pipeline.collab.convolutions import Convolutions
from pipeline.collab.pairs import generator

REACH, DIM, LENGTH = 3, 4, 5
FORM = {"dim": DIM, "reach": REACH, "horizontal": 2, "vertical": 2, "spread": 0.5}
NET = Convolutions(7, CaserSettings.model_validate(FORM), generator(1))
PICTURE = torch.randn(1, REACH - 1 + LENGTH, DIM, generator=generator(2))


def in_reach(position: int) -> Tensor:
    """The items (reach, d) that the position looks at."""
    return PICTURE[0, position : position + REACH]


def test_a_horizontal_filter_keeps_its_strongest_answer_in_reach() -> None:
    found = NET.strongest(PICTURE)[0]
    for position in range(LENGTH):
        wanted = []
        for height, filters in enumerate(NET.horizontal, start=1):
            for one in filters.view(2, DIM, height):
                rows = [in_reach(position)[top : top + height] for top in range(REACH - height + 1)]
                wanted.append(max(max((row.T * one).sum().item(), 0.0) for row in rows))
        assert torch.allclose(found[position], torch.tensor(wanted), atol=1e-6)


def test_a_vertical_filter_is_a_weighted_sum_of_the_items_in_reach() -> None:
    found = NET.sums(PICTURE)[0]
    for position in range(LENGTH):
        wanted = [weights @ in_reach(position) for weights in NET.vertical]
        assert torch.allclose(found[position], torch.cat(wanted), atol=1e-6)


def test_what_is_out_of_reach_does_not_count() -> None:
    states = NET(torch.tensor([[1, 2, 3, 4], [6, 2, 3, 4]]))
    assert torch.equal(states[0, 3], states[1, 3])
    assert not torch.equal(states[0, 2], states[1, 2])
