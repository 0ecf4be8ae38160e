"""Reading texts with an encoder, whose tokens see each other both ways: states at given places.

It stands where `pipeline.llm.reader` stands for language models, so both are pooled by the same code.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Job = TypeVar("Job")
Result = TypeVar("Result")


class TwoWay:
    """A text encoder; one batch after another."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model, self.device = model, model.device

    def states(self, ids: Tensor, places: Tensor) -> Tensor:
        """Last hidden states (m, width) at `places` (m,) of the flattened ids (n, length).

        The places are all that is real: the rest is padding, which no token may look at.
        """
        mask = torch.zeros(ids.numel(), dtype=torch.long, device=ids.device).index_fill_(0, places, 1)
        found: Any = self.model(input_ids=ids, attention_mask=mask.view_as(ids))
        return found.last_hidden_state.flatten(0, 1)[places].float()

    def each(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        return map(work, jobs)
