"""Which layers get low-rank weights: every architecture by its own names, else clear words."""

from pathlib import Path

import pytest
import torch

from pipeline.llm import targets
from pipeline.llm.reader import OwnPass, TheirPass, reader
from pipeline.llm.settings import Tuning
from pipeline.llm.targets import AUTO, lora_targets
from pipeline.llm.tune import add_adapter, merge_adapter, trainable, write_adapter
from tests import architectures
from tests.architectures import SIZES, TARGETS

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
LAST = torch.tensor([3, 7])
SETTINGS = Tuning(dropout=0.0, dtype="float32")


@pytest.mark.parametrize("kind", SIZES)
def test_every_architecture_is_adapted_tuned_read_and_merged(kind: str, tmp_path: Path) -> None:
    model = architectures.make(kind)
    before = model(input_ids=IDS).logits[:, -1].detach()
    assert lora_targets(model, AUTO) == TARGETS[kind]
    wrapped = add_adapter(model, SETTINGS, seed=1)
    assert {name.split(".")[-3] for name in trainable(model)} == set(TARGETS[kind])
    reading = reader(model, torch.float32)
    assert isinstance(reading, OwnPass if kind == "llama" else TheirPass)
    states = reading.states(IDS, LAST)
    torch.testing.assert_close(states @ reading.outputs.T, before, rtol=1e-3, atol=1e-4)  # B begins as zeros
    weights = trainable(model)
    gradients = torch.autograd.grad(states.square().sum() + states.sum(), list(weights.values()))
    ups = [gradient for name, gradient in zip(weights, gradients, strict=True) if "lora_B" in name]
    assert all(gradient.abs().sum() > 0 for gradient in ups)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(torch.randn(weight.shape, generator=noise))
    tuned = reader(model, torch.float32).states(IDS, LAST)
    write_adapter(wrapped, weights, tmp_path)
    merged = merge_adapter(architectures.make(kind), tmp_path)
    torch.testing.assert_close(reader(merged, torch.float32).states(IDS, LAST), tuned, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(tuned @ reading.outputs.T, before, atol=1e-2)


def test_an_encoder_decoder_has_targets_too() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4)
    assert lora_targets(T5ForConditionalGeneration(config), AUTO) == ["q", "v"]


def test_names_that_a_study_gives_are_taken_as_they_are() -> None:
    model = architectures.make("mistral")
    assert lora_targets(model, ("o_proj", "self_attn.q_proj")) == ["o_proj", "self_attn.q_proj"]


def test_a_name_that_is_no_layers_is_refused_with_the_layers_that_there_are() -> None:
    model = architectures.make("gpt2")
    with pytest.raises(ValueError, match=r"no layer is named q_proj; a gpt2 model has c_attn, c_fc, c_proj$"):
        lora_targets(model, ("q_proj", "c_attn"))


def test_an_architecture_that_peft_does_not_know_goes_by_its_attentions_names(monkeypatch) -> None:
    monkeypatch.setattr(targets, "by_peft", lambda kind: None)
    for kind, wanted in (("gpt2", ["c_attn"]), ("phi", ["q_proj", "v_proj"]), ("mpt", ["Wqkv"])):
        assert lora_targets(architectures.make(kind), AUTO) == wanted


def test_a_table_entry_that_is_not_in_the_model_is_not_believed(monkeypatch) -> None:
    monkeypatch.setattr(targets, "by_peft", lambda kind: ["query"])
    assert lora_targets(architectures.make("qwen2"), AUTO) == ["q_proj", "v_proj"]


def test_where_nothing_is_known_the_error_lists_the_layers(monkeypatch) -> None:
    monkeypatch.setattr(targets, "by_peft", lambda kind: None)
    monkeypatch.setattr(targets, "CONVENTIONS", ())
    with pytest.raises(ValueError, match=r"auto knows no layers of this model; name some: a opt model has fc1"):
        lora_targets(architectures.make("opt"), AUTO)


def test_auto_is_what_the_llama_family_had_before(tmp_path: Path) -> None:
    named, automatic = (architectures.make("llama") for _ in range(2))
    add_adapter(named, SETTINGS.model_copy(update={"targets": ("q_proj", "v_proj")}), seed=3)
    add_adapter(automatic, SETTINGS, seed=3)
    one, other = trainable(named), trainable(automatic)
    assert one.keys() == other.keys()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
