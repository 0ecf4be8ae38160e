"""T5, small and from scratch: reads tokens in both directions, writes a few tokens one after another.

    tokens -> encoder -> memory;  memory + beginnings that were written -> logits of the next token

Raffel et al., JMLR 21, 2020, arXiv 1910.10683. The sums are those of transformers' own
`T5ForConditionalGeneration` (`tests` hold them against it), under whose names `to_transformers` puts the
weights. It is written out for two reasons. Dropout comes from a seed of its own, so that batches read side by
side draw the same bits as one after another. And a decoder step takes any number of beginnings for each row
of memory (`step`), which share the memory's keys and values and never copy them: a beam, or a whole depth of a
trie.

Attention's width is heads x head_width, whatever the width of the states. Left out: dropout of its weights.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, gelu, linear, log_softmax, relu, rms_norm

from pipeline.collab.factors import table
from pipeline.dropout import dropped

BUCKETS, FARTHEST = 32, 128  # of T5's relative places
PAD = 0  # also what the decoder starts with


class Shape(NamedTuple):
    """What the network is made of."""

    vocabulary: int
    width: int = 128
    inner: int = 1024
    heads: int = 6
    head_width: int = 64
    layers: int = 4
    decoder_layers: int = 4
    gated: bool = False
    dropout: float = 0.1


class Memory(NamedTuple):
    """What the decoder reads of rows: each layer's keys and values (b, heads, s, head_width); the bias
    (b, 1, 1, s), -inf for padding."""

    layers: Sequence[tuple[Tensor, Tensor]]
    bias: Tensor


Past = Sequence[tuple[Tensor, Tensor]]  # each layer's keys and values (b, w, t, heads, head_width) so far


class Norm(nn.Module):
    """Scale without shift, by the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x.float(), self.weight.shape, self.weight, 1e-6)


class Attention(nn.Module):
    """Weights of one attention; scores are not scaled, T5's first weights are."""

    def __init__(self, shape: Shape, draws: Generator) -> None:
        super().__init__()
        inner, width = shape.heads * shape.head_width, shape.width
        self.heads = shape.heads
        self.norm = Norm(width)
        self.q = table(inner, width, (width * shape.head_width) ** -0.5, draws)
        self.k = table(inner, width, width**-0.5, draws)
        self.v = table(inner, width, width**-0.5, draws)
        self.o = table(width, inner, inner**-0.5, draws)

    def split(self, x: Tensor, weight: Tensor) -> Tensor:
        """States (b, l, d) as heads (b, heads, l, head_width)."""
        return linear(x, weight).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def mixed(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Queries (b, h, l, w) over keys and values (b, h, s, w), with a bias that spreads to (b, h, l, s)."""
        weights = (query @ key.transpose(-1, -2)).float().add(bias).softmax(-1)
        return linear((weights.to(value.dtype) @ value).transpose(1, 2).flatten(2), self.o)


class Inner(nn.Module):
    """The map of each state by itself: ReLU, or a GELU gate."""

    def __init__(self, shape: Shape, draws: Generator) -> None:
        super().__init__()
        self.norm, self.dropout = Norm(shape.width), shape.dropout
        self.widen = table(shape.inner, shape.width, shape.width**-0.5, draws)
        self.gate = table(shape.inner, shape.width, shape.width**-0.5, draws) if shape.gated else None
        self.narrow = table(shape.width, shape.inner, shape.inner**-0.5, draws)

    def forward(self, x: Tensor, draws: Generator | None = None) -> Tensor:
        """What is added to states (..., d)."""
        x = self.norm(x)
        wide = linear(x, self.widen)
        wide = relu(wide) if self.gate is None else gelu(wide, approximate="tanh") * linear(x, self.gate)
        return dropped(linear(dropped(wide, self.dropout, draws), self.narrow), self.dropout, draws)


class Block(nn.Module):
    """One layer; only a decoder's looks at the memory."""

    def __init__(self, shape: Shape, draws: Generator, *, decoder: bool) -> None:
        super().__init__()
        self.own = Attention(shape, draws)
        self.other = Attention(shape, draws) if decoder else None
        self.inner = Inner(shape, draws)


class T5(nn.Module):
    """Encoder and decoder with one table of tokens, which also gives the logits."""

    def __init__(self, shape: Shape, draws: Generator) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = table(shape.vocabulary, shape.width, 1.0, draws)
        self.encoder: Any = nn.ModuleList(Block(shape, draws, decoder=False) for _ in range(shape.layers))
        self.decoder: Any = nn.ModuleList(
            Block(shape, draws, decoder=True) for _ in range(shape.decoder_layers)
        )
        self.encoder_places = table(BUCKETS, shape.heads, shape.width**-0.5, draws)
        self.decoder_places = table(BUCKETS, shape.heads, shape.width**-0.5, draws)
        self.encoder_norm, self.decoder_norm = Norm(shape.width), Norm(shape.width)

    def forward(self, inputs: Tensor, outputs: Tensor, draws: Generator | None = None) -> Tensor:
        """Logits (b, t, vocabulary) of outputs (b, t), from the inputs (b, s) and the outputs before each."""
        memory = self.read(inputs, draws)
        started = torch.cat([torch.full_like(outputs[:, :1], PAD), outputs[:, :-1]], 1)
        return self.logits(self.write(started, memory, draws))

    def read(self, inputs: Tensor, draws: Generator | None = None) -> Memory:
        """The memory of inputs (b, s), padded on the right; each row holds a token."""
        share = self.shape.dropout
        hidden = torch.where(inputs == PAD, -torch.inf, 0.0)[:, None, None, :]
        bias = hidden + places(self.encoder_places, inputs.shape[1], both=True)
        x = dropped(embedding(inputs, self.tokens), share, draws)
        for block in self.encoder:
            own, seen = block.own, block.own.norm(x)
            mixed = own.mixed(own.split(seen, own.q), own.split(seen, own.k), own.split(seen, own.v), bias)
            x = x + dropped(mixed, share, draws)
            x = x + block.inner(x, draws)
        x = dropped(self.encoder_norm(x), share, draws)
        others = [block.other for block in self.decoder]
        return Memory([(other.split(x, other.k), other.split(x, other.v)) for other in others], hidden)

    def write(self, tokens: Tensor, memory: Memory, draws: Generator | None = None) -> Tensor:
        """States (b, t, d) after tokens (b, t), each of which sees those before it."""
        share, length = self.shape.dropout, tokens.shape[1]
        later = torch.full((length, length), -torch.inf, device=tokens.device).triu(1)
        bias = later + places(self.decoder_places, length, both=False)
        x = dropped(embedding(tokens, self.tokens), share, draws)
        for block, (key, value) in zip(self.decoder, memory.layers, strict=True):
            own, seen = block.own, block.own.norm(x)
            mixed = own.mixed(own.split(seen, own.q), own.split(seen, own.k), own.split(seen, own.v), bias)
            x = x + dropped(mixed, share, draws)
            other = block.other
            mixed = other.mixed(other.split(other.norm(x), other.q), key, value, memory.bias)
            x = x + dropped(mixed, share, draws)
            x = x + block.inner(x, draws)
        return dropped(self.decoder_norm(x), share, draws)

    def step(self, tokens: Tensor, past: Past, memory: Memory) -> tuple[Tensor, Past]:
        """States (b, w, d) after one more token (b, w) of w beginnings for each row, and their new past."""
        x, grown = embedding(tokens, self.tokens), []
        before = past[0][0].shape[2] if past else 0
        bias = places(self.decoder_places, before + 1, both=False)[:, -1]  # (heads, t)
        for nth, (block, (key, value)) in enumerate(zip(self.decoder, memory.layers, strict=True)):
            own, seen = block.own, block.own.norm(x)
            query, *held = (linear(seen, w).unflatten(-1, (own.heads, -1)) for w in (own.q, own.k, own.v))
            held = [one.unsqueeze(2) for one in held]
            if past:
                held = [torch.cat([old, one], 2) for old, one in zip(past[nth], held, strict=True)]
            grown.append((held[0], held[1]))
            weights = (torch.einsum("bwhd,bwthd->bwht", query, held[0]) + bias).softmax(-1)
            x = x + linear(torch.einsum("bwht,bwthd->bwhd", weights, held[1]).flatten(2), own.o)
            other = block.other
            x = x + other.mixed(other.split(other.norm(x), other.q), key, value, memory.bias)
            x = x + block.inner(x)
        return self.decoder_norm(x), grown

    def logits(self, states: Tensor) -> Tensor:
        """Logits (..., vocabulary) of states (..., d), scaled as T5 scales where one table serves twice."""
        return linear(states * self.shape.width**-0.5, self.tokens)

    def log_shares(self, states: Tensor, start: int, size: int, valid: Tensor | None = None) -> Tensor:
        """Log-probabilities (..., size) of the tokens from `start` on; among the valid (..., size) only where
        they are given, else among all tokens."""
        if valid is None:
            return log_softmax(self.logits(states).float(), -1)[..., start : start + size]
        own = linear(states * self.shape.width**-0.5, self.tokens[start : start + size]).float()
        return log_softmax(own.masked_fill(~valid, -torch.inf), -1)


def places(weights: Tensor, length: int, *, both: bool) -> Tensor:
    """T5's bias (heads, length, length) of how far a key lies from a query; both: also keys behind it."""
    at = torch.arange(length, device=weights.device)
    return weights[buckets(at[None, :] - at[:, None], both=both)].permute(2, 0, 1)


def buckets(distance: Tensor, *, both: bool) -> Tensor:
    """The bucket of each distance, key minus query: near ones their own, farther ones by their logarithm."""
    count, base = (BUCKETS // 2, (distance > 0) * (BUCKETS // 2)) if both else (BUCKETS, 0)
    away = distance.abs() if both else -distance.clamp_max(0)
    near = count // 2
    far = torch.log(away.float().clamp_min(1) / near) / math.log(FARTHEST / near) * (count - near)
    return base + torch.where(away < near, away, (near + far.long()).clamp_max(count - 1))


# --- as transformers names it ------------------------------------------------------------------------------


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of `T5ForConditionalGeneration`."""
    gated = any(name.endswith(".gate") for name in state)
    return {their_name(name, gated): tensor for name, tensor in state.items()}


def from_transformers(model: T5, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The other way round, for this model."""
    return {name: state[their_name(name, model.shape.gated)] for name in model.state_dict()}


OUTSIDE = {
    "tokens": "shared.weight",
    "encoder_places": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder_places": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "encoder_norm.weight": "encoder.final_layer_norm.weight",
    "decoder_norm.weight": "decoder.final_layer_norm.weight",
}
GATED = {"widen": "wi_0", "gate": "wi_1", "narrow": "wo"}
PLAIN = {"widen": "wi", "narrow": "wo"}


def their_name(name: str, gated: bool) -> str:
    """`encoder.0.own.q` -> `encoder.block.0.layer.0.SelfAttention.q.weight`."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    side, layer, part, weight = name.split(".")[:4]
    inner = 1 if side == "encoder" else 2
    place = {"own": 0, "other": 1, "inner": inner}[part]
    where = f"{side}.block.{layer}.layer.{place}"
    if weight == "norm":
        return f"{where}.layer_norm.weight"
    module = {"own": "SelfAttention", "other": "EncDecAttention", "inner": "DenseReluDense"}[part]
    names = GATED if gated else PLAIN
    return f"{where}.{module}.{names.get(weight, weight)}.weight"


def configuration(shape: Shape) -> dict[str, Any]:
    """What `T5Config` takes for this shape."""
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": shape.vocabulary,
        "d_model": shape.width,
        "d_ff": shape.inner,
        "d_kv": shape.head_width,
        "num_heads": shape.heads,
        "num_layers": shape.layers,
        "num_decoder_layers": shape.decoder_layers,
        "feed_forward_proj": "gated-gelu" if shape.gated else "relu",
        "dropout_rate": shape.dropout,
        "relative_attention_num_buckets": BUCKETS,
        "relative_attention_max_distance": FARTHEST,
        "pad_token_id": PAD,
        "decoder_start_token_id": PAD,
        "eos_token_id": 1,
    }
