"""Pooling: means over a text's own tokens, whatever pads it and whoever stands beside it."""

import pytest
import torch

from pipeline.llm.pooling import mean_states, pooled
from pipeline.llm.reader import TheirPass, reader
from tests import tiny_lm


class Numbers:
    """A model whose state of a token is [id, 1], and that would notice a padding asked for: its id is 0."""

    device = torch.device("cpu")

    def states(self, ids, places):
        chosen = ids.flatten()[places]
        assert (chosen > 0).all()
        return torch.stack([chosen.float(), torch.ones(len(chosen))], 1)

    def each(self, work, jobs):
        return map(work, jobs)


def test_the_mean_is_over_real_tokens_only() -> None:
    assert mean_states(Numbers(), [[2, 4, 9], [7]]).tolist() == [[5, 1], [7, 1]]


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_texts_keep_their_order_in_any_batches(budget: int) -> None:
    texts = [[3], [1, 2, 3, 4, 5], [8, 8], [6]]
    assert pooled(Numbers(), texts, budget, "test")[:, 0].tolist() == [3, 3, 8, 6]


@pytest.mark.parametrize("own", [True, False])
def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(own: bool) -> None:
    model = tiny_lm.make_model()
    reading = reader(model, torch.float32) if own else TheirPass(model, torch.float32)
    texts = [[5, 6, 7], [9] * 40, [11, 12]]
    together = pooled(reading, texts, 10_000, "test")
    with torch.inference_mode():
        alone = [model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in texts]
    assert together == pytest.approx(torch.stack(alone).numpy(), abs=1e-4)
