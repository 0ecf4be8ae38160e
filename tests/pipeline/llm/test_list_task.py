"""Lists as a task of the tuner: what is learnt, what chooses, and that it is told from noise."""

import math

import polars as pl
import pytest
import torch

from pipeline.llm.list_task import CHOOSES, list_task, mean_log_likelihood, with_endings
from pipeline.llm.reader import OwnPass, TheirPass
from tests.tiny_lm import make_model, make_tokenizer

TOKENIZER = make_tokenizer()
MODEL = make_model()
ROWS = pl.DataFrame(
    {"prompt": ["Output:", "User watched movies. Output:"], "answer": [' "Heat"', ' "Toy Story", "Heat"']}
)


def test_an_answer_is_what_follows_its_prompt_and_the_closing_token() -> None:
    prompts, endings = with_endings(ROWS, TOKENIZER, 2)
    for prompt, ending, (text, answer) in zip(prompts, endings, ROWS.iter_rows(), strict=True):
        assert TOKENIZER.decode(prompt) == text
        assert ending[-1] == 2
        assert TOKENIZER.decode(ending[:-1]) == answer
    assert with_endings(ROWS, TOKENIZER, None)[1] == [ending[:-1] for ending in endings]
    assert with_endings(ROWS.clear(), TOKENIZER, 2) == ([], [])


def test_an_answer_that_changes_its_prompt_is_refused() -> None:
    joined = pl.DataFrame({"prompt": ["the user would enj"], "answer": ["oy"]})
    with pytest.raises(ValueError, match="begin the answer with a space"):
        with_endings(joined, TOKENIZER, 2)


@pytest.mark.parametrize("kind", [OwnPass, TheirPass])
@pytest.mark.parametrize("budget", [1, 10_000])
def test_the_likelihood_is_the_plain_models(kind, budget: int) -> None:
    prompts, endings = with_endings(ROWS, TOKENIZER, 2)
    summed = 0.0
    for prompt, ending in zip(prompts, endings, strict=True):
        ids = torch.tensor([[*prompt, *ending]])
        with torch.inference_mode():
            told = MODEL(input_ids=ids).logits[0].log_softmax(-1)
        summed += sum(told[i - 1, ids[0, i]].item() for i in range(len(prompt), ids.shape[1]))
    found = mean_log_likelihood(kind(make_model(), torch.float32), prompts, endings, budget)
    assert found == pytest.approx(summed / sum(map(len, endings)), abs=1e-4)


def test_the_task_learns_all_and_is_chosen_by_the_others() -> None:
    task = list_task(ROWS, ROWS[:1], TOKENIZER, 2, 512)
    reader = OwnPass(MODEL, torch.float32)
    found = task.measure(reader)
    prompts, endings = with_endings(ROWS[:1], TOKENIZER, 2)
    assert found[task.chooses] == -found["loss"] == mean_log_likelihood(reader, prompts, endings, 512)
    assert task.chooses == CHOOSES
    assert len(task) == 2
    nothing = list_task(ROWS, ROWS.clear(), TOKENIZER, 2, 512).measure(reader)
    assert math.isnan(nothing[CHOOSES])
