"""Our forward pass against transformers': states, gradients, shared beginnings, dropout; and whom it takes."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from pipeline.llm.decoder import Decoder, fits
from pipeline.llm.reader import OwnPass, TheirPass, read_with, reader
from pipeline.llm.settings import Tuning
from pipeline.llm.tune import add_adapter, old_names_of_transformers, trainable
from tests.tiny_lm import make_model

ADAPTED = Tuning(rank=4, dropout=0.5, targets=("q_proj", "k_proj", "v_proj"))
ONE = ADAPTED.model_copy(update={"targets": ("v_proj",)})
IDS = torch.randint(4, 400, (3, 17), generator=torch.Generator().manual_seed(0))
EVERYWHERE = torch.arange(IDS.numel())
LAST = torch.tensor([16, 33, 50])
RAGGED = torch.tensor([4, 16, 38])  # two places in the first prompt, none in the second: it is not read


def adapted(settings: Tuning = ADAPTED):
    """The tiny model with low-rank weights that all do something."""
    model = make_model()
    add_adapter(model, settings, 1)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in trainable(model).values():
            weight.copy_(torch.randn(weight.shape, generator=random) * 0.2)
    return model.eval()


def theirs(model, ids: Tensor = IDS) -> Tensor:
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)


@torch.no_grad()
@pytest.mark.parametrize(
    "model", [make_model(), adapted(), adapted(ADAPTED.model_copy(update={"targets": ("v_proj",)}))]
)
def test_states_are_those_of_transformers(model) -> None:
    torch.testing.assert_close(
        Decoder(model, torch.float32).states(IDS, EVERYWHERE), theirs(model), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_only_the_places_asked_for_come_back_in_their_order() -> None:
    decoder, model = Decoder(make_model(), torch.float32), make_model()
    places = torch.tensor([50, 0, 20])
    torch.testing.assert_close(decoder.states(IDS, places), theirs(model)[places], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_lies_behind_the_places_is_not_read() -> None:
    decoder, other = Decoder(make_model(), torch.float32), IDS.clone()
    other[0, 17:] = other[1] = other[2, 5:] = 10**6  # no such token: reading one would fail
    assert torch.equal(decoder.states(other, RAGGED), decoder.states(IDS, RAGGED))


@torch.no_grad()
@pytest.mark.parametrize("shared", [1, 9, 16])
def test_states_after_a_shared_beginning_are_those_of_the_whole(shared: int) -> None:
    decoder, model = Decoder(adapted(), torch.float32), adapted()
    same = torch.cat([IDS[:1, :shared].expand(3, -1), IDS[:, shared:]], dim=1)
    past = decoder.begin(same[0, :shared])
    held = [(k.clone(), v.clone()) for k, v in past]
    ends = same[:, shared:]
    wanted = theirs(model, same).view(3, 17, -1)[:, shared:].flatten(0, 1)
    for places in (torch.arange(ends.numel()), torch.arange(ends.numel())[:: ends.shape[1]]):
        found = decoder.states(ends, places, past)
        torch.testing.assert_close(found, wanted[places], atol=1e-5, rtol=1e-5)
    for (k, v), (k_before, v_before) in zip(past, held, strict=True):
        assert torch.equal(k, k_before)
        assert torch.equal(v, v_before)


@pytest.mark.parametrize("places", [LAST, RAGGED])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj"), ("k_proj",)])
def test_gradients_are_those_of_transformers(targets: tuple[str, ...], places: Tensor) -> None:
    model = adapted(ADAPTED.model_copy(update={"targets": targets}))
    weights = list(trainable(model).values())
    towards = torch.randn(3, model.config.hidden_size, generator=torch.Generator().manual_seed(3))
    ours = torch.autograd.grad((Decoder(model, torch.float32).states(IDS, places) * towards).sum(), weights)
    wanted = torch.autograd.grad((theirs(model)[places] * towards).sum(), weights)
    for one, other in zip(ours, wanted, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm()


@torch.no_grad()
def test_bfloat16_is_close_and_ends_in_float32() -> None:
    model = adapted()
    found = Decoder(model, torch.bfloat16).states(IDS, EVERYWHERE)
    assert found.dtype == torch.float32
    assert (found - theirs(model)).abs().mean() < 0.02 * theirs(model).abs().mean()


@torch.no_grad()
@pytest.mark.parametrize("kind", [OwnPass, TheirPass])
def test_dropout_is_drawn_by_its_seed_and_only_where_it_is_asked_for(kind) -> None:
    reading = kind(adapted(), torch.float32)
    plain, one, again, other = (reading.states(IDS, LAST, draws=draws) for draws in (None, 1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, plain)
    assert torch.equal(plain, reading.states(IDS, LAST))


@torch.no_grad()
def test_dropout_leaves_what_is_expected_as_it_was() -> None:
    decoder = Decoder(adapted(), torch.float32)
    layer = decoder.layers[0]
    h = torch.ones(2, decoder.embedding.shape[1])
    drawn = [torch.mm(*decoder.adapted(h, layer, torch.Generator().manual_seed(i))) for i in range(2000)]
    plain = torch.mm(*decoder.adapted(h, layer, None))
    noise = torch.stack(drawn).std(0) / 2000**0.5
    assert ((torch.stack(drawn).mean(0) - plain).abs() < 5 * noise + 1e-6).all()


def test_a_model_that_it_does_not_know_is_read_by_transformers() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()
    assert not fits(other)
    reading = reader(other, torch.float32)
    assert isinstance(reading, TheirPass)
    ids = torch.randint(0, 64, (2, 7))
    with torch.no_grad():
        wanted = other.base_model(input_ids=ids).last_hidden_state[:, -1]
        torch.testing.assert_close(reading.states(ids, torch.tensor([6, 13])), wanted)


def test_an_adapter_elsewhere_is_left_to_transformers() -> None:
    assert fits(make_model())
    assert fits(adapted())
    model = make_model()
    with old_names_of_transformers():
        get_peft_model(model, LoraConfig(r=2, target_modules=["o_proj"]))
    assert not fits(model)


def test_biases_are_left_to_transformers() -> None:
    model = make_model()
    model.config.attention_bias = True
    assert not fits(model)
    assert read_with(model, torch.bfloat16) == {"dtype": "bfloat16", "attention": "sdpa"}


def test_what_is_measured_names_our_own_pass() -> None:
    assert read_with(make_model(), torch.float32) == {"dtype": "float32", "attention": "own"}
