"""PRM: a short list put in a new order by a network that sees all of it, with knowledge as fields of its items.

Pei et al., RecSys 2019, https://arxiv.org/abs/1904.06813; with knowledge: KAR's second task, Xi et al., RecSys
2024, https://arxiv.org/abs/2306.10933

    train events -> lists of a target and unused items ---+-> fields, places --+
    stored lists (the track rerank) ----------------------+                    +-> attention -> orders
    kar/texts -> kar/vectors -> experts -> two more fields --------------------+

A list is read in the order of its items' first scores, with the fields of user and items and the user's past;
knowledge joins by the adaptor of the click-through models. A list reads its user's text only if its target was
used strictly later than all that the text tells.

Variants: `knowledge`. Controls: `without_knowledge`, `raw_text` (what was told, without any answer),
`user_only`, `item_only`, `shuffled` (each user and item has another's vector), `random` (noise of one size).
All of them read the user: id, profile and past. In KAR's code the network without knowledge has no field of the
user at all, so that its gain there is one of any user input.

Departures: lists are the stored ones, a target among items that the user never used, as other methods of the
track order them; KAR's have four rows that follow each other and six random items. First scores are an item's
training uses, since a fitted model's scores of what it was fitted on promise more than they hold; a row that is
learnt from does not count itself. The loss is PRM's, a softmax over the list; KAR's code has a cross-entropy of
each item. Validation chooses by NDCG@10; KAR's code chooses on test. `pipeline.ctr.prm` has the network's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from pipeline.collab.fitting import Epochs, Patience, Rate, how_to_fit
from pipeline.collab.labelled import Known, with_rows
from pipeline.collab.pasts import PAD
from pipeline.collab.reranked import in_order
from pipeline.ctr.fields import Dense, Fields, fields
from pipeline.ctr.settings import Widths
from pipeline.data.candidates import Used, random_others
from pipeline.evaluate.list_figures import list_figures
from pipeline.evaluate.pointwise import RUN, refusal
from pipeline.evaluate.reranking import judged
from pipeline.knowledge.reading import adaptor_of, dense_of
from pipeline.knowledge.vectors import vectors_of
from pipeline.schema import Curve, Rankings, empty
from pipeline.stage import Artefact, Check, Draft, PerVariant, Settings, Verdict, stage

if TYPE_CHECKING:
    from pipeline.collab.pairs import Batch, Fit
    from pipeline.ctr.adaptor import Fieldwise
    from pipeline.ctr.prm import PRM, Listed

CONTROLS = ("without_knowledge", "raw_text", "user_only", "item_only", "shuffled", "random")
VARIANTS = ("knowledge", *CONTROLS)
KEY = ("part", "user")
ROUND = 1_000_003  # between the seeds of one user's lists
LISTS = 512  # scored at once
SAME = 1e-4  # of a score: moved by less is rounding


class PrmSettings(Settings):
    lists: Literal["random_20", "random_10"] = Field("random_20", description="stored lists to order")
    steps: int = Field(
        20, ge=1, description="lists to learn from of each user: one for each of the last events"
    )
    history: int = Field(20, ge=1, description="items of a user's past that are read, the last ones")
    attributes: bool = Field(
        True, description="read what the dataset knows of users (profile) and items (categories, year)"
    )
    dim: int = Field(16, ge=1, description="numbers a field")
    width: int = Field(64, ge=1, description="numbers of an item while it attends to its list")
    heads: int = Field(2, ge=1, description="heads of that attention; a divisor of its width")
    layers: Widths = Field((200, 80), min_length=1, description="widths of the layers that then read each item")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of numbers set to 0 in training, to the 1/256")
    spread: float = Field(0.1, gt=0, description="standard deviation of the first vectors")
    shared: int = Field(2, ge=0, description="experts that users' and items' vectors share")
    dedicated: int = Field(2, ge=1, description="experts of users' vectors alone, and as many of items'")
    hidden: int = Field(64, ge=1, description="numbers between an expert's two layers")
    penalty: float = Field(3.0, ge=0, description="L2 penalty on the sum over lists")
    lr: Rate = 1e-3
    batch: int = Field(128, ge=1, description="lists a step")
    epochs: Epochs = 20
    patience: Patience = 3

    @model_validator(mode="after")
    def heads_divide(self) -> "PrmSettings":
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not part into {self.heads} heads")
        return self


# --- lists -------------------------------------------------------------------------------------------------


class Lists(NamedTuple):
    """Lists: number, part, user, item (the target), at, history; their items: number, item, label, initial (the
    first score), the first in front."""

    rows: pl.DataFrame
    items: pl.DataFrame

    def of(self, *parts: str) -> np.ndarray:
        """Which lists are of these parts (n,)."""
        return self.rows["part"].is_in(parts).to_numpy()


def learnt(events: pl.DataFrame, length: int, steps: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lists to learn from: (part, user, item, at, history), and (step, user, item, label) of their items.

    For each user's last train events a list of the event's item and others that the user did not use in train.
    """
    train = events.filter(part="train").sort("at", "row")
    walks = train.group_by("user", maintain_order=True).agg(walk="item", times="at").sort("user")
    used, pool = Used(train), train["item"].unique().sort().to_numpy()
    rows, items = [], []
    for step in range(steps):
        own = walks.filter(pl.col("walk").list.len() > step + 1)
        before = pl.col("walk").list.head(pl.col("walk").list.len() - 1 - step)
        last = [
            pl.col(name).list.get(-1 - step).alias(new) for name, new in (("walk", "item"), ("times", "at"))
        ]
        asked = own.select("user", *last, part=pl.lit("train"), history=before, step=step)
        drawn = random_others(asked.select(*KEY), used, pool, length - 1, seed + ROUND * step)
        rows.append(asked)
        items += [
            asked.select("step", "user", "item", label=1),
            drawn.select("user", "item", step=step, label=0).select("step", "user", "item", "label"),
        ]
    return pl.concat(rows), pl.concat(items)


def stored(queries: pl.DataFrame, candidates: pl.DataFrame, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The stored lists of one name, as `learnt`: step -1 of validation, -2 of test."""
    step = pl.when(part="valid").then(-1).otherwise(-2).alias("step")
    own = candidates.filter(list=name)
    targets = own.filter(label=1).select(*KEY, "item")
    rows = targets.join(queries.select(*KEY, "at", "history"), on=KEY, how="left").with_columns(step)
    return rows, own.select(step, "user", "item", "label")


def gathered(split: Artefact, candidates: Artefact, settings: PrmSettings, seed: int) -> Lists:
    """All lists, those to learn from in front; first scores are logarithms of an item's other train uses."""
    length = int(settings.lists.rpartition("_")[2])
    both = (
        learnt(split.table("events"), length, settings.steps, seed),
        stored(split.table("queries"), candidates.table("candidates"), settings.lists),
    )
    columns = ("step", "part", "user", "item", "at", "history")
    rows = pl.concat([one.select(columns) for one, _ in both]).sort("step", "user", descending=[True, False])
    rows = rows.with_row_index("number")
    items = pl.concat([own.cast({"step": pl.Int32, "label": pl.Int32}) for _, own in both])
    listed = items.join(rows.select("number", "step", "user", "part"), on=["step", "user"], how="inner")
    listed = listed.join(split.table("catalogue").select("item", "train_rows"), on="item", how="left")
    itself = pl.when(part="train").then("label").otherwise(0)
    first = (1 + pl.col("train_rows").cast(pl.Int64) - itself).log().alias("initial")
    listed = listed.select("number", "item", "label", first)
    return Lists(rows, listed.sort("number", "initial", "item", descending=[False, True, False]))


# --- what the network reads --------------------------------------------------------------------------------


class Material(NamedTuple):
    """Lists as the network reads them, the fields of users and items, and the vectors of both, if any."""

    listed: "Listed"
    fields: Fields
    dense: tuple[Dense, Dense] | None


def known_of(split: Artefact, users: int) -> Known:
    """Users and items with train events."""
    train = split.table("events").filter(part="train")
    largest = max(users, int(split.table("events")["user"].max() or 0) + 1)  # type: ignore[arg-type]
    return Known(with_rows(train["user"], largest), with_rows(train["item"], split.table("catalogue").height))


def material(
    lists: Lists, split: Artefact, dataset: Artefact, dense: tuple[Dense, Dense] | None, settings: PrmSettings
) -> Material:
    """The lists as tensors."""
    import torch

    from pipeline.ctr.prm import Listed

    tables = [dataset.table("items"), dataset.table("users")]
    liked = pl.col("history").list.eval(pl.lit(1, pl.UInt8)).alias("history_labels")
    seen = known_of(split, tables[1].height)
    examples = lists.rows.lazy().with_columns(liked)
    found = fields(examples, seen, settings.history, tables if settings.attributes else [])
    reads = (
        np.stack([one.of_example for one in dense], 1) if dense else np.zeros((lists.items.height, 2), np.int64)
    )
    target = lists.items.filter(label=1).select("number", "place").sort("number")["place"]
    columns = (
        lists.rows["user"].to_numpy().astype(np.int64),
        padded(lists.items, lists.items["item"].to_numpy().astype(np.int64), PAD),
        padded(lists.items, lists.items["initial"].to_numpy().astype(np.float32), 0),
        found.past,
        padded(lists.items, reads, 0),
        target.to_numpy().astype(np.int64),
    )
    return Material(Listed(*(torch.from_numpy(column) for column in columns)), found, dense)


def placed(lists: Lists) -> Lists:
    """The lists with each item's place, from 0."""
    return lists._replace(items=lists.items.with_columns(place=pl.int_range(pl.len()).over("number")))


def padded(items: pl.DataFrame, values: np.ndarray, fill: int) -> np.ndarray:
    """Values of the lists' items (m, ...) as (n, length, ...), `fill` behind the last of a list."""
    shape = (items["number"].n_unique(), int(items["place"].max() or 0) + 1)  # type: ignore[arg-type]
    found = np.full((*shape, *values.shape[1:]), fill, values.dtype)
    found[items["number"].to_numpy(), items["place"].to_numpy()] = values
    return found


def read_by(lists: Lists, knowledge: Artefact, texts: Artefact, form: str, seed: int) -> tuple[Dense, Dense]:
    """The vectors that a variant reads, and which of them each item of each list reads."""
    rows = lists.items.select("number", "item").join(lists.rows.select("number", "user", "at"), on="number")
    until = texts.table("told").select("user", "until")
    return dense_of(vectors_of(knowledge), rows, until, form, seed)


# --- fitting -----------------------------------------------------------------------------------------------


def picked(listed: "Listed", chosen: Any) -> "Listed":
    """Some of the lists."""
    import torch

    return type(listed)(*(column[torch.as_tensor(chosen)] for column in listed))


def scores_of(model: "PRM", listed: "Listed", dense: "Fieldwise | None") -> np.ndarray:
    """Scores (n, length) of lists, some at a time to bound memory."""
    import torch

    from pipeline.threads import one_thread

    with torch.no_grad(), one_thread():
        model.fields.settle()
        pieces = torch.arange(len(listed.user)).split(LISTS)
        return torch.cat([model(picked(listed, some), dense) for some in pieces]).double().numpy()


def stored_of(model: "PRM") -> "Fieldwise | None":
    return model.adaptor.stored() if model.adaptor else None


def ndcg_10(scores: np.ndarray, target: np.ndarray) -> float:
    """Mean over lists, equal scores against the target; NaN for no lists."""
    own = scores[np.arange(len(target)), target]
    rank = (scores >= own[:, None]).sum(1)
    return float(np.where(rank <= 10, 1 / np.log2(1 + rank), 0.0).mean()) if len(rank) else float("nan")


def learn(held: Material, lists: Lists, settings: PrmSettings, form: str, out: Draft) -> tuple["PRM", "Fit"]:
    """Fit on the train lists, keep what orders the validation lists best; go on from a checkpoint."""
    import torch
    from torch.nn.functional import cross_entropy

    from pipeline.collab import pairs
    from pipeline.ctr.prm import PRM

    draws = pairs.generator(out.seed, settings.epochs)  # beyond the last epoch's
    adaptor = adaptor_of(held.dense, settings.dim, settings, form, draws) if held.dense else None
    model = PRM(held.fields, held.listed.items.shape[1], settings, adaptor, draws)
    train, valid = (picked(held.listed, lists.of(part)) for part in ("train", "valid"))

    def loss(batch: "Batch", epoch: int, draws: torch.Generator) -> torch.Tensor:
        some = picked(train, batch.user)
        return cross_entropy(model(some, draws=draws), some.target)

    count = len(train.user)
    how = replace(how_to_fit(settings, settings.penalty, count, out.seed), judged_by="valid_ndcg_10")
    places = torch.arange(count)  # of lists; the loop shuffles and cuts them as it does rows
    fit = pairs.fit_pairs(
        model,
        pairs.Batch(places, places, torch.zeros(count)),
        loss,
        lambda: ndcg_10(scores_of(model, valid, stored_of(model)), valid.target.numpy()),
        how,
        pairs.Saving(out.checkpoints / "fit.safetensors"),
    )
    return model, fit


def orders(lists: Lists, scores: np.ndarray, settings: PrmSettings, out: Draft) -> pl.DataFrame:
    """Table `rankings` of the held-out lists; scores (n, length) of these."""
    rows = lists.rows.filter(pl.col("part") != "train").select("number", *KEY, list=pl.lit(settings.lists))
    flat = lists.items.join(rows, on="number", how="inner", maintain_order="left")
    first = int(rows["number"].min() or 0)  # type: ignore[arg-type]
    own = scores[flat["number"].to_numpy() - first, flat["place"].to_numpy()]
    named = {"method": "prm", "variant": out.variant, "seed": out.seed}
    ordered = in_order(flat.with_columns(score=pl.Series(own)))
    return (
        ordered.with_columns(pl.lit(value).alias(name) for name, value in named.items())
        .select(Rankings.column_names())
        .cast(empty(Rankings).schema)
    )


def figures_of(rankings: pl.DataFrame) -> dict[str, float]:
    """Figures of each part's lists, clean and as KAR's code computes them."""
    found = {}
    for part in ("valid", "test"):
        own = rankings.filter(part=part).sort("user", "rank").group_by("user", maintain_order=True)
        labels = own.agg(pl.col("target").cast(pl.Int8))["target"].to_list()
        found |= {f"{part}_{name}": round(value, 6) for name, value in list_figures(labels).items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


# --- checks ------------------------------------------------------------------------------------------------


def every_list_ordered_once(draft: Draft, inputs: Mapping[str, Any], settings: PrmSettings) -> Verdict:
    """Each stored list of the chosen kind is in order: each item once, the best first, the target marked."""
    lists = inputs["candidates"].table("candidates").filter(list=settings.lists)
    rows = draft.read("rankings")
    broken, seen = judged(rows.partition_by(*RUN, as_dict=True, maintain_order=True).items(), lists)
    if lists.height and not rows.height:
        broken.append("nothing is ordered")
    return refusal(broken, len(seen))


def no_text_tells_its_list(draft: Draft, inputs: Mapping[str, Any], settings: PrmSettings) -> Verdict:
    """A list that reads its user's text has a target that was used strictly later than all that the text tells.

    The moments are those of the split's events, looked up again.
    """
    from safetensors.numpy import load_file

    file = draft.file("adapted.safetensors")
    if not file.exists():
        return Verdict(True, "without knowledge")
    held = load_file(file)
    none = len(held["user"]) - 1
    read = {"user": held["user_of_list"], "item": held["target_of_list"], "vector": held["vector_of_list"]}
    reading = pl.DataFrame(read).filter(pl.col("vector") != none).select(pl.col("user", "item").cast(pl.UInt32))
    events = inputs["split"].table("events").group_by("user", "item").agg(pl.col("at").max())
    told = inputs["texts"].table("told").select("user", "until")
    both = reading.join(events, on=["user", "item"], how="left").join(told, on="user", how="left")
    early = both.filter((pl.col("at") > pl.col("until")).fill_null(False).not_()).height
    return Verdict(not early, f"{early} of {reading.height} lists read a text of their own moment or later", {})


def knowledge_moves_scores(draft: Draft, inputs: Mapping[str, Any], settings: PrmSettings) -> Verdict:
    """At least half of the scores would be others without the vectors."""
    share = draft.metrics.get("scores_moved_share")
    return Verdict(share is None or share >= 0.5, "without knowledge" if share is None else f"{share:.0%} move")


def better_than_first_scores(draft: Draft, inputs: Mapping[str, Any], settings: PrmSettings) -> Verdict:
    """The new order of the validation lists is better than the first one, by NDCG@10."""
    first, new = (draft.metrics[name] for name in ("valid_ndcg_10_at_first", "valid_ndcg_10"))
    return Verdict(new > first, f"valid NDCG@10 {new:.3f}, of the first order {first:.3f}")


# --- the stage ---------------------------------------------------------------------------------------------


def inspected(model: "PRM", held: Material, lists: Lists, scores: np.ndarray, out: Draft) -> None:
    """Write the adapted vectors, ready to serve, and which a list reads; measure what they are worth."""
    import torch

    assert model.adaptor is not None
    vectors = model.adaptor.stored()
    asked = picked(held.listed, lists.of("valid", "test"))
    nothing = torch.tensor([len(vectors.user) - 1, len(vectors.item) - 1]).expand_as(asked.dense)
    without = scores_of(model, asked._replace(dense=nothing), vectors)
    real = asked.items.numpy() != PAD
    moved = np.abs(scores[real] - without[real]) > SAME
    reads = held.listed.dense[:, 0, 0]
    targets = torch.from_numpy(lists.rows["item"].to_numpy().astype(np.int64))
    of_lists = {"user_of_list": held.listed.user, "target_of_list": targets, "vector_of_list": reads.clone()}
    out.tensors("adapted", {**vectors._asdict(), **of_lists})
    out.metric(
        scores_moved_share=round(float(moved.mean()), 6) if len(moved) else None,
        lists_read_user_share=round(float((reads < len(vectors.user) - 1).float().mean()), 6),
    )


@stage(
    "prm/predictions",
    settings=PrmSettings,
    section="methods",
    version=1,
    inputs={
        "split": "next_item/split",
        "dataset": "dataset",
        "candidates": "rerank/candidates",
        "texts": "kar/texts",
        "knowledge": PerVariant(
            dict.fromkeys(VARIANTS, "kar/vectors")
            | {"raw_text": "kar/raw_vectors", "without_knowledge": "kar/texts"}
        ),
    },
    tables={"curve": Curve, "rankings": Rankings},
    checks=(
        Check(every_list_ordered_once),
        Check(no_text_tells_its_list),
        Check(knowledge_moves_scores, blocking=False),
        Check(better_than_first_scores, blocking=False),
    ),
    seeded=True,
    variants=VARIANTS,
    default_variants=("knowledge", "without_knowledge", "shuffled"),
    controls=CONTROLS,
    predicts="orders",
    needs="heavy",
)
def predictions(
    split: Artefact,
    dataset: Artefact,
    candidates: Artefact,
    texts: Artefact,
    knowledge: Artefact,
    settings: PrmSettings,
    out: Draft,
) -> None:
    """Every stored list in the order that attention over its items, with what is known of them, gives it."""
    from pipeline.collab.pairs import curve_table

    lists = placed(gathered(split, candidates, settings, out.seed))
    reads = out.variant != "without_knowledge"
    dense = read_by(lists, knowledge, texts, out.variant, out.seed) if reads else None
    held = material(lists, split, dataset, dense, settings)
    model, fit = learn(held, lists, settings, out.variant, out)
    asked = picked(held.listed, lists.of("valid", "test"))
    scores = scores_of(model, asked, stored_of(model))
    rankings = orders(lists, scores, settings, out)
    out.table("curve", curve_table({"fit": fit}))
    out.table("rankings", rankings)
    out.tensors("network", model.state_dict())
    valid = picked(held.listed, lists.of("valid"))
    first = np.where(valid.items.numpy() == PAD, -np.inf, valid.initial.numpy())
    out.metric(
        train_lists=int(lists.of("train").sum()),
        epochs=fit.best_epochs,
        parameters=sum(one.numel() for one in model.parameters()),
        valid_ndcg_10_at_first=round(ndcg_10(first, valid.target.numpy()), 6),
        valid_ndcg_10=round(fit.best, 6),
        **figures_of(rankings),
    )
    if reads:
        inspected(model, held, lists, scores, out)
