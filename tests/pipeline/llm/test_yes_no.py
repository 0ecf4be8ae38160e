"""Yes or no from one forward pass: answers, batches, shared beginnings, and that neighbours change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm import yes_no
from pipeline.llm.load import encode
from pipeline.llm.reader import OwnPass, Reader, TheirPass
from pipeline.llm.yes_no import (
    Answers,
    Family,
    Logits,
    answer_ids,
    batches,
    common_start,
    decide,
    even_batches,
    kin,
    score,
)
from tests.tiny_lm import make_model, make_tokenizer

TOKENIZER = make_tokenizer()
MODEL = make_model()
READERS = {"own": OwnPass(MODEL, torch.float32), "theirs": TheirPass(MODEL, torch.float32)}
ANSWERS = Answers(yes=300, no=301)


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


def alone(ids: list[int]) -> tuple[float, float]:
    """Both logits the plain way: the whole model on one prompt."""
    with torch.inference_mode():
        logits = MODEL(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits[ANSWERS.yes].item(), logits[ANSWERS.no].item()


def some_prompts(n: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 400, size=rng.integers(3, 60)).tolist() for _ in range(n)]


def relatives(n: int, shared: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    start = rng.integers(4, 400, size=shared).tolist()
    return [start + rng.integers(4, 400, size=rng.integers(1, 20)).tolist() for _ in range(n)]


def assert_as_alone(found: Logits, prompts: list[list[int]]) -> None:
    wanted = torch.tensor([alone(ids) for ids in prompts])
    torch.testing.assert_close(torch.stack(found, dim=1), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_scores_equal_the_plain_models_in_the_order_given(reader: Reader, budget: int) -> None:
    prompts = some_prompts(17)
    assert_as_alone(score(reader, prompts, ANSWERS, budget), prompts)


@pytest.mark.parametrize("budget", [1, 100, 100_000])
def test_a_shared_beginning_changes_no_score(reader: Reader, budget: int) -> None:
    prompts = relatives(5, 60) + some_prompts(4) + relatives(3, 90, seed=1)
    rng = np.random.default_rng(2)
    prompts = [prompts[i] for i in rng.permutation(len(prompts))]
    families, rest = kin(prompts)
    assert [len(f.places) for f in families] == [5, 3] or [len(f.places) for f in families] == [3, 5]
    assert len(rest) == 4
    assert_as_alone(score(reader, prompts, ANSWERS, budget), prompts)


def test_equal_prompts_get_equal_scores(reader: Reader) -> None:
    prompts = relatives(1, 100) * 3
    assert kin(prompts)[1] == []
    found = score(reader, prompts, ANSWERS)
    assert_as_alone(found, prompts)


def test_a_prompt_that_is_the_beginning_of_another_is_scored_right(reader: Reader) -> None:
    longer = relatives(2, 120)
    prompts = [longer[0], longer[0][:100], longer[1]]
    assert kin(prompts)[1] == []
    assert_as_alone(score(reader, prompts, ANSWERS), prompts)


def test_what_fills_the_end_is_never_looked_at(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = some_prompts(6)
    before = score(reader, prompts, ANSWERS, 100_000)

    pad = yes_no.pad

    def pad_with_something_else(given, device):
        block = pad(given, device)
        for row, ids in zip(block, given, strict=True):
            row[len(ids) :] = 399
        return block

    monkeypatch.setattr(yes_no, "pad", pad_with_something_else)
    assert torch.equal(score(reader, prompts, ANSWERS, 100_000).yes, before.yes)


def test_padding_on_the_left_would_be_seen(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = some_prompts(6)

    def pad_left(given, device):
        longest = max(map(len, given))
        return torch.tensor([[0] * (longest - len(ids)) + ids for ids in given])

    monkeypatch.setattr(yes_no, "pad", pad_left)
    with pytest.raises(AssertionError):
        assert_as_alone(score(reader, prompts, ANSWERS, 100_000), prompts)


def test_no_prompts_no_scores(reader: Reader) -> None:
    assert score(reader, [], ANSWERS).yes.shape == (0,)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_batches_hold_every_place_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    cut = batches(lengths, budget)
    assert sorted(i for batch in cut for i in batch) == list(range(len(lengths)))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    longest = [max(lengths[i] for i in batch) for batch in cut]
    assert longest == sorted(longest, reverse=True)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_even_batches_hold_every_place_once_the_longest_first(lengths: list[int], budget: int) -> None:
    cut = even_batches(lengths, budget)
    order = [i for batch in cut for i in batch]
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_even_batches_are_two_by_two_and_alike() -> None:
    assert even_batches([9, 1, 2, 8, 3, 7], 54) == [[0, 3, 5, 4, 2, 1]]
    assert even_batches([9, 1, 2, 8, 3, 7], 53) == [[0, 3], [5, 4, 2, 1]]
    assert even_batches([50, 1, 1, 1], 60) == [[0], [1, 2, 3]]  # small, but wide once padded
    assert even_batches([4] * 12, 20) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@settings(max_examples=200)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8), max_size=12))
def test_families_share_what_they_say_and_lose_nobody(prompts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yes_no, "SHORTEST_SHARED", 2)
        patch.setattr(yes_no, "PASS_COST", 1)
        families, rest = kin(prompts)
    places = [place for family in families for place in family.places] + rest
    assert sorted(places) == list(range(len(prompts)))
    for family in families:
        assert len(family.places) > 1
        starts = {tuple(prompts[place][: family.shared]) for place in family.places}
        assert len(starts) == 1
        assert all(0 <= family.shared < len(prompts[place]) for place in family.places)


def test_common_start_counts_equal_tokens() -> None:
    assert common_start([1, 2, 3], [1, 2, 4]) == 2
    assert common_start([1, 3, 3], [1, 2, 4]) == 1
    assert common_start([5], [1]) == 0


def test_common_start_leaves_each_its_last_token() -> None:
    assert common_start([1, 2], [1, 2, 4]) == 1
    assert common_start([1, 2], [1, 2]) == 1


def test_a_distant_relative_does_not_shrink_a_good_family() -> None:
    near = relatives(4, 100)
    distant = near[0][:40] + [7] * 60
    families, rest = kin([*near, distant])
    assert families == [Family(families[0].places, families[0].shared)]
    assert sorted(families[0].places) == [0, 1, 2, 3]
    assert families[0].shared >= 100
    assert rest == [4]


# --- answers -----------------------------------------------------------------------------------------------


def first_token(text: str) -> int:
    return encode(TOKENIZER, [text])[0][0]


def test_after_a_colon_the_answer_has_a_space_and_after_a_line_end_none() -> None:
    spaced = answer_ids(TOKENIZER, ["Who?\n#Answer:"], (" Yes", " No"))
    bare = answer_ids(TOKENIZER, ["### Response:\n"], ("Yes.", "No."))
    assert spaced == (first_token(" Yes"), first_token(" No"))
    assert bare == (first_token("Yes"), first_token("No"))
    assert spaced != bare


def test_answers_that_begin_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="do not differ"):
        answer_ids(TOKENIZER, ["#Answer:"], (" Yes", " Yes."))


def test_an_answer_that_melts_into_the_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="changes how the prompt's end"):
        answer_ids(TOKENIZER, ["#Answer: Y"], ("es", "o"))


def test_prompts_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="no single pair"):
        yes_no.answer_ids(Moody(), ["a", "b"], (" Yes", " No"))


class Moody:
    """A tokenizer that splits the answer otherwise after another prompt."""

    def encode_batch_fast(self, texts):
        from types import SimpleNamespace

        return [SimpleNamespace(ids=self.ids(text)) for text in texts]

    def ids(self, text: str) -> list[int]:
        start = 1 if text[0] == "a" else 2
        return [start, *([start * 10] if "Yes" in text else [start * 20] if "No" in text else [])]


def test_the_score_is_what_the_loss_trained() -> None:
    logits = Logits(torch.tensor([2.0]), torch.tensor([0.5]))
    assert decide(logits, "difference").item() == 1.5
    assert decide(logits, "lm_answer").item() == 1.5
    assert decide(logits, "yes_logit").item() == 2.0
