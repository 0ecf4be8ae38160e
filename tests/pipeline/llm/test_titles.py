"""Likelihoods of answers behind a prompt: against whole passes, whatever is shared."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm import titles
from pipeline.llm.load import encode
from pipeline.llm.reader import OwnPass, Reader, TheirPass
from pipeline.llm.titles import distinct, endings_of, log_likelihoods, log_probabilities
from tests.tiny_lm import make_model, make_tokenizer

TOKENIZER = make_tokenizer()
MODEL = make_model()
READERS = {"own": OwnPass(MODEL, torch.float32), "theirs": TheirPass(make_model(), torch.float32)}
END = 2


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


def some_ids(rng: np.random.Generator, least: int, most: int) -> list[int]:
    return rng.integers(4, 400, size=rng.integers(least, most)).tolist()


def lists(n: int, candidates: int = 7, seed: int = 0) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Prompts, and for each some endings, of which half begin alike."""
    rng = np.random.default_rng(seed)
    prompts = [some_ids(rng, 2, 60) for _ in range(n)]
    start = some_ids(rng, 2, 4)
    endings = [
        [(start if i % 2 else []) + some_ids(rng, 1, 9) + [END] for i in range(candidates)] for _ in prompts
    ]
    return prompts, endings


def alone(prompt: list[int], ending: list[int]) -> float:
    """The sum the plain way: the whole model on the whole text."""
    with torch.inference_mode():
        logits = MODEL(input_ids=torch.tensor([prompt + ending])).logits[0].double().log_softmax(-1)
    before = range(len(prompt) - 1, len(prompt) + len(ending) - 1)
    return sum(logits[at, token].item() for at, token in zip(before, ending, strict=True))


def assert_as_alone(reader: Reader, prompts: list, endings: list, budget: int = 1024) -> None:
    found = log_likelihoods(reader, prompts, endings, batch_tokens=budget)
    for prompt, some, summed in zip(prompts, endings, found, strict=True):
        assert summed.tolist() == pytest.approx([alone(prompt, ending) for ending in some], abs=1e-3)


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_likelihoods_equal_those_of_separate_passes(reader: Reader, budget: int) -> None:
    assert_as_alone(reader, *lists(6), budget)


def test_a_prompt_of_one_token_and_an_ending_of_one_token(reader: Reader) -> None:
    assert_as_alone(reader, [[7]], [[[9], [11, 12]]])


def test_the_mean_is_the_sum_over_the_number_of_tokens(reader: Reader) -> None:
    prompts, endings = lists(2)
    summed, mean = (log_likelihoods(reader, prompts, endings, how) for how in ("sum", "mean"))
    for i, some in enumerate(endings):
        assert mean[i].tolist() == pytest.approx((summed[i] / torch.tensor([len(e) for e in some])).tolist())


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(7)), seed=st.integers(0, 5))
def test_permuting_candidates_permutes_scores(order: list[int], seed: int) -> None:
    prompts, endings = lists(1, seed=seed)
    plain = log_likelihoods(READERS["own"], prompts, endings)[0]
    turned = log_likelihoods(READERS["own"], prompts, [[endings[0][i] for i in order]])[0]
    assert turned.tolist() == pytest.approx(plain[list(order)].tolist(), abs=1e-4)


def test_equal_endings_get_equal_scores(reader: Reader) -> None:
    prompts, endings = lists(1)
    found = log_likelihoods(reader, prompts, [[*endings[0], endings[0][2]]], batch_tokens=100_000)[0]
    assert found[2] == found[-1]


def test_a_prompt_is_begun_once_whatever_its_endings(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, plain = [], READERS["own"].begin
    monkeypatch.setattr(READERS["own"], "begin", lambda ids: (begun.append(len(ids)), plain(ids))[1])
    prompts, endings = lists(3)
    log_likelihoods(READERS["own"], prompts, endings, batch_tokens=8)
    assert sorted(begun) == sorted(len(prompt) - 1 for prompt in prompts)


def test_logits_are_made_once_for_what_begins_alike_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distinct([[5, 6, 7], [5, 6, 8], [5]], width=16) == ([0, 1, 2, 18], [0, 1, 2, 0, 1, 3, 0])
    monkeypatch.setattr(titles, "STATES_AT_ONCE", 2)
    torch.manual_seed(0)
    states, outputs = torch.randn(5, 4), torch.randn(9, 4)
    number, tokens = torch.tensor([4, 0, 4]), torch.tensor([8, 3, 0])
    wanted = (states @ outputs.T).log_softmax(-1)[number, tokens]
    torch.testing.assert_close(log_probabilities(states, outputs, number, tokens), wanted)


def test_an_ending_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="no token"):
        log_likelihoods(READERS["own"], [[5, 6]], [[[7], []]])


def test_no_prompts_no_scores(reader: Reader) -> None:
    assert log_likelihoods(reader, [], []) == []


# --- endings


PROMPT = 'the following movies: "Toy Story (1995)". ' * 9 + "Answer:"


def test_an_ending_is_what_follows_the_whole_prompt() -> None:
    answers = [' "Heat (1995)"', ' "Toy Story (1995)"']
    before, *whole = encode(TOKENIZER, [PROMPT, *(PROMPT + answer for answer in answers)])
    assert endings_of(TOKENIZER, PROMPT, answers, END) == [[*ids[len(before) :], END] for ids in whole]
    assert endings_of(TOKENIZER, PROMPT, answers, None) == [ids[len(before) :] for ids in whole]


def test_an_opening_token_is_no_part_of_an_ending() -> None:
    opened = make_tokenizer(opening=True)
    assert endings_of(opened, PROMPT, [" Yes"], END) == endings_of(TOKENIZER, PROMPT, [" Yes"], END)


def test_an_answer_that_merges_with_the_prompt_is_refused() -> None:
    word = " information"
    cuts = [(word[:i], word[i:]) for i in range(2, len(word))]
    whole = encode(TOKENIZER, [word])[0]
    start, rest = next(
        (a, b) for a, b in cuts for begun in encode(TOKENIZER, [a]) if whole[: len(begun)] != begun
    )
    with pytest.raises(ValueError, match="begin the answer with a space"):
        endings_of(TOKENIZER, start, [rest], END)
