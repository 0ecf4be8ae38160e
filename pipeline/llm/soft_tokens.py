"""Soft tokens: vectors that a language model reads in the place of words.

    prompt with reserved tokens + slot map + vectors (n, d) -> ids, negative at the slots
    reader meets id -1 - ref -> projector(vectors)[ref] -> embedding

A soft token's id is -1 - ref, where ref is a row of the table of soft vectors: row r of the vectors gives refs
r * k to r * k + k - 1 for slots of k tokens. The ids so carry the slot map themselves: two prompts begin alike
exactly where their words and their vectors do, so batching and shared beginnings need to know nothing of slots,
and no text can write one (tokens of text are never negative).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.llm.ask import VECTORS
from pipeline.llm.settings import Plan, SoftTuning
from pipeline.stage import Artefact, declared
from pipeline.text.cleaning import reserved_id

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

FILE = "soft.safetensors"
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


def encode_slots(tokenizer: "Tokenizer", prompts: pl.DataFrame) -> list[list[int]]:
    """Token ids of each prompt, soft tokens as negative ids.

    prompts: columns `prompt`, `slots` (characters where reserved tokens begin) and `vectors` (what each shows).
    Raises ValueError where slots and vectors differ in number, where a slot is no whole reserved token, or
    where there are reserved tokens that are no slots.
    """
    reserved = reserved_id(tokenizer)
    read = tokenizer.encode_batch(prompts["prompt"].to_list())
    rows = zip(read, prompts["slots"].to_list(), prompts["vectors"].to_list(), strict=True)
    return [placed(one, slots, refs, reserved) for one, slots, refs in rows]


def placed(read: "Encoding", slots: Sequence[int], refs: Sequence[int], reserved: int) -> list[int]:
    """The ids of one prompt, with its vectors in their slots."""
    ids = read.ids
    if len(slots) != len(refs):
        raise ValueError(f"{len(slots)} slots, but {len(refs)} vectors for them")
    for slot, ref in zip(slots, refs, strict=True):
        at = read.char_to_token(slot)
        if at is None or ids[at] != reserved or read.offsets[at][0] != slot:
            raise ValueError(f"no reserved token begins at character {slot}")
        ids[at] = -1 - ref
    if reserved in ids:
        raise ValueError(f"{ids.count(reserved)} reserved tokens are no slots")
    return ids


class Soft(nn.Module):
    """Vectors (n, d) and the projector that makes of each `count` embeddings (width,)."""

    def __init__(self, vectors: Tensor, projector: nn.Module, count: int, tuned: bool = False) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.float(), requires_grad=tuned)
        self.projector, self.count = projector, count

    def forward(self, refs: Tensor) -> Tensor:
        """Embeddings (m, width), float32, of refs (m,)."""
        rows, back = torch.unique(refs // self.count, return_inverse=True)
        shown = self.projector(self.vectors[rows]).view(len(rows), self.count, -1)
        return shown[back, refs % self.count]


class Sizes(NamedTuple):
    """Numbers of a vector, tokens that show it, and the model's width."""

    dim: int
    tokens: int
    width: int


def project(sizes: Sizes, settings: SoftTuning, seed: int) -> nn.Module:
    """A fresh projector, by seed: Linear, activation, Linear, from (dim,) to (tokens * width,)."""
    middle = sizes.width if settings.middle == "model" else round(settings.middle * sizes.dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(sizes.dim, middle),
            ACTIVATIONS[settings.activation](),
            nn.Linear(middle, sizes.tokens * sizes.width),
        )


def shown_by(prompts: Artefact, model: Any) -> tuple[Tensor, Sizes]:
    """The vectors (n, d) that a table of prompts brings along, and their sizes for a model."""
    vectors = prompts.tensors(VECTORS)[VECTORS]
    width = model.get_input_embeddings().weight.shape[1]
    return vectors, Sizes(vectors.shape[1], prompts.metrics["soft_tokens"], width)


def make_soft(prompts: Artefact, model: Any, settings: SoftTuning, plan: Plan, seed: int) -> Soft:
    """Soft tokens to tune: the prompts' vectors and a fresh projector."""
    vectors, sizes = shown_by(prompts, model)
    if plan.vectors == "fresh":
        draws = torch.Generator().manual_seed(seed)
        vectors = torch.randn(vectors.shape, generator=draws) * vectors.std()
    projector = project(sizes, settings, seed).requires_grad_(plan.projector)
    return Soft(vectors, projector, sizes.tokens, plan.vectors != "given").to(model.device)


def soft_weights(soft: Soft | None) -> dict[str, Tensor]:
    """Trainable weights by name; none where there are no soft tokens."""
    named = soft.named_parameters() if soft is not None else ()
    return {f"soft.{name}": weight for name, weight in named if weight.requires_grad}


def write_soft(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the soft weights among these, under their own names; no file where there are none."""
    held = {name.removeprefix("soft."): w for name, w in weights.items() if name.startswith("soft.")}
    if held:
        save_file({name: w.detach().cpu().contiguous() for name, w in held.items()}, folder / FILE)


def read_soft(adapter: Artefact, prompts: Artefact, model: Any) -> Soft | None:
    """A finished adapter's soft tokens: its projector, on the prompts' vectors where it did not tune them; None
    where it has none."""
    if not adapter.file(FILE).exists():
        return None
    vectors, sizes = shown_by(prompts, model)
    settings = declared(adapter.manifest["reference"]).settings.model_validate(dict(adapter.settings))
    assert isinstance(settings, SoftTuning)
    soft = Soft(vectors, project(sizes, settings, 0), sizes.tokens)
    soft.load_state_dict({"vectors": vectors, **load_file(adapter.file(FILE))})
    return soft.requires_grad_(False).eval().to(model.device)
