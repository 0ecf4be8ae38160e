"""Semantic ids: every item as a few codes, from the vector of its text; items alike share their first codes.

    text_embeddings -> a maker -> codes -> + the digit of those who share them -> table semantic_ids

Rajput et al., "Recommender Systems with Generative Retrieval" (TIGER), NeurIPS 2023,
https://arxiv.org/abs/2305.05065, makes them with an RQ-VAE and compares with LSH and random ids. The makers are
in `pipeline.codes.makers`; all write the same table, judged by the same checks and figures, so that a method
takes any of them by its variant.

No stage of these runs unless a method of the study reads it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.codes.clusters import Floats
from pipeline.codes.ids import with_digits
from pipeline.codes.levels import holders, perplexity, sharing, usage
from pipeline.codes.makers import Made, random_ids, rq_kmeans
from pipeline.schema import SemanticIds
from pipeline.stage import Artefact, Check, Draft, Settings, Stage, Verdict, stage
from pipeline.text.embeddings import as_array

ITEMS_A_CODE = 16  # at least, of the first level, where the study names no number of codes
FEWEST, MOST = 8, 256  # codes of a level, where it names none
USED = 0.8  # share of a level's codes that should be in use, as in the paper


class IdSettings(Settings):
    levels: int = Field(3, ge=1, description="codes of an item, before the digit of those who share them")
    codes_a_level: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="values of a code; null for 256, or fewer, from 8 on, so that 16 items come to each",
    )


class KMeansSettings(IdSettings):
    iterations: int = Field(25, ge=1, description="rounds of k-means on each level")


def codes_for(settings: IdSettings, items: int) -> int:
    """The number of codes a level: the study's, or the default for so many items."""
    if settings.codes_a_level is not None:
        return settings.codes_a_level
    asked = 1 << max(items // ITEMS_A_CODE, 1).bit_length() - 1
    return min(max(asked, FEWEST), MOST)


def write_ids(out: Draft, items: pl.Series, made: Made, k: int) -> None:
    """Write table, code books and figures."""
    import torch

    ids = with_digits(made.codes)
    lists = pl.Series("codes", ids.astype(np.uint16)).arr.to_list()
    out.table("semantic_ids", pl.DataFrame({"item": items, "codes": lists}))
    out.tensors("books", {name: torch.from_numpy(book) for name, book in made.books.items()})
    out.metric(
        items=len(ids), levels=made.codes.shape[1], codes_a_level=k, digits=int(ids[:, -1].max(initial=0)) + 1
    )
    out.metric(**sharing(made.codes)._asdict())
    for level, counts in enumerate(holders(made.codes, k), start=1):
        out.metric(**{f"usage_{level}": usage(counts), f"perplexity_{level}": perplexity(counts)})


def every_item_coded_once(draft: Draft, inputs: Mapping[str, Any], settings: IdSettings) -> Verdict:
    """Every item that has a vector has one id, in the same order."""
    wanted, found = inputs["vectors"].table("item_embeddings")["item"], draft.read("semantic_ids")["item"]
    return Verdict(found.equals(wanted, check_names=False), f"{len(found)} ids of {len(wanted)} items")


def codes_in_range(draft: Draft, inputs: Mapping[str, Any], settings: IdSettings) -> Verdict:
    """Every id has a code of each level and a digit, each below the number of values of its place."""
    facts, codes = draft.metrics, draft.read("semantic_ids")["codes"]
    places = facts["levels"] + 1
    short = int((codes.list.len() != places).sum())
    high = codes.list.eval(pl.element() >= facts["codes_a_level"]).list.any() | (
        codes.list.last() >= facts["digits"]
    )
    words = f"{short} ids of not {places} places, {int(high.sum())} with a value out of range"
    return Verdict(not short and not high.any(), words)


def no_two_items_share_an_id(draft: Draft, inputs: Mapping[str, Any], settings: IdSettings) -> Verdict:
    """Codes and digit together are of one item."""
    codes = draft.read("semantic_ids")["codes"]
    again = len(codes) - codes.n_unique()
    return Verdict(not again, f"{again} of {len(codes)} ids are of another item too", {"again": again})


def digits_are_enough(draft: Draft, inputs: Mapping[str, Any], settings: IdSettings) -> Verdict:
    """No more items share their codes than a digit, with as many values as a code, can tell apart."""
    facts = draft.metrics
    words = f"up to {facts['digits']} items share their codes, at most {facts['codes_a_level']} may"
    return Verdict(facts["digits"] <= facts["codes_a_level"], words, {"digits": facts["digits"]})


def most_codes_used(draft: Draft, inputs: Mapping[str, Any], settings: IdSettings) -> Verdict:
    """At least 80 % of the codes of each level are some item's."""
    used = [draft.metrics[f"usage_{level}"] for level in range(1, draft.metrics["levels"] + 1)]
    return Verdict(min(used) >= USED, ", ".join(f"{one:.0%}" for one in used), {"least": min(used)})


CHECKS = (
    Check(every_item_coded_once),
    Check(codes_in_range),
    Check(no_two_items_share_an_id),
    Check(digits_are_enough),
    Check(most_codes_used, blocking=False),
)


def semantic_ids(
    name: str, settings: type[IdSettings], make: Callable[[Floats, Any, int, Draft], Made], **facts: Any
) -> Stage:
    """The stage `semantic_ids/NAME`. make: vectors (n, d), settings, codes a level, draft -> `Made`."""

    def found(vectors: Artefact, settings: IdSettings, out: Draft) -> None:
        table = vectors.table("item_embeddings")
        k = codes_for(settings, table.height)
        write_ids(out, table["item"], make(as_array(table), settings, k, out), k)

    found.__name__, found.__doc__ = name, make.__doc__
    return stage(
        f"semantic_ids/{name}",
        settings=settings,
        section="models",
        version=1,
        inputs={"vectors": "text_embeddings"},
        tables={"semantic_ids": SemanticIds, **facts.pop("tables", {})},
        checks=CHECKS,
        seeded=True,
        **facts,
    )(found)


def by_kmeans(vectors: Floats, settings: KMeansSettings, k: int, out: Draft) -> Made:
    """Every item's codes by residual k-means on its text's vector."""
    return rq_kmeans(vectors, settings.levels, k, out.seed, settings.iterations)


def by_chance(vectors: Floats, settings: IdSettings, k: int, out: Draft) -> Made:
    """Every item's codes drawn at random: the control of all other semantic ids."""
    return random_ids(len(vectors), settings.levels, k, out.seed)


rqkmeans = semantic_ids("rqkmeans", KMeansSettings, by_kmeans, needs="heavy")
random = semantic_ids("random", IdSettings, by_chance)
