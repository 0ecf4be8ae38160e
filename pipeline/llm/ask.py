"""What a language model is asked: one prompt per example, as the table `prompts`.

examples + their past + further slots -> ask -> prompts, with what each shows and how long it is
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from pipeline.evaluate import leaks
from pipeline.llm.examples import SCORED
from pipeline.llm.settings import Prompting
from pipeline.schema import Prompts
from pipeline.stage import Artefact, Draft
from pipeline.text.prompts import Template, fill, safe_titles

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

VECTORS = "vectors"  # the file and tensor that hold what the prompts' soft tokens show


class Shown(NamedTuple):
    """What prompts are filled with, a row per example.

    past: lists `items` and `labels`, oldest first, and `vectors` where items are shown by vectors too; slots: a
    column for each further slot of the template, and `name.vector` for one that shows a vector.
    """

    past: pl.DataFrame
    slots: Mapping[str, pl.Series] = {}

    def take(self, places: "Sequence[int]") -> "Shown":
        """The same of the examples at these places."""
        return Shown(self.past[places], {name: values[places] for name, values in self.slots.items()})


def model_folder(language_model: Artefact) -> Path:
    return language_model.file("model")


def ask(
    examples: pl.DataFrame,
    shown: Shown,
    titles: Mapping[int, str],
    template: Template,
    settings: Prompting,
    tokenizer: "Tokenizer",
) -> pl.DataFrame:
    """One prompt per example, in the same order, as the table `prompts`.

    titles: item -> title as the source has it.
    """
    safe = safe_titles(titles, tokenizer, settings.title_length)
    target = pl.col("item").replace_strict(safe, return_dtype=pl.String)
    slots = examples.select(target=target).with_columns(**shown.slots)
    found = fill(template, slots, shown.past, safe, settings.max_tokens, tokenizer)
    made = pl.concat([examples.select("row", "part", "user", "item", "label"), found], how="horizontal")
    counted = made.with_columns(
        form=pl.lit(1, dtype=pl.UInt8),
        items_shown=pl.col("shown").list.len(),
        items_dropped=shown.past["items"].list.len() - pl.col("shown").list.len(),
    )
    return counted.select(Prompts.column_names())


def write_vectors(vectors: "NDArray[np.float32] | None", template: Template, out: Draft) -> None:
    """Write what the prompts' soft tokens show, (n, d), beside them; nothing for None.

    Raises ValueError where slots of the template spend different numbers of tokens on a vector.
    """
    if vectors is None:
        return
    import torch

    (count, *others) = {slot.count for slot in template.soft}
    if others:
        raise ValueError(f"all slots show a vector by as many tokens; here {sorted([count, *others])}")
    out.tensors(VECTORS, {VECTORS: torch.from_numpy(vectors)})
    out.metric(soft_vectors=len(vectors), soft_width=vectors.shape[1], soft_tokens=count)


def write_prompts(prompts: pl.DataFrame, answers: tuple[str, str], out: Draft) -> None:
    """Write the prompts, the words that answer them, and their sizes as metrics."""
    out.table("prompts", prompts)
    out.json("answers", list(answers))
    tokens = prompts["tokens"].to_numpy()
    counts = {f"{part}_rows": prompts.filter(part=part).height for part in ("train", *SCORED)}
    out.metric(
        **counts,
        longest_prompt=int(tokens.max(initial=0)),
        mean_tokens=round(float(tokens.mean()), 2) if len(tokens) else None,
        prompts_cut=prompts.filter(pl.col("items_dropped") > 0).height,
        targets_used_before=leaks.targets_shown(prompts).height,
    )
