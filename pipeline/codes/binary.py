"""Binary codes: every user and item as 32 bits that a language model can read.

Zhang et al., "Text-like Encoding of Collaborative Information in Large Language Models for Recommendation"
(BinLLM), ACL 2024, https://aclanthology.org/2024.acl-long.497

    train labels -> row of an id -> linear layer -> tanh -> sign -> code, `01101...` and `172.16.254.1`

Training scores pairs by the inner product of tanh values; bit by bit and with a growing probability the sign
takes tanh's place and passes its gradient straight through. Judging, stopping and scoring see pure codes only.
The codes alone, without a language model, are the paper's BinMF: method `binmf`, score = inner product of the
codes, an integer in -width..width; its probability is a logistic curve over the score whose two numbers are
fitted on validation (so on validation it flatters, on test it does not).

The paper's BinMF on CoLLM's ML-1M split: AUC .7189, UAUC .6654; on Amazon-Book .8087 and .5895. These defaults
there, over five seeds: .7274 (deviation .0041), .6775 (.0056). lr and spread were chosen on its validation part
(`benchmarks/collm_ml1m.py`); test AUC of the means alone is .7326, so the codes hold little beyond quality.

Departures. The paper writes one shared linear layer and the code has two: `layer`. A user or item without
training rows has the *cold code*, the sign of the mean tanh value of those with some, where the authors leave
the row where Adam drove it. The average user's code makes an item's score a count of the traits that users
like on the whole, so pairs of cold users are ranked by quality. First rows are drawn from N(0, `spread`^2),
theirs from N(0, 1). `SCHEDULES` holds the authors' two schedules with their oddities: a step of .001 every
second epoch, which early stopping never lets grow, so that the ML-1M codes are read out of a model trained on
real values; and for Amazon-Book steps of .02 that jump back to real values after passing 1. Their weight decay
of 1e-3 is 34 in units of `penalties` on that split; their lr is 1e-2 there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.codes.health import BALANCED, Signs, bit_balance, group_sizes, measure
from pipeline.collab.fitting import Batch, Epochs, Patience, Penalties, Rate, how_to_fit, keep_best
from pipeline.collab.labelled import (
    Floats,
    Known,
    Labelled,
    as_pairs,
    cold_counts,
    every_pair_scored_once,
    held_out,
    inner,
    known,
    mean_where_cold,
    rows_of,
    sigmoid,
    train_and_valid,
)
from pipeline.evaluate.pointwise import auc
from pipeline.schema import Codes, Curve, Pairs, Search
from pipeline.stage import Artefact, Check, Draft, Input, Settings, Verdict, stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.collab.factors import SignedFactors
    from pipeline.collab.pairs import Fit

NEWTON_STEPS = 25
ENTITIES = ("user", "item")


@dataclass(frozen=True)
class Schedule:
    """The probability that a bit is signed in training: from `start`, a `step` more every second epoch.

    Once it has passed 1.01 it stays at `after`.
    """

    start: float
    step: float
    after: float

    def share(self, epoch: int) -> float:
        """The probability in an epoch, from 0."""
        steps = (epoch + 1) // 2
        if steps and self.start + self.step * (steps - 1) >= 1.01:
            return self.after
        return min(self.start + self.step * steps, 1.0)


SCHEDULES = {
    "paper_ml1m": Schedule(start=0.0, step=0.001, after=1.0),
    "paper_book": Schedule(start=0.0, step=0.02, after=0.0),
    "growing": Schedule(start=0.0, step=0.02, after=1.0),
    "signs": Schedule(start=1.0, step=0.0, after=1.0),
    "tanh": Schedule(start=0.0, step=0.0, after=0.0),
}


class BinarySettings(Settings):
    width: int = Field(32, ge=8, multiple_of=8, description="bits a code")
    layer: Literal["separate", "shared", "none"] = Field(
        "separate", description="linear layer before tanh: one each for users and items, one for both, or none"
    )
    schedule: Literal["paper_ml1m", "paper_book", "growing", "signs", "tanh"] = Field(
        "paper_ml1m", description="how signs replace tanh values in training; signs: always, tanh: never"
    )
    slope: Literal["tanh", "identity"] = Field(
        "tanh", description="gradient of a sign: tanh's slope, as in the authors' code, or 1"
    )
    logits: Literal["raw", "scaled"] = Field(
        "raw",
        description="training logit: the inner product, as in the paper, or with a learnt scale and offset",
    )
    penalties: Penalties = (2.0, 5.0, 10.0)
    lr: Rate = 1e-3
    batch: Batch = None
    epochs: Epochs = 150
    patience: Patience = 15
    spread: float = Field(0.3, gt=0, description="standard deviation of the first rows")
    sharing_allowed: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a larger share of training rows whose item has no code of its own gives a warning",
    )


class Learnt(NamedTuple):
    """Signs in {-1, +1} int8 of users (n_users, width) and items (n_items, width), cold ones included."""

    users: Signs
    items: Signs

    def scores(self, user: NDArray[Any], item: NDArray[Any]) -> Floats:
        """Inner products (n,) of pairs, integers in -width..width."""
        return inner(self.users, self.items, user, item)


def read_out(model: "SignedFactors", seen: Known) -> Learnt:
    """Pure codes: signs of the learnt values, and of their mean for cold users and items."""
    import torch

    from pipeline.threads import one_thread

    with torch.no_grad(), one_thread():
        soft = {entity: torch.tanh(model.reach(entity)).numpy() for entity in ("user", "item")}
    return Learnt(
        signs(mean_where_cold(soft["user"], seen.users)), signs(mean_where_cold(soft["item"], seen.items))
    )


def signs(soft: NDArray[np.float32]) -> Signs:
    """-1 below zero and +1 from zero on, as in training."""
    return np.where(soft < 0, -1, 1).astype(np.int8)


def learn(
    parts: tuple[Labelled, Labelled],
    seen: Known,
    settings: BinarySettings,
    penalty: float,
    seed: int,
    checkpoint: Path | None = None,
) -> tuple[Learnt, "Fit"]:
    """Fit on the first part, stop by the second. Goes on from the checkpoint where there is one."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    from pipeline.collab.factors import SignedFactors, SignedForm
    from pipeline.collab.pairs import Saving, fit_pairs, generator, to_batch

    train, valid = parts
    form = SignedForm(settings.width, settings.spread, settings.layer, settings.slope, settings.logits)
    first = generator(seed, settings.epochs)  # beyond the last epoch's draws
    model = SignedFactors(len(seen.users), len(seen.items), form, first)
    schedule = SCHEDULES[settings.schedule]
    fit = fit_pairs(
        model,
        to_batch(train),
        loss=lambda batch, epoch, draws: binary_cross_entropy_with_logits(
            model(batch.user, batch.item, schedule.share(epoch), draws), batch.label
        ),
        judge=lambda: auc(valid.label, read_out(model, seen).scores(valid.user, valid.item)),
        how=how_to_fit(settings, penalty, len(train.label), seed),
        saving=Saving(checkpoint) if checkpoint else None,
    )
    return read_out(model, seen), fit


def calibrate(scores: Floats, labels: NDArray[Any]) -> tuple[float, float]:
    """Scale and offset of the logistic curve that fits labels (n,) to scores (n,) best (Platt 1999).

    Newton's method on the mean log loss with a penalty of 1e-4, which keeps it finite where the scores part
    the labels without fault.
    """
    spread = max(float(np.abs(scores).max(initial=0.0)), 1.0)
    x = np.stack([scores / spread, np.ones(len(scores))], axis=1)
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        chance = sigmoid((x * weights).sum(1))
        slope = (x * (chance - labels)[:, None]).mean(0) + 1e-4 * weights
        curve = (x[:, :, None] * x[:, None, :] * (chance * (1 - chance))[:, None, None]).mean(0)
        weights = weights - np.linalg.solve(curve + 1e-4 * np.eye(2), slope)
    return float(weights[0] / spread), float(weights[1])


def spell(codes: Signs) -> pl.Series:
    """Codes (n, width) as 0 and 1, most significant first."""
    digits = np.ascontiguousarray(np.where(codes > 0, b"1", b"0"))
    return pl.Series("bits", digits.view(f"S{codes.shape[1]}")[:, 0].astype(str), dtype=pl.String)


def dotted(bits: pl.Series) -> pl.Series:
    """Bits a byte at a time as decimals: `10101100000100001111111000000001` is `172.16.254.1`."""
    starts = range(0, int(bits.str.len_chars().max() or 8), 8)  # type: ignore[arg-type]
    numbers = [bits.str.slice(start, 8).str.to_integer(base=2, strict=False) for start in starts]
    parts = [number.cast(pl.String) for number in numbers]
    return pl.select(pl.concat_str(parts, separator=".", ignore_nulls=True)).to_series()


def code_table(learnt: Learnt, seen: Known) -> pl.DataFrame:
    """One row per user and item: the code in both spellings, and whether it was trained."""
    frames = []
    for entity, codes, trained in zip(ENTITIES, learnt, seen, strict=True):
        bits = spell(codes)
        frames.append(
            pl.DataFrame(
                {
                    "entity": [entity] * len(bits),
                    "id": np.arange(len(bits), dtype=np.uint32),
                    "bits": bits,
                    "dotted": dotted(bits),
                    "trained": trained,
                }
            )
        )
    return pl.concat(frames)


def health_picture(codes: Mapping[str, Signs]) -> "Figure":
    """Share of set bits, and sizes of the groups that share a code, of users and items."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots(2, 2)
    for (left, right), (entity, signs) in zip(axes, codes.items(), strict=True):
        balance, groups = bit_balance(signs), group_sizes(signs)
        left.bar(range(len(balance)), balance, color="tab:blue")
        left.axhspan(*BALANCED, color="tab:green", alpha=0.12)
        left.set(ylim=(0, 1), xlabel="bit, most significant first", ylabel=f"share of {entity}s with it set")
        right.step(range(1, len(groups) + 1), groups, where="mid", color="tab:orange")
        right.set(xlabel="distinct codes, most shared first", ylabel=f"{entity}s with the code", ylim=(0, None))
    figure.suptitle("Balance of bits and sharing of codes (trained users and items)")
    return figure


def dotted_matches_bits(draft: Draft, inputs: Mapping[str, Input], settings: BinarySettings) -> Verdict:
    """The two spellings of every code say the same number, and every code has the set width."""
    codes = draft.read("codes")
    unlike = dotted(codes["bits"]).ne_missing(codes["dotted"])
    found = codes.filter(unlike | (codes["bits"].str.len_chars() != settings.width))
    wrong = [f"{entity} {i}" for entity, i in found.select("entity", "id").iter_rows()]
    return Verdict(not wrong, f"wrong: {', '.join(wrong[:5])}" if wrong else "", {"wrong_codes": len(wrong)})


def codes_distinct(draft: Draft, inputs: Mapping[str, Input], settings: BinarySettings) -> Verdict:
    """Most training rows are of an item with a code of its own.

    A warning, not a stop: ranking needs no distinct codes, but a prompt cannot tell apart what shares one. Rows
    count, not items: prompts meet the often rated ones, and of a rare one too little is known to set it apart.
    """
    rows, items = draft.metrics["item_sharing_rows"], draft.metrics["item_sharing"]
    words = f"{rows:.0%} of training rows are of an item that shares its code ({items:.0%} of those items do)"
    return Verdict(rows <= settings.sharing_allowed, words, {"sharing_rows": rows, "sharing": items})


def codes_vary(draft: Draft, inputs: Mapping[str, Input], settings: BinarySettings) -> Verdict:
    """Neither all trained users nor all trained items have one and the same code."""
    distinct = {entity: draft.metrics[f"{entity}_distinct"] for entity in ENTITIES}
    collapsed = [e for e in ENTITIES if distinct[e] < 2 <= draft.metrics[f"{e}_codes"]]
    return Verdict(not collapsed, ", ".join(f"all {e}s share one code" for e in collapsed), distinct)


def bits_balanced(draft: Draft, inputs: Mapping[str, Input], settings: BinarySettings) -> Verdict:
    """At most half of the bits of users or items are set in under 10 % or over 90 % of the training rows."""
    shares = {entity: draft.metrics[f"{entity}_unbalanced_rows"] for entity in ENTITIES}
    words = ", ".join(
        f"{share:.0%} of the bits of {entity}s are nearly the same in all training rows"
        for entity, share in shares.items()
    )
    return Verdict(max(shares.values()) <= 0.5, words, shares)


@stage(
    "binary_codes",
    settings=BinarySettings,
    section="models",
    version=2,
    inputs={"split": "ctr/split"},
    tables={"codes": Codes, "curve": Curve, "search": Search, "pairs": Pairs},
    checks=(
        Check(every_pair_scored_once),
        Check(dotted_matches_bits),
        Check(codes_vary),
        Check(codes_distinct, blocking=False),
        Check(bits_balanced, blocking=False),
    ),
    seeded=True,
    predicts="pairs",
    needs="heavy",
)
def binary_codes(split: Artefact, settings: BinarySettings, out: Draft) -> None:
    """BinLLM's codes: users and items as bits learnt from labelled pairs; their inner products as scores."""
    import torch

    examples = rows_of(split)
    parts, seen = train_and_valid(examples), known(split.scan("examples"))
    best = keep_best(
        "binmf",
        lambda penalty, checkpoint: learn(parts, seen, settings, penalty, out.seed, checkpoint),
        settings.penalties,
        out,
    )
    scale, offset = write_pairs(examples, best, out)
    out.table("codes", code_table(best, seen))
    out.tensors("codes", {"users": torch.from_numpy(best.users), "items": torch.from_numpy(best.items)})
    out.metric(
        scale=scale,
        offset=offset,
        **cold_counts(examples, seen),
    )
    write_health(best, seen, parts[0], out)


def write_pairs(examples: pl.DataFrame, best: Learnt, out: Draft) -> tuple[float, float]:
    """Score the held-out rows. Returns the scale and offset that validation gave the probabilities."""
    rows = held_out(examples)
    score = best.scores(rows["user"].to_numpy(), rows["item"].to_numpy())
    valid = (rows["part"] == "valid").to_numpy()
    scale, offset = calibrate(score[valid], rows["label"].to_numpy()[valid])
    out.table("pairs", as_pairs(examples, "binmf", score, sigmoid(scale * score + offset), out.seed))
    return scale, offset


def write_health(best: Learnt, seen: Known, train: Labelled, out: Draft) -> None:
    """Figures and a picture of the trained codes."""
    trained = {"user": best.users[seen.users], "item": best.items[seen.items]}
    rows = {"user": counts(train.user, seen.users), "item": counts(train.item, seen.items)}
    for entity, codes in trained.items():
        found = measure(codes, rows[entity])
        out.metric(**{f"{entity}_{name}": value for name, value in found._asdict().items()})
    out.json("balance", {entity: bit_balance(codes).tolist() for entity, codes in trained.items()})
    out.picture("code_health", health_picture(trained))


def counts(ids: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows of each id that is seen."""
    return np.bincount(ids, minlength=len(seen))[seen]
