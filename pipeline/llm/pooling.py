"""Texts as vectors: the mean of a model's last hidden states over a text's own tokens, in one pass over each.

    token ids -> batches of like lengths -> states at every real token -> their mean, a row per text

What pads a shorter text is read by nobody: states are asked for at the places of real tokens only.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.llm.reader import Ids
from pipeline.llm.yes_no import batches, pad
from pipeline.progress import meter

Job = TypeVar("Job")
Result = TypeVar("Result")


class States(Protocol):
    """What pooling asks of a model: language models (`pipeline.llm.reader`) and encoders have it."""

    device: torch.device

    def states(self, ids: Tensor, places: Tensor) -> Tensor:
        """Last hidden states (m, width), float32, at `places` (m,) of the flattened ids (n, length)."""
        ...

    def each(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Results of jobs that call this model, in their order."""
        ...


def pooled(reader: States, texts: Sequence[Ids], batch_tokens: int, label: str) -> NDArray[np.float32]:
    """Mean last hidden state of every text (n, width), in the order given; each text has a token at least.

    batch_tokens: tokens of one forward pass, padding included.
    """

    def read(places: list[int]) -> tuple[list[int], Tensor]:
        with torch.inference_mode():
            return places, mean_states(reader, [texts[place] for place in places]).cpu()

    rows: list[Tensor] = [torch.empty(0)] * len(texts)
    with meter(label, len(texts)) as progress:
        for places, means in reader.each(read, batches([len(ids) for ids in texts], batch_tokens)):
            for place, mean in zip(places, means, strict=True):
                rows[place] = mean
            progress.advance(len(places))
    return torch.stack(rows).numpy()


def mean_states(reader: States, texts: Sequence[Ids]) -> Tensor:
    """Mean of each text's states (n, width), float32."""
    block = pad(texts, reader.device)
    lengths = torch.tensor([len(ids) for ids in texts], device=reader.device)
    real = torch.arange(block.shape[1], device=reader.device) < lengths[:, None]
    states = reader.states(block, real.flatten().nonzero().squeeze(1))
    owner = torch.repeat_interleave(torch.arange(len(texts), device=reader.device), lengths)
    sums = torch.zeros(len(texts), states.shape[1], device=reader.device).index_add_(0, owner, states)
    return sums / lengths[:, None]
