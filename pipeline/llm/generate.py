"""Greedy writing with a language model, keys and values kept: after each prompt the likeliest token, and again.

    token ids -> batches of like lengths, padded on the left -> read once -> token by token -> ids that follow

The rows of a batch end at one place, so each step reads one token of every row that still writes; rows that are
done leave the batch. Nothing of a neighbour or of the padding is ever looked at, so who shares a batch changes
results by rounding only. Of the output layer only the last place is multiplied.
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from pipeline.llm.decoder import Decoder, Gated, Shape
from pipeline.llm.reader import Ids, Reader
from pipeline.llm.yes_no import batches
from pipeline.progress import meter


def greedy(
    reader: Reader,
    prompts: Sequence[Ids],
    max_new: int,
    stop: Collection[int],
    batch_tokens: int = 8192,
    label: str = "",
) -> list[list[int]]:
    """What the model writes after each prompt, in the order given, up to a token of `stop` (left out).

    max_new: tokens of an answer at most; batch_tokens: tokens kept at once for one batch, padding and answers
    included; it bounds memory, and results depend on it by rounding only.
    """
    written: list[list[int]] = [[] for _ in prompts]
    cut = batches([len(prompt) + max_new for prompt in prompts], batch_tokens)

    def write(batch: list[int]) -> list[list[int]]:
        with torch.inference_mode():
            return write_batch(reader, [prompts[place] for place in batch], max_new, stop)

    with meter(label or "write answers", len(prompts)) as progress:
        for batch, found in zip(cut, reader.each(write, cut), strict=True):
            for place, ids in zip(batch, found, strict=True):
                written[place] = ids
            progress.advance(len(batch))
    return written


def write_batch(reader: Reader, prompts: Sequence[Ids], max_new: int, stop: Collection[int]) -> list[list[int]]:
    """`greedy` of prompts that fit in memory together."""
    ids, told = left_padded(prompts, reader.device)
    kept = memory(reader, told, max_new)
    written: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # that still write
    for _ in range(max_new):
        likeliest = (kept.read(ids) @ reader.outputs.T).argmax(-1)
        tokens = likeliest.tolist()
        going = [i for i, token in enumerate(tokens) if token not in stop]
        for i in going:
            written[rows[i]].append(tokens[i])
        if not going:
            break
        if len(going) < len(rows):
            kept.keep(torch.tensor(going, device=reader.device))
            rows = [rows[i] for i in going]
        ids = likeliest[going][:, None]
    return written


def left_padded(prompts: Sequence[Ids], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (n, length) that end at one place, and which of them are told (n, length), not padding."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    told = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, (mark, prompt) in enumerate(zip(told, prompts, strict=True)):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mark[longest - len(prompt) :] = True
    return ids.to(device), told.to(device)


class Memory(Protocol):
    """What a model keeps of a batch that it reads on and on."""

    def read(self, ids: Tensor) -> Tensor:
        """Last hidden states (n, width), float32, after these ids (n, length), which follow what was read."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        ...


def memory(reader: Any, told: Tensor, max_new: int) -> Memory:
    """An empty memory for a batch of prompts `told` (n, length) and `max_new` tokens after each."""
    seen = pad(told, (0, max_new), value=True)
    return OwnMemory(reader, seen) if isinstance(reader, Decoder) else TheirMemory(reader, seen)


class OwnMemory:
    """Keys and values of a model of the Llama family, read by our own pass.

    Places are counted from the block's left end: rotary positions tell distances only, so padding moves
    nothing.
    """

    def __init__(self, decoder: Decoder, seen: Tensor) -> None:
        self.decoder, self.seen, self.filled = decoder, seen, 0
        size = (len(seen), decoder.kv_heads, seen.shape[1], decoder.dim)
        self.keys, self.values = (
            [torch.zeros(size, dtype=decoder.dtype, device=decoder.device) for _ in decoder.layers]
            for _ in range(2)
        )

    def read(self, ids: Tensor) -> Tensor:
        decoder, shape = self.decoder, Shape(ids.shape[0], ids.shape[1], self.filled)
        angles, mask = decoder.angles(shape), self.mask(shape)
        self.filled += shape.length
        x = decoder.embedded(ids.flatten())
        for i, layer in enumerate(decoder.layers):
            q, *new = decoder.attended(x, layer, shape, angles, None)
            k, v = (
                self.extended(held[i], one) for held, one in zip((self.keys, self.values), new, strict=True)
            )
            mixed = scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
            x = x + mixed.transpose(1, 2).reshape(len(x), -1) @ layer.out
            x = x + Gated.apply(decoder.unit(x) @ layer.gate_up) @ layer.down
        last = x.view(shape.prompts, shape.length, -1)[:, -1]
        return torch.nn.functional.rms_norm(last, last.shape[-1:], decoder.norm, decoder.eps)

    def extended(self, held: Tensor, new: Tensor) -> Tensor:
        """All that is held of a layer (n, kv heads, filled, dim), the new ones written behind the others."""
        held[:, :, self.filled - new.shape[2] : self.filled] = new
        return held[:, :, : self.filled]

    def mask(self, shape: Shape) -> Tensor:
        """Where a new token (n, 1, length, filled) may look: at what is told before it, and at itself, so that
        a token of padding is a number too."""
        end = shape.past + shape.length
        new = torch.arange(shape.past, end, device=self.seen.device)[:, None]
        old = torch.arange(end, device=self.seen.device)
        return ((old <= new) & self.seen[:, None, None, :end]) | (old == new)

    def keep(self, rows: Tensor) -> None:
        self.seen = self.seen[rows]
        self.keys, self.values = ([one[rows] for one in held] for held in (self.keys, self.values))


class TheirMemory:
    """The cache of any other causal language model, read by transformers' own pass."""

    def __init__(self, reader: Any, seen: Tensor) -> None:
        self.reader, self.seen, self.filled = reader, seen, 0
        self.cache: Any = None
        reader.model.eval()

    def read(self, ids: Tensor) -> Tensor:
        self.filled += ids.shape[1]
        seen = self.seen[:, : self.filled].long()
        found = self.reader.read(
            ids,
            attention_mask=seen,
            position_ids=(seen.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = found.past_key_values
        return found.last_hidden_state[:, -1].float()

    def keep(self, rows: Tensor) -> None:
        self.seen = self.seen[rows]
        self.cache.batch_select_indices(rows)
