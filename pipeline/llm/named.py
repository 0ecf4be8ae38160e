"""What a model names when it writes freely: the candidate that its answer holds, or none.

    prompts -> greedy text -> first line -> the one candidate whose title stands there whole

This is the scoring of papers whose answer is one title; what is ordered by likelihood needs none of it.
"""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipeline.llm.choices import Choices
from pipeline.llm.examples import SCORED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.llm.reader import Ids, Reader

MAX_NEW = 64  # tokens of an answer at most


def written_choices(
    reader: "Reader",
    prompts: Sequence["Ids"],
    titles: Sequence[Sequence[str]],
    tokenizer: "Tokenizer",
    end: int | None,
) -> list[int | None]:
    """The place of the candidate that the model names when it writes freely after each prompt, None for none.

    titles: for each prompt those of its candidates, in the order of their places.
    """
    from pipeline.llm.generate import greedy

    texts = [tokenizer.decode(ids) for ids in greedy(reader, prompts, MAX_NEW, [] if end is None else [end])]
    return [named_in(text, own) for text, own in zip(texts, titles, strict=True)]


def named_in(text: str, titles: Sequence[str]) -> int | None:
    """The place of the one title that stands whole in a text's first line, letter case aside; None for none or
    several. Longer titles are looked for first, and a title inside one found is no second (by the authors' code
    such an answer is invalid)."""
    line, found = text.strip().split("\n", 1)[0].lower(), []
    for place in sorted(range(len(titles)), key=lambda i: -len(titles[i])):
        line, times = re.subn(rf"(?<!\w){re.escape(titles[place].lower())}(?!\w)", "|", line)
        found += [place] * (times > 0)
    return found[0] if len(found) == 1 else None


def shares_named(found: Sequence[int | None], asked: Choices, parts: pl.Series) -> dict[str, float]:
    """Of each part: answers that name one candidate, over all; and right ones, over those."""
    told = {}
    for part in SCORED:
        own = [(found[i], asked.targets[i]) for i in (parts == part).arg_true()]
        valid = [named == target for named, target in own if named is not None]
        told[f"{part}_valid_ratio"] = len(valid) / len(own) if own else math.nan
        told[f"{part}_hr_1_of_valid"] = float(np.mean(valid)) if valid else math.nan
    return {name: round(share, 6) for name, share in told.items() if math.isfinite(share)}
