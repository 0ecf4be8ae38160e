"""TIGER: write the semantic id of the next item, code by code.

Rajput et al., NeurIPS 2023, https://arxiv.org/abs/2305.05065. There is no code of the authors; sizes and
schedule of `strong` are those of an open re-implementation that comes near it (Paischer et al., 2024).

    histories + semantic ids -> samples -> T5 from scratch -> beam over the trie of ids -> rankings

An item is a few codes, alike items share the first ones; a history is the codes of its items one after
another. An encoder reads them, a decoder writes the codes of the next item. A beam goes on only with what
begins the id of an item with training rows, so every id written is an item's.

Variants, by where the ids come from: `rqvae` (the paper's), `rqkmeans`, `balanced`. Controls: `random_ids`
(codes drawn by chance: nothing of the text is left), `lsh_ids` (signs of random projections of the same
vectors). Shared parts: `pipeline.codes` (ids, trie, T5, beam, learning), `pipeline.llm.tune` (steps).

Departures from the paper: AdamW (theirs is T5X's, whose step of .01 is relative to a weight's own size; `paper`
takes a tenth of it); no dropout of attention weights; no end token behind an id, as all are of one length;
seen items are never written (the paper leaves them in: `seen_kept`), and neither are invalid ids (theirs are
dropped after the beam); cold items are not written, but may take a share of the list (`cold_share`); the step
with the best validation NDCG@10 is kept.

On the track `cold_item` the same network learns from what is left without the items held out (`cold_model`),
stops by known items, and is asked for the others, which only the share rule can bring (`cold_predictions`).
There items of the history are written too, as in the paper: none is listed, but what shares its codes may be.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.codes.ids import Ids, read_ids
from pipeline.collab.cold_share import rank_in, sharing, shelved, waiting, with_cold
from pipeline.collab.events import Trained, cold_queries, trained
from pipeline.collab.ranked import TOP, lost_targets, order
from pipeline.data.cold_item import nothing_held_out_is_learnt
from pipeline.evaluate.pointwise import refusal
from pipeline.evaluate.ranking import CUTS, faults, mean_of, of_targets
from pipeline.llm.adapt import curve_table, weights_are_finite
from pipeline.llm.examples import draw
from pipeline.llm.settings import Precision
from pipeline.schema import ColdShares, Curve, Rankings
from pipeline.stage import Artefact, Check, Draft, PerVariant, Settings, Verdict, stage

if TYPE_CHECKING:
    from pipeline.codes.prefixes import Tokens
    from pipeline.codes.t5 import Shape
    from pipeline.codes.writing import NextIds, Tally
    from pipeline.collab.ranked import Scores

IDS = PerVariant(
    {
        "rqvae": "semantic_ids/rqvae",
        "rqkmeans": "semantic_ids/rqkmeans",
        "balanced": "semantic_ids/balanced",
        "random_ids": "semantic_ids/random",
        "lsh_ids": "semantic_ids/lsh",
    }
)
FORMS: dict[str, Any] = {
    "section": "methods",
    "variants": ("rqvae", "rqkmeans", "balanced", "random_ids", "lsh_ids"),
    "default_variants": ("rqvae", "random_ids"),
    "controls": ("random_ids", "lsh_ids"),
    "seeded": True,
    "needs": "gpu",
}
PRESETS: dict[str, dict[str, Any]] = {
    "small": {},  # the defaults: two minutes of two cores
    "paper": {
        "width": 128,
        "inner": 1024,
        "heads": 6,
        "head_width": 64,
        "layers": 4,
        "decoder_layers": 4,
        "dropout": 0.1,
        "user_buckets": 2000,
        "history": 20,
        "steps": 200_000,
        "examples_per_step": 256,
        "batch_tokens": 65_536,
        "learning_rate": 1e-3,
        "schedule": "inverse_root",
        "warm_up": 10_000,
        "weight_decay": 0.0,
        "evaluate_every": 2000,
        "patience": 100,
        "valid_users": 2000,
    },
    "strong": {
        "width": 128,
        "inner": 1024,
        "heads": 6,
        "head_width": 64,
        "layers": 6,
        "decoder_layers": 6,
        "dropout": 0.2,
        "history": 20,
        "steps": 200_000,
        "examples_per_step": 256,
        "batch_tokens": 65_536,
        "learning_rate": 3e-4,
        "schedule": "cosine",
        "warm_up": 10_000,
        "weight_decay": 0.035,
        "evaluate_every": 2000,
        "patience": 15,
        "valid_users": 2000,
    },
}


class TigerModel(Settings):
    """A preset's values stand wherever the study says nothing else."""

    preset: Literal["small", "paper", "strong"] = Field(
        "small", description="where the other settings start from: small, for a processor; paper; strong"
    )
    width: int = Field(64, ge=1, description="numbers a state")
    inner: int = Field(256, ge=1, description="numbers of a layer's inner map")
    heads: int = Field(4, ge=1, description="attention heads a layer")
    head_width: int = Field(16, ge=1, description="numbers a head; heads x head_width need not be the width")
    layers: int = Field(2, ge=1, description="encoder layers")
    decoder_layers: int = Field(2, ge=1, description="decoder layers")
    gated: bool = Field(False, description="a GELU gate in the inner map (T5 1.1) in place of ReLU")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of numbers set to 0 in training, to the 1/256")
    user_buckets: int = Field(
        0, ge=0, description="buckets that users' ids are hashed to, each a token; 0: none (paper: 2000)"
    )
    history: int = Field(10, ge=1, description="items of the past that are read, the latest ones")
    steps: int = Field(400, ge=1, description="optimiser steps")
    examples_per_step: int = Field(64, ge=1, description="samples of one step")
    batch_tokens: int = Field(
        1024, ge=1, description="input tokens of one pass, padding included; changes results by rounding only"
    )
    learning_rate: float = Field(3e-3, gt=0, description="AdamW's rate after the warm-up")
    schedule: Literal["cosine", "linear", "constant", "inverse_root"] = Field(
        "cosine", description="rate after the warm-up; inverse_root: as the root of the step falls, none before"
    )
    warm_up: int = Field(40, ge=0, description="steps of linear warm-up; of standing still for inverse_root")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decay")
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    evaluate_every: int = Field(100, ge=1, description="steps between two looks at the validation users")
    patience: int = Field(10, ge=1, description="looks without a better NDCG@10 before it stops")
    valid_users: int | None = Field(
        150, ge=2, description="validation users that choose the best step, drawn by seed; null for all"
    )
    valid_beams: int = Field(20, ge=max(CUTS), description="beams of a look at them")
    dtype: Precision = Field(
        "auto", description="of products in training; auto: bfloat16 on an accelerator that has it"
    )

    @model_validator(mode="before")
    @classmethod
    def start_from_the_preset(cls, given: Any) -> Any:
        """What is given, over the values of the preset, so that the artefact tells all of them."""
        if not isinstance(given, Mapping):
            return given
        return {**PRESETS.get(given.get("preset", "small"), {}), **given}


# --- learning ----------------------------------------------------------------------------------------------


def shape_of(settings: TigerModel, vocabulary: int) -> "Shape":
    from pipeline.codes.t5 import Shape

    return Shape(
        vocabulary,
        settings.width,
        settings.inner,
        settings.heads,
        settings.head_width,
        settings.layers,
        settings.decoder_layers,
        settings.gated,
        settings.dropout,
    )


def spelled(ids: Ids, rows: Trained, users: pl.DataFrame, settings: TigerModel) -> "Tokens":
    """The tokens of all items and users."""
    from pipeline.codes.prefixes import tokens_of

    named = users.sort("user")["user_id"].to_list() if settings.user_buckets else None
    return tokens_of(ids, rows.n_items, named, settings.user_buckets)


def learnt_ids(ids: Ids, rows: Trained) -> Ids:
    """The ids of items with training rows: those that may be written. Raises ValueError where none has one."""
    kept = rows.known.items[ids.items]
    if not kept.any():
        raise ValueError("no item with training rows has an id")
    return Ids(ids.items[kept], ids.codes[kept], ids.sizes)


def first_targets(rows: Trained, queries: pl.DataFrame) -> Trained:
    """Histories of queries, each with its first target behind, as rows of a user each."""
    whole = queries.select("user", item=pl.col("history").list.concat(pl.col("targets").list.head(1)))
    whole = whole.explode("item", empty_as_null=False)
    user, item = (whole[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    return Trained(user, item, rows.n_users, rows.n_items)


def to_learn(
    rows: Trained, queries: pl.DataFrame, ids: Ids, tokens: "Tokens", settings: TigerModel, seed: int
) -> "tuple[NextIds, Any]":
    """The task of learning, and the network that its judge looks at.

    queries: of the part `valid`; those that choose the best step are drawn from them.
    """
    from pipeline.codes.beam import Writer
    from pipeline.codes.prefixes import last_of_each, samples
    from pipeline.codes.t5 import T5
    from pipeline.codes.trie import grow
    from pipeline.codes.writing import Decoding, NextIds, written_scores
    from pipeline.collab.pairs import generator

    network = T5(shape_of(settings, tokens.vocabulary), generator(seed, 0)).to(device())
    chosen = draw(queries.with_row_index("row"), settings.valid_users, seed).drop("row")
    writer = Writer(network, grow(learnt_ids(ids, rows)).to(device()), tokens.starts)
    scores = written_scores(writer, tokens, Decoding(settings.valid_beams, settings.history), masked=True)
    task = NextIds(
        samples(rows, tokens, settings.history),
        last_of_each(samples(first_targets(rows, chosen), tokens, settings.history)),
        tokens,
        lambda: mean_of(order(scores, chosen, rows.n_items, top=0), "ndcg_10"),
    )
    return task, network


def device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(settings: TigerModel) -> Any:
    """bfloat16 where an accelerator has it: on a processor such small products gain nothing from it."""
    import torch

    from pipeline.llm.load import choose_dtype

    if settings.dtype == "auto" and not torch.cuda.is_available():
        return torch.float32
    return choose_dtype(settings.dtype)


def only_train_is_learnt(draft: Draft, inputs: Mapping[str, Any], settings: TigerModel) -> Verdict:
    """Every target is of the training part, and none stands in what its own sample reads; both counted anew."""
    from pipeline.codes.prefixes import samples

    split, ids = inputs["split"], read_ids(inputs["ids"])
    rows = trained(split)
    tokens = spelled(ids, rows, inputs["dataset"].table("users"), settings)
    found = samples(rows, tokens, settings.history)
    said = misplaced(found, split.table("events"), set(ids.items.tolist()))
    return Verdict(not said, "; ".join(said), {"samples": len(found)})


def misplaced(found: Any, events: pl.DataFrame, known: set[int]) -> list[str]:
    """What is wrong with samples: rows that are no training events, inputs at or after their own target, or of
    somebody else."""
    train = events.filter(pl.col("part") == "train", pl.col("item").is_in(list(known)))
    rows = train.sort("user", "at", "row")
    said = []
    if not np.array_equal(found.items, rows["item"].to_numpy()):
        return ["the items learnt from are not those of the training events"]
    if (found.start >= found.target).any():
        said.append(f"{int((found.start >= found.target).sum())} samples read nothing, or their own target")
    owner = rows["user"].to_numpy()
    if (owner[found.start] != found.user).any() or (owner[found.target] != found.user).any():
        said.append("samples read or foretell another user's items")
    due = int((rows.group_by("user").len()["len"] - 1).sum())
    if len(np.unique(found.target)) != due:
        said.append(f"{len(np.unique(found.target))} places are targets, {due} were expected")
    return said


def learns(draft: Draft, inputs: Mapping[str, Any], settings: TigerModel) -> Verdict:
    """Learning has made the targets of validation likelier than they were before it."""
    losses = draft.read("curve").filter(metric="valid_loss").sort("step")["value"]
    words = f"validation loss {losses.first():.3f} before, {losses.min():.3f} at best"
    return Verdict(losses.len() > 1 and losses.min() < losses.first(), words)  # type: ignore[operator]


LEARNING: dict[str, Any] = {
    "settings": TigerModel,
    "version": 1,
    "tables": {"curve": Curve},
    "checks": (Check(only_train_is_learnt), Check(weights_are_finite), Check(learns, blocking=False)),
}


@stage(
    "tiger/model",
    inputs={"split": "next_item/split", "dataset": "dataset", "ids": IDS},
    serves="next_item",
    **LEARNING,
    **FORMS,
)
def model(split: Artefact, dataset: Artefact, ids: Artefact, settings: TigerModel, out: Draft) -> None:
    """A T5 that has learnt from every beginning of every training history to write the id of what came next."""
    from pipeline.codes.t5 import configuration, to_transformers
    from pipeline.codes.writing import Pupil, teach

    rows, queries = trained(split), split.table("queries").filter(part="valid")
    coded = read_ids(ids)
    tokens = spelled(coded, rows, dataset.table("users"), settings)
    task, network = to_learn(rows, queries, coded, tokens, settings, out.seed)
    label = f"{out.stage.name} {out.variant} seed {out.seed}"
    checkpoint = out.checkpoints / "model.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    run = teach(Pupil(network, precision(settings)), task, settings, out.seed, checkpoint, label)
    out.tensors("model", to_transformers(network.state_dict()))
    out.json("config", configuration(network.shape))
    state = run.progress
    out.table("curve", curve_table(state.curve, out.variant))
    out.metric(
        samples=len(task),
        parameters=sum(weight.numel() for weight in network.parameters()),
        vocabulary=tokens.vocabulary,
        steps=state.step,
        best_step=state.best_step,
        valid_users=len(task.valid),
        valid_ndcg_10_by_beam=round(state.best, 6),
        valid_loss=round(state.best_loss, 6),
    )


@stage(
    "tiger/cold_model",
    inputs={"split": "warm_items/split", "dataset": "dataset", "ids": IDS},
    serves="cold_item",
    **LEARNING,
    **FORMS,
)
def cold_model(split: Artefact, dataset: Artefact, ids: Artefact, settings: TigerModel, out: Draft) -> None:
    """The same where some items are held out with all their events; they have ids, as their texts are known."""
    model(split=split, dataset=dataset, ids=ids, settings=settings, out=out)


# --- recommending ------------------------------------------------------------------------------------------


class TigerWriting(Settings):
    """How ids are written, on either track."""

    decoding: Literal["beam", "exact"] = Field(
        "beam", description="beam: the likeliest ids that a beam finds; exact: the likelihood of every id"
    )
    beams: int = Field(
        50,
        ge=max(CUTS),
        description=f"ids that a beam keeps; at least {max(CUTS)}, or lists end before the metrics do",
    )
    mask: Literal["after", "before"] = Field(
        "after",
        description="a code's share among all tokens, other ids masked after the softmax; before: among the "
        "codes that go on alone",
    )
    top: int = Field(TOP, ge=max(CUTS), description="first places that are kept of each user's order")


class TigerDecoding(TigerWriting):
    cold_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest share of a list for items without training rows whose learnt codes are those of "
        "an id written (the paper's epsilon; it takes .1); 0: none",
    )
    seen_kept: bool = Field(
        False,
        description="also write the orders with seen items left in, as the paper ranks: the variant seen_kept, "
        "made of rqvae alone",
    )


def groups_of(ids: Ids, n_items: int) -> NDArray[np.int64]:
    """A number for the learnt codes of each item (n_items,), -1 for items without an id."""
    found = np.full(n_items, -1, dtype=np.int64)
    found[ids.items] = np.unique(ids.codes[:, :-1], axis=0, return_inverse=True)[1].ravel()
    return found


def three_token(rankings: pl.DataFrame, queries: pl.DataFrame, groups: NDArray[np.int64]) -> dict[str, float]:
    """HR and NDCG@10 of test queries where an item counts that shares the first target's learnt codes.

    This is how some open implementations count: the digit that tells items of one group apart is ignored,
    so that it flatters. rankings: columns part, user, rank, item, score.
    """
    number = pl.Series(groups)
    wanted = queries.filter(part="test").select("user", own=pl.col("targets").list.first())
    wanted = wanted.with_columns(own=number.gather(wanted["own"]))
    rows = rankings.filter(pl.col("score").is_not_null(), part="test")
    rows = rows.with_columns(group=number.gather(rows["item"])).join(wanted, on="user")
    hits = rows.filter(pl.col("group") == pl.col("own")).group_by("user").agg(pl.col("rank").min())
    ten = hits.filter(pl.col("rank") <= 10)["rank"].to_numpy()
    count = max(wanted.height, 1)
    return {
        "test_three_token_hr_10": len(ten) / count,
        "test_three_token_ndcg_10": float((1 / np.log2(1 + ten)).sum()) / count,
    }


def scorer_of(
    split: Artefact, dataset: Artefact, ids: Artefact, model: Artefact, settings: TigerWriting
) -> "tuple[Scores, Scores, Tally]":
    """Scores with nothing of the past written, scores with it, and the count of ids written."""
    from pipeline.codes.beam import Writer
    from pipeline.codes.t5 import T5, from_transformers
    from pipeline.codes.trie import grow
    from pipeline.codes.writing import Decoding, tally, written_scores
    from pipeline.collab.pairs import generator

    learnt, rows, coded = TigerModel.model_validate(dict(model.settings)), trained(split), read_ids(ids)
    tokens = spelled(coded, rows, dataset.table("users"), learnt)
    network = T5(shape_of(learnt, tokens.vocabulary), generator(0))
    network.load_state_dict(from_transformers(network, model.tensors("model")))
    own = learnt_ids(coded, rows)
    writer = Writer(network.to(device()), grow(own).to(device()), tokens.starts, settings.mask)
    how = Decoding(settings.beams if settings.decoding == "beam" else None, learnt.history)
    counting = tally(own.codes)
    masked, kept = (written_scores(writer, tokens, how, masked=m, counting=counting) for m in (True, False))
    return masked, kept, counting


def with_share(scores: "Scores", ids: Ids, rows: Trained, share: float) -> "Scores":
    """The scores, with cold items let in where they are given a share."""
    import torch

    if not share:
        return scores
    groups, cold = groups_of(ids, rows.n_items), ~rows.known.items
    return lambda block: torch.from_numpy(with_cold(scores(block).numpy(), groups, cold, share))


def every_id_is_an_items(draft: Draft, inputs: Mapping[str, Any], settings: TigerDecoding) -> Verdict:
    """No id was written that is no item's; ids are looked up in their table, not in the trie."""
    share = draft.metrics["valid_rate"]
    return Verdict(share in (None, 1.0), f"{share} of the ids written are items'", {"valid_rate": share})


def every_query_ranked(draft: Draft, inputs: Mapping[str, Any], settings: TigerDecoding) -> Verdict:
    """Each query is ranked once, in order, without a gap or a doubled item, and with its own targets marked."""
    queries, rows = inputs["split"].table("queries"), draft.read("rankings")
    broken = [
        f"{variant}: {count} {kind}"
        for (variant,), own in rows.partition_by("variant", as_dict=True, maintain_order=True).items()
        for kind, count in faults(own, queries).items()
    ]
    return refusal(broken, rows.height)


def lists_are_long_enough(draft: Draft, inputs: Mapping[str, Any], settings: TigerDecoding) -> Verdict:
    """Every list holds as many items with a score as the metrics look at, or all that the user has not seen."""
    queries, rows = inputs["split"].table("queries"), draft.read("rankings").filter(variant=draft.variant)
    listed = rows.group_by("part", "user").agg(found=pl.col("score").is_not_null().sum())
    seen = queries.select("part", "user", seen=pl.col("history").list.n_unique())
    unseen = inputs["split"].table("catalogue").filter(pl.col("train_rows") > 0).height - pl.col("seen")
    short = listed.join(seen, on=["part", "user"]).filter(
        pl.col("found") < pl.min_horizontal(pl.lit(max(CUTS)), unseen)
    )
    return Verdict(
        short.is_empty(), f"{short.height} lists are shorter than {max(CUTS)}", {"short": short.height}
    )


@stage(
    "tiger/predictions",
    settings=TigerDecoding,
    version=1,
    inputs={"split": "next_item/split", "dataset": "dataset", "ids": IDS, "model": "tiger/model"},
    tables={"rankings": Rankings},
    checks=(
        Check(every_query_ranked),
        Check(every_id_is_an_items),
        Check(lists_are_long_enough, blocking=False),
    ),
    predicts="rankings",
    **FORMS,
)
def predictions(settings: TigerDecoding, out: Draft, **inputs: Artefact) -> None:
    """Each query's items in the order of the likelihood of their ids."""
    split = inputs["split"]
    queries, n_items = split.table("queries"), split.table("catalogue").height
    new, kept, counting = scorer_of(split, inputs["dataset"], inputs["ids"], inputs["model"], settings)
    coded, rows = read_ids(inputs["ids"]), trained(split)
    shared = partial(with_share, ids=coded, rows=rows, share=settings.cold_share)
    found = {out.variant: order(shared(new), queries, n_items, top=settings.top)}
    if settings.seen_kept and out.variant == "rqvae":
        found["seen_kept"] = order(shared(kept), queries, n_items, masked=False, top=settings.top)
    write(found, counting, split, inputs, out)


def write(
    found: Mapping[str, pl.DataFrame],
    counting: "Tally",
    learnt: Artefact,
    inputs: Mapping[str, Artefact],
    out: Draft,
) -> None:
    """Write orders by variant, and figures of the stage's own; learnt: the split that was learnt from."""
    queries, catalogue = inputs["split"].table("queries"), inputs["split"].table("catalogue")
    track, seed = pl.lit(out.stage.track), pl.lit(out.seed, dtype=pl.UInt32)
    run = {"track": track, "method": pl.lit("tiger"), "seed": seed}
    named = [rows.with_columns(variant=pl.lit(v), **run) for v, rows in found.items()]
    out.table("rankings", pl.concat(named).select(Rankings.column_names()))
    rows, own = trained(learnt), found[out.variant]
    out.metric(
        valid_ndcg_10=mean_of(own.filter(part="valid"), "ndcg_10"),
        ids_written=counting.written,
        valid_rate=counting.valid / counting.written if counting.written else None,
        **three_token(own, queries, groups_of(read_ids(inputs["ids"]), rows.n_items)),
        **lost_targets(queries, catalogue),
        **cold_queries(queries, rows),
    )


# --- items that are not known ------------------------------------------------------------------------------

FIGURES = ("hr_5", "hr_10", "hr_20", "ndcg_10")  # at every share; an item is asked for, so HR is recall


class TigerColdDecoding(TigerWriting):
    beams: int = Field(
        100,
        ge=max(CUTS),
        description="ids that a beam keeps; those of the history, which no list has, among them",
    )
    share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of a list for items without training rows whose learnt codes are those of "
        "an id written: the paper's epsilon, and its value",
    )
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0), description="shares whose figures the table cold_shares has"
    )


def at_shares(
    written: pl.DataFrame,
    queries: pl.DataFrame,
    groups: NDArray[np.int64],
    cold: NDArray[np.bool_],
    shares: Sequence[float],
) -> pl.DataFrame:
    """Columns part, share, metric, value: means over queries of one target, at each share of cold items.

    written: orders (part, user, rank, item, score) of items of any past; groups, cold: as of `with_cold`.
    """
    shelves = shelved(groups, cold)
    lists = written.drop_nulls("score").sort("part", "user", "rank")
    lists = lists.group_by("part", "user", maintain_order=True).agg("item")
    asked = queries.select("part", "user", "history", target=pl.col("targets").list.first())
    asked = asked.join(lists, on=("part", "user"), how="left").with_columns(pl.col("item").fill_null([]))
    found = []
    for (part,), own in asked.partition_by("part", as_dict=True, maintain_order=True).items():
        each = list(own.select("item", "history", "target").iter_rows())
        for share in shares:
            ranks = [
                rank_in(waiting(items, groups, shelves, share, frozenset(past)), target)
                for items, past, target in each
            ]
            means = of_targets(np.arange(len(ranks)), np.array(ranks)).select(FIGURES).mean().row(0)
            found += [(part, share, metric, mean) for metric, mean in zip(FIGURES, means, strict=True)]
    return pl.DataFrame(found, schema=["part", "share", "metric", "value"], orient="row")


@stage(
    "tiger/cold_predictions",
    settings=TigerColdDecoding,
    version=1,
    inputs={
        "split": "cold_item/split",
        "warm": "warm_items/split",
        "dataset": "dataset",
        "ids": IDS,
        "model": "tiger/cold_model",
    },
    tables={"rankings": Rankings, "cold_shares": ColdShares},
    checks=(
        Check(every_query_ranked),
        Check(every_id_is_an_items),
        Check(nothing_held_out_is_learnt),
        Check(lists_are_long_enough, blocking=False),
    ),
    predicts="cold_rankings",
    **FORMS,
)
def cold_predictions(settings: TigerColdDecoding, out: Draft, **inputs: Artefact) -> None:
    """The same for items held out, let in behind known ones of their codes; and what each share brings."""
    warm, queries = inputs["warm"], inputs["split"].table("queries")
    rows, ids = trained(warm), read_ids(inputs["ids"])
    _, scores, counting = scorer_of(warm, inputs["dataset"], inputs["ids"], inputs["model"], settings)
    groups, cold = groups_of(ids, rows.n_items), ~rows.known.items
    shared = sharing(scores, groups, cold, settings.share)
    found = {out.variant: order(shared, queries, rows.n_items, top=settings.top)}
    write(found, counting, warm, inputs, out)
    written = order(scores, queries, rows.n_items, masked=False, top=max(settings.top, settings.beams))
    figures = at_shares(written, queries, groups, cold, settings.shares)
    run = {"method": "tiger", "variant": out.variant, "seed": out.seed}
    named = figures.with_columns(pl.lit(value).alias(name) for name, value in run.items())
    out.table("cold_shares", named.select(ColdShares.column_names()))
