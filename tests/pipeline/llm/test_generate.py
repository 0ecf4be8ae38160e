"""Greedy writing: the tokens that transformers' own generate gives, whoever shares the batch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm.generate import OwnMemory, greedy, left_padded, memory
from pipeline.llm.reader import OwnPass, Reader, TheirPass
from tests.tiny_lm import make_model

MODEL = make_model()
READERS = {"own": OwnPass(MODEL, torch.float32), "theirs": TheirPass(make_model(), torch.float32)}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


def some_prompts(n: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 400, size=rng.integers(1, 40)).tolist() for _ in range(n)]


def alone(ids: list[int], max_new: int, stop: int) -> list[int]:
    """What transformers' generate writes after one prompt."""
    with torch.inference_mode():
        block = torch.tensor([ids])
        found = MODEL.generate(
            input_ids=block,
            attention_mask=torch.ones_like(block),
            max_new_tokens=max_new,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=0,
        )
    return [token for token in found[0, len(ids) :].tolist() if token != stop]


PROMPTS = some_prompts(9)
WRITTEN = [alone(ids, 12, stop=511) for ids in PROMPTS]
OFTEN = max(
    range(512), key=lambda token: sum(token in ids for ids in WRITTEN)
)  # a token that ends some answers


@pytest.mark.parametrize("budget", [1, 120, 100_000])
def test_the_tokens_are_those_of_transformers(reader: Reader, budget: int) -> None:
    assert greedy(reader, PROMPTS, 12, {511}, budget) == WRITTEN


def test_an_answer_ends_before_its_stop_token_and_the_others_go_on(reader: Reader) -> None:
    wanted = [alone(ids, 12, stop=OFTEN) for ids in PROMPTS]
    assert len({len(ids) for ids in wanted}) > 2
    assert greedy(reader, PROMPTS, 12, {OFTEN}) == wanted


def test_any_of_several_tokens_stops(reader: Reader) -> None:
    first = {ids[0] for ids in WRITTEN}
    assert greedy(reader, PROMPTS, 12, first) == [[]] * len(PROMPTS)


def test_nothing_asked_nothing_written(reader: Reader) -> None:
    assert greedy(reader, [], 12, {511}) == []
    assert greedy(reader, PROMPTS, 0, {511}) == [[]] * len(PROMPTS)


@settings(max_examples=10, deadline=None)
@given(mates=st.lists(st.lists(st.integers(4, 400), min_size=1, max_size=60), max_size=4))
def test_neighbours_change_a_state_by_rounding_only(mates: list[list[int]]) -> None:
    for one in READERS.values():
        with torch.inference_mode():
            single, told = left_padded(PROMPTS[:1], one.device)
            wanted = memory(one, told, 1).read(single)[0]
            together, told = left_padded([PROMPTS[0], *mates], one.device)
            found = memory(one, told, 1).read(together)[0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_row_of_padding_stays_a_number() -> None:
    reader = READERS["own"]
    with torch.inference_mode():
        ids, told = left_padded([[5], list(range(5, 60))], reader.device)
        kept = memory(reader, told, 4)
        states = kept.read(ids)
    assert isinstance(kept, OwnMemory)
    assert states.isfinite().all()
    assert all(layer.isfinite().all() for layer in (*kept.keys, *kept.values))


def test_bfloat16_writes_nearly_the_same() -> None:
    found = greedy(OwnPass(MODEL, torch.bfloat16), PROMPTS, 3, {511})
    assert np.mean([a == b[:3] for a, b in zip(found, WRITTEN, strict=True)]) >= 0.5


@pytest.mark.parametrize("kind", ["own", "theirs"])
def test_a_vector_in_a_prompt_is_read_where_it_stands(kind: str) -> None:
    model = make_model()
    words = model.get_input_embeddings().weight.detach()

    def soft(refs: torch.Tensor) -> torch.Tensor:
        return words[refs + 100]  # row r looks like token 100 + r

    reader: Any = {"own": OwnPass, "theirs": TheirPass}[kind](model, torch.float32, soft)
    hidden = [[-1 - (token - 100) if token >= 300 else token for token in ids] for ids in PROMPTS]
    assert any(token < 0 for ids in hidden for token in ids)
    assert greedy(reader, hidden, 12, {511}) == WRITTEN
