"""Dropout does what it says."""

import pytest
import torch

from pipeline.collab.pairs import generator
from pipeline.dropout import dropped


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_dropout_keeps_the_mean_and_drops_its_share(share: float) -> None:
    x = torch.ones(300, 333)  # not a whole number of eights
    found = dropped(x, share, generator(2))
    assert (found == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert found.mean().item() == pytest.approx(1, abs=0.02)
    assert len(found.unique()) == (2 if share else 1)


def test_dropout_does_nothing_without_draws() -> None:
    x = torch.ones(3)
    assert dropped(x, 0.9, None) is x
