"""Knowledge as vectors: texts of users and of items, pooled by an encoder, made small and of one scale.

    texts (owner, text) -> token ids -> mean over tokens -> principal components -> Vectors, memory-mapped

The mean is over a text's own tokens (`pipeline.text.encoder`). Users and items have components of their own:
their texts begin alike among themselves, and taking away the mean undoes that. One number brings all to unit
size, so that layers find them as large as they expect.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.llm.load import load_tokenizer
from pipeline.stage import Artefact, Draft, Settings
from pipeline.text.cleaning import neutralise
from pipeline.text.embeddings import Floats, principal
from pipeline.text.encoder import sentence_vectors

FILE = "vectors"
KINDS = ("user", "item")


class KnowledgeVectors(Settings):
    components: int | None = Field(
        64, ge=1, description="principal components kept of a text's vector; null for the encoder's own numbers"
    )
    max_tokens: int = Field(
        512,
        ge=2,
        description="tokens of a text read at most, the first ones; the encoder's places bound it",
    )
    batch_tokens: int = Field(
        4096, ge=1, description="tokens of one pass, padding included; changes results by rounding only"
    )


class Vectors(NamedTuple):
    """Vectors of users (n, width) and of items (m, width) float32, and whose they are (n,), (m,) int64."""

    user: Floats
    item: Floats
    user_owner: NDArray[np.int64]
    item_owner: NDArray[np.int64]


def encode(texts: pl.DataFrame, folder: Path, settings: KnowledgeVectors, label: str) -> tuple[Floats, int]:
    """A vector for each text (n, width), equal texts read once; and how many texts are cut."""
    tokenizer = load_tokenizer(folder)
    distinct = texts["text"].unique(maintain_order=True)
    safe = neutralise(distinct.to_list(), tokenizer)
    tokenizer.no_truncation()
    lengths = np.array([len(one.ids) for one in tokenizer.encode_batch_fast(safe)])
    longest = min(settings.max_tokens, places(folder))
    found = sentence_vectors(folder, safe, longest, settings.batch_tokens, label)
    place = dict(zip(distinct, range(len(distinct)), strict=True))
    of = np.array([place[text] for text in texts["text"]], dtype=np.int64)
    return found[of], int((lengths[of] > longest).sum())


def places(folder: Path) -> int:
    """Tokens that the encoder can tell the order of."""
    return json.loads((folder / "config.json").read_text())["max_position_embeddings"]


def small(vectors: Floats, components: int | None) -> tuple[Floats, float]:
    """Principal components at unit size (n, components), zeros where there are fewer, and the variance kept."""
    if components is None:
        return sized(vectors), 1.0
    found = principal(vectors, components)
    missing = components - found.coordinates.shape[1]
    return sized(np.pad(found.coordinates, ((0, 0), (0, missing)))), found.share


def sized(vectors: Floats) -> Floats:
    """The vectors over their root mean square."""
    scale = float(np.sqrt(np.square(vectors, dtype=np.float64).mean())) if vectors.size else 0.0
    return (vectors / (scale or 1.0)).astype(np.float32)


def write_vectors(texts: dict[str, pl.DataFrame], folder: Path, settings: KnowledgeVectors, out: Draft) -> None:
    """Encode the texts (owner, text) of users and of items and write them, with what was cut and kept."""
    import torch

    held = {}
    for kind in KINDS:
        if not texts[kind].height:
            raise ValueError(f"no {kind} has a text")
        vectors, cut = encode(texts[kind], folder, settings, f"encode texts of {kind}s")
        coordinates, share = small(vectors, settings.components)
        held[kind] = torch.from_numpy(coordinates)
        held[f"{kind}_owner"] = torch.from_numpy(texts[kind]["owner"].to_numpy().astype(np.int64))
        out.metric(
            **{
                f"{kind}_texts": texts[kind].height,
                f"{kind}_texts_cut": cut,
                f"{kind}_variance_kept": round(share, 6),
            }
        )
    out.tensors(FILE, held)


def vectors_of(artefact: Artefact) -> Vectors:
    """The vectors that a finished artefact holds; the file is mapped, not read."""
    held = artefact.tensors(FILE)
    return Vectors(*(held[name].numpy() for name in Vectors._fields))
