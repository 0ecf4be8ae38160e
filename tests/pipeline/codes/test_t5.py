"""T5: the same sums as transformers' own, one step at a time or all at once, and dropout by seed."""

import pytest
import torch

from pipeline.codes.t5 import (
    T5,
    Shape,
    buckets,
    configuration,
    from_transformers,
    to_transformers,
)
from pipeline.collab.pairs import generator

SHAPE = Shape(30, width=16, inner=24, heads=3, head_width=8, layers=2, decoder_layers=2, dropout=0.25)
INPUTS = torch.tensor([[5, 6, 7, 8, 9, 1], [12, 13, 1, 0, 0, 0]])
OUTPUTS = torch.tensor([[4, 9, 3], [8, 8, 2]])


def network(gated: bool = False) -> T5:
    return T5(SHAPE._replace(gated=gated), generator(3))


@pytest.fixture(scope="module", params=[False, True], ids=["relu", "gated"])
def both(request):
    """Ours and transformers', with the same weights; heads x head_width is not the width."""
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    ours = network(request.param)
    config = {k: v for k, v in configuration(ours.shape).items() if k not in ("model_type", "architectures")}
    theirs = T5ForConditionalGeneration(T5Config(**config)).eval()
    held = to_transformers(ours.state_dict())
    missing = theirs.load_state_dict(held, strict=False)
    assert missing.unexpected_keys == []
    tied = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert set(missing.missing_keys) <= tied
    return ours, theirs


def test_logits_are_those_of_transformers(both) -> None:
    ours, theirs = both
    found = theirs(input_ids=INPUTS, attention_mask=(INPUTS != 0).long(), labels=OUTPUTS).logits
    assert torch.allclose(ours(INPUTS, OUTPUTS), found, atol=1e-5)


def test_weights_come_back_under_their_own_names(both) -> None:
    ours, theirs = both
    state = from_transformers(ours, dict(theirs.state_dict()))
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.state_dict().items())


def test_far_places_share_buckets_as_with_transformers() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    for both_ways in (True, False):
        theirs = T5Attention._relative_position_bucket(distance, both_ways, 32, 128)
        assert torch.equal(buckets(distance, both=both_ways), theirs)


def test_steps_of_many_beginnings_give_what_reading_each_at_once_gives() -> None:
    model = network()
    memory = model.read(INPUTS)
    beginnings = torch.tensor([[[0, 4, 9], [0, 4, 2], [0, 7, 7]], [[0, 8, 8], [0, 1, 2], [0, 3, 3]]])
    past, states = (), torch.zeros(0)
    for place in range(3):
        states, past = model.step(beginnings[:, :, place], past, memory)
    for nth in range(3):
        whole = model.write(beginnings[:, nth], memory)[:, -1]
        assert torch.allclose(states[:, nth], whole, atol=1e-5)


def test_padding_changes_nothing() -> None:
    model = network()
    alone = model(INPUTS[1:, :3], OUTPUTS[1:])
    assert torch.allclose(model(INPUTS, OUTPUTS)[1:], alone, atol=1e-5)


def test_an_output_sees_only_what_was_written_before_it() -> None:
    model = network()
    other = torch.tensor([[4, 9, 20], [8, 8, 21]])
    assert torch.equal(model(INPUTS, OUTPUTS), model(INPUTS, other))
    assert not torch.allclose(model(INPUTS, OUTPUTS)[:, 2], model(INPUTS, OUTPUTS.flip(1))[:, 2])


def test_dropout_is_of_its_seed_alone() -> None:
    model = network()
    once = model(INPUTS, OUTPUTS, generator(1))
    torch.rand(5)
    assert torch.equal(once, model(INPUTS, OUTPUTS, generator(1)))
    assert not torch.equal(once, model(INPUTS, OUTPUTS, generator(2)))
    assert not torch.equal(once, model(INPUTS, OUTPUTS))


def test_shares_among_the_valid_sum_to_one_and_among_all_to_less() -> None:
    model = network()
    states = model.write(OUTPUTS, model.read(INPUTS))
    valid = torch.zeros(2, 3, 10, dtype=torch.bool)
    valid[..., [1, 4]] = True
    before = model.log_shares(states, 5, 10, valid)
    after = model.log_shares(states, 5, 10)
    assert torch.allclose(before.exp().sum(-1), torch.ones(2, 3))
    assert (before[..., 0] == -torch.inf).all()
    assert (after.exp().sum(-1) < 1).all()
    assert torch.allclose(after[..., 1] - after[..., 4], before[..., 1] - before[..., 4], atol=1e-5)
