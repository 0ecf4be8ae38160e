"""Semantic ids: every item as a few codes, from the vector of its text; items alike share their first codes.

    text_embeddings -> a maker -> codes -> + the digit of those who share them -> table semantic_ids

Rajput et al., "Recommender Systems with Generative Retrieval" (TIGER), NeurIPS 2023,
https://arxiv.org/abs/2305.05065, makes them with an RQ-VAE and compares with LSH and random ids. The makers are
in `pipeline.codes.makers`; all write the same table, judged by the same checks and figures, so that a method
takes any of them by its variant.

None of these stages runs unless a method of the study reads it, or the study names it (`also`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, field_validator

from pipeline.codes import makers
from pipeline.codes.clusters import Floats, Ints
from pipeline.codes.ids import with_digits
from pipeline.codes.levels import (
    category_flags,
    category_information,
    holders,
    neighbours_in_order,
    perplexity,
    sharing,
    usage,
    variance_left,
)
from pipeline.codes.makers import Made
from pipeline.schema import Curve, SemanticIds
from pipeline.stage import Artefact, Check, Draft, Settings, Stage, Verdict, stage
from pipeline.text.embeddings import as_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ITEMS_A_CODE = 16  # at least, of the first level, where the study names no number of codes
FEWEST, MOST = 8, 256  # codes of a level, where it names none
SURE = 4.0  # standard deviations by which steps forward may differ from steps backward
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


class BalancedSettings(KMeansSettings):
    slack: float = Field(0.1, ge=0, description="a code may have this share of items more than the mean")


class LshSettings(IdSettings):
    @field_validator("codes_a_level")
    @classmethod
    def sides_make_powers(cls, codes: int | None) -> int | None:
        if codes is not None and codes & (codes - 1):
            raise ValueError(f"{codes} is no power of 2, and each hyperplane has two sides")
        return codes


class RqVaeSettings(IdSettings):
    hidden: tuple[int, ...] = Field((512, 256, 128), description="widths between the vector and its latent one")
    latent: int = Field(32, ge=1, description="width of the latent vector and of codes")
    commitment: float = Field(0.25, ge=0, description="weight of the pull of latent vectors to their codes")
    gradient: Literal["straight_through", "rotation"] = Field(
        "straight_through", description="how the decoder's gradient passes the codes"
    )
    sinkhorn: bool = Field(False, description="spread items evenly over the last level's codes, as LC-Rec")
    restart: bool = Field(True, description="move codes that no item has, before each epoch")
    lr: float = Field(1e-3, gt=0, description="Adam's step size")
    batch: int = Field(1024, ge=1, description="items a step")
    epochs: int = Field(200, ge=1, description="passes over the items")


def codes_for(settings: IdSettings, items: int) -> int:
    """The number of codes a level: the study's, or the default for so many items."""
    if settings.codes_a_level is not None:
        return settings.codes_a_level
    asked = 1 << max(items // ITEMS_A_CODE, 1).bit_length() - 1
    return min(max(asked, FEWEST), MOST)


def write_ids(out: Draft, items: pl.Series, made: Made, k: int) -> None:
    """Write table, code books and the figures that hang on the codes alone.

    Digits are given in a drawn order: source ids often follow time (Amazon's do), and so would digits in them.
    """
    import torch

    order = np.random.default_rng(out.seed).permutation(len(made.codes))
    ids = with_digits(made.codes[order])[np.argsort(order)]
    lists = pl.Series("codes", ids.astype(np.uint16)).arr.to_list()
    out.table("semantic_ids", pl.DataFrame({"item": items, "codes": lists}))
    out.tensors("books", {name: torch.from_numpy(book) for name, book in made.books.items()})
    digits = int(ids[:, -1].max(initial=0)) + 1
    out.metric(items=len(ids), levels=made.codes.shape[1], codes_a_level=k, digits=digits)
    out.metric(**sharing(made.codes)._asdict(), **({} if made.error is None else {"error": made.error}))


def write_levels(out: Draft, vectors: Floats, flags: NDArray[np.bool_], codes: Ints, k: int) -> None:
    """Write each level's figures, and their picture. flags: which items have which category (n, c)."""
    counts, left = holders(codes, k), variance_left(vectors, codes, k)
    for level, held in enumerate(counts, start=1):
        out.metric(
            **{
                f"usage_{level}": usage(held),
                f"perplexity_{level}": perplexity(held),
                f"variance_left_{level}": left[level - 1],
                f"category_information_{level}": category_information(codes[:, level - 1], k, flags),
            }
        )
    out.picture("levels", picture(counts, left))


def picture(counts: Sequence[Ints], left: Sequence[float]) -> "Figure":
    """How many items have each code, the commonest first, and the variance left after each level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    sizes, falling = figure.subplots(1, 2)
    for level, held in enumerate(counts, start=1):
        sizes.step(range(1, len(held) + 1), np.sort(held)[::-1], where="mid", label=f"level {level}")
    sizes.set(xlabel="codes, the commonest first", ylabel="items with the code", ylim=(0, None))
    sizes.legend()
    falling.bar(range(len(left) + 1), [1, *left], color="tab:orange")
    falling.set(xlabel="levels read", ylabel="share of variance left", ylim=(0, 1), xticks=range(len(left) + 1))
    return figure


def write_order(out: Draft, interactions: pl.DataFrame, items: pl.Series) -> None:
    """Count users' steps to the next id and to the one before."""
    place = pl.DataFrame({"item": items, "place": np.arange(len(items))})
    events = interactions.sort("user", "at", "row").join(place, on="item", maintain_order="left")
    steps = events.with_columns(next=pl.col("place").shift(-1).over("user")).drop_nulls("next")
    ids = out.read("semantic_ids")["codes"].list.to_array(out.metrics["levels"] + 1).to_numpy().astype(np.int64)
    forward, backward = neighbours_in_order(ids, steps["place"].to_numpy(), steps["next"].to_numpy())
    out.metric(steps=steps.height, steps_forward=forward, steps_backward=backward)


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


def ids_hold_no_order(draft: Draft, inputs: Mapping[str, Any], settings: IdSettings) -> Verdict:
    """Users step to the next id about as often as to the one before: no maker read the order of events.

    Numbers given along histories fail it (Rajput et al., appendix D, on P5); so would digits in the order of
    source ids where these follow time.
    """
    forward, backward = draft.metrics["steps_forward"], draft.metrics["steps_backward"]
    surplus = (
        abs(forward - backward) / max(forward + backward, 1) ** 0.5
    )  # in standard deviations of a fair coin
    words = f"{forward} steps to the next id, {backward} to the one before, of {draft.metrics['steps']}"
    return Verdict(surplus <= SURE, words, {"forward": forward, "backward": backward})


CHECKS = (
    Check(every_item_coded_once),
    Check(codes_in_range),
    Check(no_two_items_share_an_id),
    Check(digits_are_enough),
    Check(most_codes_used, blocking=False),
    Check(ids_hold_no_order, blocking=False),
)


def semantic_ids(
    name: str, settings: type[IdSettings], make: Callable[[Floats, Any, int, Draft], Made], **facts: Any
) -> Stage:
    """The stage `semantic_ids/NAME`. make: vectors (n, d), settings, codes a level, draft -> `Made`."""

    def found(vectors: Artefact, dataset: Artefact, settings: IdSettings, out: Draft) -> None:
        table = vectors.table("item_embeddings")
        rows, k = np.array(as_array(table)), codes_for(settings, table.height)  # torch wants its own
        made = make(rows, settings, k, out)
        write_ids(out, table["item"], made, k)
        named = table.select("item").join(dataset.table("items"), on="item", how="left", maintain_order="left")
        write_levels(out, rows, category_flags(named["categories"]), made.codes, k)
        write_order(out, dataset.table("interactions"), table["item"])

    found.__name__, found.__doc__ = name, make.__doc__
    return stage(
        f"semantic_ids/{name}",
        settings=settings,
        section="models",
        version=1,
        inputs={"vectors": "text_embeddings", "dataset": "dataset"},
        tables={"semantic_ids": SemanticIds, **facts.pop("tables", {})},
        checks=CHECKS,
        seeded=True,
        **facts,
    )(found)


def by_kmeans(vectors: Floats, settings: KMeansSettings, k: int, out: Draft) -> Made:
    """Every item's codes by residual k-means on its text's vector."""
    return makers.rq_kmeans(vectors, settings.levels, k, out.seed, settings.iterations)


def by_chance(vectors: Floats, settings: IdSettings, k: int, out: Draft) -> Made:
    """Every item's codes drawn at random: the control of all other semantic ids."""
    return makers.random_ids(len(vectors), settings.levels, k, out.seed)


def by_balanced_kmeans(vectors: Floats, settings: BalancedSettings, k: int, out: Draft) -> Made:
    """Every item's codes by residual k-means with codes of about one size."""
    return makers.balanced(vectors, settings.levels, k, out.seed, settings.iterations, settings.slack)


def by_hyperplanes(vectors: Floats, settings: LshSettings, k: int, out: Draft) -> Made:
    """Every item's codes by the sides of random hyperplanes that its text's vector is on (LSH)."""
    return makers.lsh(vectors, settings.levels, k, out.seed)


def by_rqvae(vectors: Floats, settings: RqVaeSettings, k: int, out: Draft) -> Made:
    """Every item's codes by an RQ-VAE on its text's vector."""
    from pipeline.codes import rqvae as networks
    from pipeline.collab.pairs import Fitting, curve_table

    told = settings.model_dump(include=set(networks.Form._fields))
    model = networks.start(vectors, networks.Form(**told, k=k), out.seed)
    how = Fitting(out.seed, settings.lr, 0.0, settings.batch, settings.epochs, settings.epochs, "explained")
    fit = networks.fit(model, vectors, how, out.checkpoints / "rqvae.safetensors")
    out.table("curve", curve_table({"rqvae": fit}))
    return Made(networks.codes_of(model, vectors), networks.books_of(model), 1 - fit.best)


rqvae = semantic_ids("rqvae", RqVaeSettings, by_rqvae, needs="heavy", tables={"curve": Curve})
balanced = semantic_ids("balanced", BalancedSettings, by_balanced_kmeans, needs="heavy")
lsh = semantic_ids("lsh", LshSettings, by_hyperplanes)
rqkmeans = semantic_ids("rqkmeans", KMeansSettings, by_kmeans, needs="heavy")
random = semantic_ids("random", IdSettings, by_chance)
