"""Llama's forward pass with less around its multiplications: what reading and tuning spend their time in.

    ids (n, length) -> embedding -> layers -> last hidden state at the places that are asked for

The same sums as transformers' own (`tests` hold them against it), in fewer passes over memory: one product for
q, k and v and one for gate and up, weights of the norms folded into them, rotation and gating with backward
passes of their own, no attention mask where none is needed, and of the last layer only the places asked for.
Products are in the decoder's `dtype`; what adds up over layers stays float32. Low-rank weights are read where
peft has put them, so peft saves and merges them as ever. Nothing that is asked for can see the tokens after a
prompt's last place, padding among them, so they go through attention only, where prompts lie in a rectangle.

Dropout before the low-rank weights is drawn once a layer and shared by its targets (peft draws for each); it
comes from a seed of its own, so that batches read side by side draw the same bits as one after another.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from pipeline.dropout import dropped
from pipeline.llm.load import is_quantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
Angles = tuple[Tensor, Tensor]  # cosines and signed sines (length, dim)
Past = Sequence[tuple[Tensor, Tensor]]  # keys and values (1, kv heads, shared, dim) of each layer


def fits(model: "PreTrainedModel") -> bool:
    """Whether the model is one that this pass knows: the Llama family, adapted in q, k and v at most."""
    config = model.config
    plain = not (getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False))
    adapted = {
        name.split(".")[-1] for name, module in model.base_model.named_modules() if hasattr(module, "lora_A")
    }
    known = config.model_type == "llama" and config.hidden_act == "silu"
    return known and plain and adapted <= set(PROJECTIONS) and not is_quantised(model)


class LowRank(NamedTuple):
    """What is added to one product: `up (down (dropout x)) * scale`, or nothing (None) to a part of it."""

    down: Tensor
    up: Tensor
    scale: float
    drop: float


class Layer(NamedTuple):
    """Weights of one layer, each (in, out) in the decoder's dtype; `norm` is what its low-rank weights see."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    norm: Tensor
    low_rank: tuple[LowRank | None, ...]


class Shape(NamedTuple):
    """How many prompts, tokens of each, tokens before them that are already read; and which of the flattened
    tokens (n * length,) are read at all: their places (t,), None for all."""

    prompts: int
    length: int
    past: int
    kept: Tensor | None = None


class Decoder:
    """A model of the Llama family, to read with. Holds copies of its frozen weights in `dtype`.

    checkpointing: where there are gradients, keep of each layer its input alone, and read it again backwards.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        dtype: torch.dtype,
        soft: Callable[[Tensor], Tensor] | None = None,
        checkpointing: bool = False,
    ) -> None:
        base: Any = model.base_model
        self.soft, self.checkpointing = soft, checkpointing
        config = model.config
        self.dtype, self.device = dtype, model.device
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding, self.rotary = base.embed_tokens.weight.detach(), base.rotary_emb
        self.norm = base.norm.weight.detach().float()
        self.layers = [self.layer(one) for one in base.layers]

    def layer(self, held: Any) -> Layer:
        attention, mlp = held.self_attn, held.mlp
        into, between = (
            n.weight.detach().float() for n in (held.input_layernorm, held.post_attention_layernorm)
        )
        projections = [getattr(attention, name) for name in PROJECTIONS]
        return Layer(
            qkv=self.joined(projections, into),
            out=self.joined([attention.o_proj]),
            gate_up=self.joined([mlp.gate_proj, mlp.up_proj], between),
            down=self.joined([mlp.down_proj]),
            norm=into,
            low_rank=tuple(low_rank(projection) for projection in projections),
        )

    def joined(self, layers: Sequence[nn.Module], norm: Tensor | float = 1.0) -> Tensor:
        """Several layers' weights as one, (in, out), the norm before them folded in."""
        return (torch.cat([frozen(one) for one in layers]) * norm).to(self.dtype).T.contiguous()

    def states(self, ids: Tensor, places: Tensor, past: Past = (), draws: int | None = None) -> Tensor:
        """Last hidden states (m, width), float32, at `places` (m,) of the flattened ids (n, length).

        past: of a beginning that all prompts share, from `begin`; draws: seed of dropout, None without.
        """
        kept, asked = needed(ids.shape, places)
        shape = Shape(ids.shape[0], ids.shape[1], past[0][0].shape[2] if past else 0, kept)
        angles, mask = self.angles(shape), self.mask(shape)
        random = None if draws is None else torch.Generator(self.device).manual_seed(draws)
        x = self.embedded(ids.flatten() if kept is None else ids.flatten()[kept])

        def read(x: Tensor, i: int, random: torch.Generator | None) -> Tensor:
            layer = self.layers[i]
            q, k, v = self.attended(x, layer, shape, angles, random)
            k, v = extended(k, v, past[i]) if past else (k, v)
            mixed = attention(q, k, v, mask)
            if i + 1 == len(self.layers):
                x, mixed = x[asked], mixed[places]
            elif kept is not None:
                mixed = mixed.index_select(0, kept)
            x = x + mixed @ layer.out
            return x + Gated.apply(self.unit(x) @ layer.gate_up) @ layer.down

        through = read_again if self.checkpointing and torch.is_grad_enabled() else None
        for i in range(len(self.layers)):
            x = through(read, x, i, random) if through else read(x, i, random)
        return Unit.apply(x, self.eps, torch.float32) * self.norm

    def begin(self, ids: Tensor) -> Past:
        """Keys and values of a beginning, ids (shared,), for `states` to go on from."""
        shape = Shape(1, len(ids), 0)
        angles, mask = self.angles(shape), self.mask(shape)
        x, past = self.embedded(ids), []
        for layer in self.layers:
            q, k, v = self.attended(x, layer, shape, angles, None)
            past.append((k, v))
            x = x + attention(q, k, v, mask) @ layer.out
            x = x + Gated.apply(self.unit(x) @ layer.gate_up) @ layer.down
        return past

    def embedded(self, ids: Tensor) -> Tensor:
        return with_soft(self.embedding[ids.clamp(min=0)].float(), ids, self.soft)

    def unit(self, x: Tensor) -> Tensor:
        return Unit.apply(x, self.eps, self.dtype)

    def attended(
        self,
        x: Tensor,
        layer: Layer,
        shape: Shape,
        angles: tuple[Tensor, Tensor],
        random: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (n, heads, length, dim) and keys and values (n, kv heads, length, dim) of one layer."""
        h = self.unit(x)
        product = h @ layer.qkv
        if any(layer.low_rank):
            product = torch.addmm(product, *self.adapted(h, layer, random))
        product = in_rectangle(product, shape).view(shape.prompts, shape.length, -1, self.dim)
        return Heads.apply(product, *angles, self.kv_heads)

    def adapted(self, h: Tensor, layer: Layer, random: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """What the low-rank weights add to the joint product of q, k and v, as a product of two."""
        held = [one for one in layer.low_rank if one]
        h = dropped(h, held[0].drop, random)
        down = torch.cat([one.down * layer.norm for one in held]).to(self.dtype)
        return h @ down.T, self.placed(layer).T

    def placed(self, layer: Layer) -> Tensor:
        """The upper low-rank weights, each at its rows of the joint product and columns of the joint rank."""
        widths = (self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim)
        ranks = [one.down.shape[0] if one else 0 for one in layer.low_rank]
        rows = []
        for i, (one, width) in enumerate(zip(layer.low_rank, widths, strict=True)):
            before, after = sum(ranks[:i]), sum(ranks[i + 1 :])
            empty = torch.zeros(width, sum(ranks), device=self.device)
            rows.append(pad(one.up * one.scale, (before, after)) if one else empty)
        return torch.cat(rows).to(self.dtype)

    def angles(self, shape: Shape) -> Angles:
        """Of the places after the shared beginning."""
        at = torch.arange(shape.past, shape.past + shape.length, device=self.device)[None]
        cos, sin = self.rotary(self.norm, at)
        half = self.dim // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        cos, sin = (t.view(shape.length, self.dim).to(self.dtype) for t in (cos, signed))
        return cos, sin

    def mask(self, shape: Shape) -> Tensor | None:
        """0 where a token (length,) may look at one (past + length,), -inf elsewhere; None where plain causal
        attention without a gradient does the same, faster."""
        if not shape.past and not torch.is_grad_enabled():
            return None
        whole = torch.full(
            (shape.length, shape.past + shape.length), -torch.inf, dtype=self.dtype, device=self.device
        )
        return whole.triu_(shape.past + 1)


def needed(size: Sequence[int], places: Tensor) -> tuple[Tensor | None, Tensor]:
    """Which flattened tokens (t,) of prompts (n, length) are before a place (m,) that is asked for, or at it,
    None for all; and where among them the places (m,) are."""
    prompts, length = size
    last = torch.full((prompts,), -1, dtype=places.dtype, device=places.device)
    last.scatter_reduce_(0, places // length, places % length, "amax")
    seen = (torch.arange(length, device=places.device) <= last[:, None]).flatten()
    if seen.all():
        return None, places
    return seen.nonzero().squeeze(1), (seen.cumsum(0) - 1)[places]


def in_rectangle(product: Tensor, shape: Shape) -> Tensor:
    """Rows (t, width) of the tokens that are read, at their places among all (n * length, width)."""
    if shape.kept is None:
        return product
    return product.new_zeros(shape.prompts * shape.length, product.shape[1]).index_copy(0, shape.kept, product)


def with_soft(words: Tensor, ids: Tensor, soft: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Embeddings (..., width) of ids (...): those of `words`, and for an id below 0 what `soft` gives for its
    row -1 - id. Raises ValueError for soft tokens where there is nothing to show."""
    shown = ids < 0
    if not shown.any():
        return words
    if soft is None:
        raise ValueError("soft tokens in the prompts, and no vectors for them")
    return words.index_put(shown.nonzero(as_tuple=True), soft(-1 - ids[shown]).to(words.dtype))


def read_again(
    read: Callable[[Tensor, int, torch.Generator | None], Tensor],
    x: Tensor,
    layer: int,
    random: torch.Generator | None,
) -> Tensor:
    """What `read` makes of x, which keeps x alone for the way back, where the layer is read a second time with
    the same draws."""
    start = None if random is None else random.get_state()

    def once(x: Tensor) -> Tensor:
        nonlocal random
        again, random = random, None
        if again is None and start is not None:  # the second time: the draws of the first
            again = torch.Generator(x.device)
            again.set_state(start)
        return read(x, layer, again)

    return checkpoint(once, x, use_reentrant=False, preserve_rng_state=False)


def frozen(layer: nn.Module) -> Tensor:
    """The weight (out, in) that peft has left as it was, float32."""
    return getattr(layer, "base_layer", layer).weight.detach().float()  # type: ignore[union-attr]


def low_rank(layer: Any) -> LowRank | None:
    """What peft has put beside a layer, None where nothing."""
    if not hasattr(layer, "lora_A"):
        return None
    drop = getattr(layer.lora_dropout["default"], "p", 0.0)
    return LowRank(
        layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"], drop
    )


def extended(k: Tensor, v: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Keys and values after those of the shared beginning."""
    before = (one.expand(len(k), -1, -1, -1) for one in past)
    k, v = (torch.cat([one, new], dim=2) for one, new in zip(before, (k, v), strict=True))
    return k, v


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Mixed values (n * length, heads * dim).

    With a gradient the plain products are used: backwards the fused kernel took twice their time.
    """
    n, heads, length, dim = q.shape
    if not torch.is_grad_enabled():
        mixed = scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
        return mixed.transpose(1, 2).reshape(n * length, heads * dim)
    assert mask is not None
    groups = heads // k.shape[1]
    asked = q.reshape(n * k.shape[1], groups * length, dim)
    keys, values = k.flatten(0, 1), v.flatten(0, 1)
    looks = torch.baddbmm(mask.repeat(groups, 1), asked, keys.transpose(1, 2), alpha=dim**-0.5).softmax(-1)
    return torch.bmm(looks, values).view(n, heads, length, dim).transpose(1, 2).reshape(n * length, heads * dim)


# --- passes over memory with backward passes of their own ---------------------------------------------------


class Unit(torch.autograd.Function):
    """Rows (n, width) divided by their root mean square."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        shrink = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, shrink)
        return torch.mul(x, shrink, out=torch.empty(x.shape, dtype=dtype, device=x.device))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, shrink = ctx.saved_tensors
        gradient = gradients[0].float()
        along = torch.linalg.vecdot(gradient, x).unsqueeze(-1) * shrink.pow(3) / -x.shape[-1]
        return torch.mul(gradient, shrink).addcmul_(x, along), None, None


class Gated(torch.autograd.Function):
    """silu(gate) * up, of rows (n, 2 * width) that hold both."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        active = silu(gate)
        if not ctx.needs_input_grad[0]:
            return active.mul_(up)
        ctx.save_for_backward(both, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        both, active = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        found = torch.empty_like(both)
        of_gate, of_up = found.chunk(2, -1)
        torch.mul(gradients[0], active, out=of_up)
        torch.ops.aten.silu_backward.grad_input(gradients[0] * up, gate, grad_input=of_gate)
        return found


class Heads(torch.autograd.Function):
    """Queries (n, heads, length, dim), keys and values (n, kv heads, length, dim) of their joint product
    (n, length, heads + 2 kv heads, dim), queries and keys turned by their rotary positions; backwards the same
    turn the other way."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, cos: Tensor, sin: Tensor, kv_heads: int) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        q, k, v = parts(product, kv_heads)
        whole = torch.contiguous_format
        turned = (turn(x, cos, sin, torch.empty_like(x, memory_format=whole)) for x in (q, k))
        return *turned, v.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        q, k, v = gradients
        n, heads, length, dim = q.shape
        found = q.new_empty(n, length, heads + 2 * k.shape[1], dim)
        of_q, of_k, of_v = parts(found, k.shape[1])
        turn(q, cos, -sin, of_q)
        turn(k, cos, -sin, of_k)
        of_v.copy_(v)
        return found, None, None, None


def parts(product: Tensor, kv_heads: int) -> tuple[Tensor, ...]:
    """Views (n, heads, length, dim) of a joint product (n, length, heads + 2 kv heads, dim)."""
    return product.transpose(1, 2).split((product.shape[2] - 2 * kv_heads, kv_heads, kv_heads), 1)


def turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """x (n, heads, length, dim) turned into `out`: x cos plus the other half of x times sin."""
    half = x.shape[-1] // 2
    torch.mul(x, cos, out=out)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half])
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
