"""What the report shows of semantic ids: their figures, and a small tree of codes with the items' titles.

    artefacts with semantic_ids + items -> gather -> Coded -> a section of page.html.j2

A tree is that of a stage's first seed, its commonest codes only, so that the page stays small.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from pipeline.stage import Artefact

FIRST, SECOND = 8, 5  # branches shown of the whole tree, and of each of these
TITLES = 4  # shown of a branch


class Figures(NamedTuple):
    """One stage's ids of one seed. Sequences have a figure for each level.

    unique: different ids over items, without the digit; sharing: share of items whose codes others have too;
    perplexity: over the codes there are; left: share of the vectors' variance; told: of what there is to know
    of categories, above chance.
    """

    stage: str
    seed: int
    items: int
    k: int
    unique: float
    sharing: float
    largest: int
    usage: Sequence[float]
    perplexity: Sequence[float]
    left: Sequence[float]
    told: Sequence[float]


class Branch(NamedTuple):
    """Items whose codes begin alike: how many, the commonest branches below, or at the end some titles."""

    code: int
    items: int
    branches: Sequence["Branch"]
    titles: Sequence[str]
    hidden: int


class Tree(NamedTuple):
    """The first codes of one stage and seed, the commonest first, and how many are not shown."""

    stage: str
    seed: int
    branches: Sequence[Branch]
    hidden: int


class Coded(NamedTuple):
    """All that the section shows; nothing of both where the study has no semantic ids."""

    figures: Sequence[Figures]
    trees: Sequence[Tree]


NOTHING = Coded((), ())


def gather(coded: Sequence[Artefact], items: pl.DataFrame) -> Coded:
    """Figures of all artefacts of semantic ids, and a tree of each stage. items: item, title."""
    first: dict[str, Artefact] = {}
    for artefact in coded:
        first.setdefault(artefact.stage, artefact)
    return Coded([figures(one) for one in coded], [tree(one, items) for one in first.values()])


def figures(artefact: Artefact) -> Figures:
    facts = artefact.metrics

    def by_level(name: str) -> list[float]:
        return [facts[f"{name}_{level}"] for level in range(1, facts["levels"] + 1)]

    return Figures(
        artefact.stage,
        artefact.seed,
        facts["items"],
        facts["codes_a_level"],
        facts["unique_share"],
        facts["sharing"],
        facts["largest_group"],
        by_level("usage"),
        [one / facts["codes_a_level"] for one in by_level("perplexity")],
        by_level("variance_left"),
        by_level("category_information"),
    )


def tree(artefact: Artefact, items: pl.DataFrame) -> Tree:
    """The commonest branches of the first two levels, with titles."""
    codes = pl.col("codes")
    ids = artefact.table("semantic_ids").join(items.select("item", "title"), on="item", how="left")
    named = ids.select(
        "title", first=codes.list.get(0), second=codes.list.get(1) if artefact.metrics["levels"] > 1 else 0
    )
    found = list(commonest(named, "first"))
    branches = [whole(code, held) for code, held in found[:FIRST]]
    return Tree(artefact.stage, artefact.seed, branches, len(found) - len(branches))


def whole(code: int, held: pl.DataFrame) -> Branch:
    """A branch of the first level and those below it."""
    below = list(commonest(held, "second"))
    shown = [
        Branch(second, few.height, (), few["title"].head(TITLES).to_list(), max(few.height - TITLES, 0))
        for second, few in below[:SECOND]
    ]
    return Branch(code, held.height, shown, (), len(below) - len(shown))


def commonest(rows: pl.DataFrame, by: str) -> Iterable[tuple[int, pl.DataFrame]]:
    """Each value of a column with its rows, that of most rows first, then by value."""
    groups = rows.partition_by(by, as_dict=True)
    return [(int(value), held) for (value,), held in sorted(groups.items(), key=lambda g: (-g[1].height, g[0]))]
