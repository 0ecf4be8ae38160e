"""Checkpointing: the same gradients, less kept for the way back."""

from itertools import count

import pytest
import torch
from torch import Tensor

from pipeline.dropout import dropped
from pipeline.llm import decoder
from pipeline.llm.reader import OwnPass, TheirPass, reader
from pipeline.llm.settings import Tuning
from pipeline.llm.tune import add_adapter, trainable
from tests import architectures

IDS = torch.arange(3, 67).view(4, 16)
LAST = torch.tensor([15, 31, 47, 63])


def read(kind: str, checkpointing: bool, dropout: float = 0.3) -> tuple[Tensor, tuple[Tensor, ...], int]:
    """Last states, gradients of the low-rank weights, and bytes kept between the two ways."""
    model = architectures.make(kind)
    add_adapter(model, Tuning(dropout=dropout, rank=4), seed=1)
    weights = list(trainable(model).values())
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.02)
    reading = reader(model, torch.float32, checkpointing=checkpointing)
    assert isinstance(reading, OwnPass if kind == "llama" else TheirPass)
    kept = 0

    def keep(one: Tensor) -> Tensor:
        nonlocal kept
        kept += one.nbytes
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        states = reading.states(IDS, LAST, draws=7)
    return states, torch.autograd.grad(states.square().sum(), weights), kept


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "opt"])
def test_gradients_are_equal_bit_for_bit_dropout_included_and_less_is_kept(kind: str) -> None:
    plain, again = read(kind, False), read(kind, True)
    assert torch.equal(plain[0], again[0])
    assert all(torch.equal(one, other) for one, other in zip(plain[1], again[1], strict=True))
    assert any(gradient.abs().sum() > 0 for gradient in plain[1])
    assert again[2] < plain[2] / 2


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_other_draws_on_the_way_back_would_be_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "llama":
        seeds = count()  # other bits at every call, also from the same state

        def anew(x: Tensor, share: float, draws: torch.Generator | None) -> Tensor:
            return dropped(x, share, torch.Generator().manual_seed(next(seeds)))

        monkeypatch.setattr(decoder, "dropped", anew)
        plain = read(kind, False)
        seeds = count()
    else:
        plain = read(kind, False)
        monkeypatch.setattr(torch, "set_rng_state", lambda state: torch.manual_seed(99))
        monkeypatch.setattr(torch.random, "set_rng_state", lambda state: torch.manual_seed(99))
    again = read(kind, True)
    assert not all(torch.equal(one, other) for one, other in zip(plain[1], again[1], strict=True))


def test_reading_without_gradients_is_as_ever() -> None:
    model = architectures.make("llama")
    with torch.inference_mode():
        plain = reader(model, torch.float32).states(IDS, LAST)
        assert torch.equal(reader(model, torch.float32, checkpointing=True).states(IDS, LAST), plain)
