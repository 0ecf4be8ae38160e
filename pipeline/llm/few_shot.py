"""A curve over numbers of training examples: how much tuning data a language model needs.

    prompts + shots (16, 64, 256) -> for each: tune from the same start -> AUC on every held-out row -> few_shot

TALLRec's table of K (arXiv 2305.00447, table 1). The examples of a smaller number are among those of every
larger one, seed by seed, so that a curve's steps differ by examples added and not by examples drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from pipeline.evaluate.statistics import bootstrap, interval, pooled_auc, value
from pipeline.llm.adapt import folder_of, yes_no_task
from pipeline.llm.ask import model_folder
from pipeline.llm.examples import SCORED
from pipeline.llm.load import choose_dtype, load_model, load_tokenizer
from pipeline.llm.settings import Tuning
from pipeline.schema import FewShot, empty
from pipeline.stage import Artefact, Check, Draft, Input, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.llm.tasks import YesNo

RESAMPLES, CONFIDENCE = 1000, 0.95


class Shots(Tuning):
    shots: tuple[int, ...] = Field(
        (),
        description="numbers of training examples, each tuned by itself, as [16, 64, 256]; none: no curve",
    )
    epochs: float = Field(20.0, gt=0, description="passes over the examples; validation ends it before")
    evaluate_every: int = Field(5, ge=1, description="steps between two looks at the validation rows")


def few_shot_curve(
    prompts: Artefact, language_model: Artefact, start: Artefact | None, settings: Shots, out: Draft
) -> None:
    """Tune for each number of examples, and write what the held-out rows say of it, with a picture.

    Raises ValueError for more shots than there are training prompts.
    """
    table = prompts.table("prompts").filter(pl.col("part").is_in(SCORED))
    whole = yes_no_task(prompts, model_folder(language_model), settings, out.seed)
    if max(settings.shots, default=0) > len(whole):
        raise ValueError(f"{max(settings.shots)} shots of {len(whole)} training prompts: raise train_rows")
    ground, points = Ground(whole, table, model_folder(language_model), folder_of(start)), []
    for shots in sorted(settings.shots):
        scores = after(shots, ground, settings, out)
        points += [
            figures(table.filter(part=part), scores.filter(part=part)["score"], shots, out) for part in SCORED
        ]
    out.table("few_shot", pl.DataFrame(points, schema=empty(FewShot).schema))
    out.metric(**{f"{point['part']}_auc_{point['shots']}": round(point["auc"], 6) for point in points})
    if points:
        out.picture("few_shot", picture(points, f"{out.stage.method} {out.variant}, seed {out.seed}"))


class Ground(NamedTuple):
    """What every number of shots shares: all training examples, the held-out prompts, the model's folder, and
    that of the low-rank weights to go on from."""

    whole: "YesNo"
    held_out: pl.DataFrame
    folder: Path
    start: Path | None


def after(shots: int, ground: Ground, settings: Shots, out: Draft) -> pl.DataFrame:
    """Columns part and score of the held-out prompts, by a model tuned on `shots` of the training examples."""
    from pipeline.llm import tune
    from pipeline.llm.reader import reader
    from pipeline.llm.soft_tokens import encode_slots
    from pipeline.llm.tasks import Questions
    from pipeline.llm.yes_no import decide, score

    whole, table, folder, start = ground
    chosen = first_of(len(whole), shots, out.seed)
    train = Questions([whole.train.prompts[i] for i in chosen], [whole.train.labels[i] for i in chosen])
    checkpoints, label = (
        out.checkpoints / str(shots),
        f"{out.stage.name} {out.variant} {shots} shots seed {out.seed}",
    )
    checkpoints.mkdir(parents=True, exist_ok=True)
    model = load_model(folder, tuning=True, quantisation=settings.quantisation)
    tune.add_adapter(model, settings, out.seed, start)
    tuned = tune.tune(model, replace(whole, train=train), settings, out.seed, checkpoints, label)
    tune.take_weights(model, tuned.weights)
    reading, ids = reader(model, choose_dtype(settings.dtype)), encode_slots(load_tokenizer(folder), table)
    logits = score(reading, ids, whole.answers, settings.batch_tokens, f"{label}, scoring")
    return table.select("part", score=pl.Series(decide(logits, settings.loss).tolist(), dtype=pl.Float64))


def first_of(rows: int, shots: int, seed: int) -> list[int]:
    """The first `shots` of all rows in an order drawn by seed: those of fewer shots are among them."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:shots]).tolist()


def figures(rows: pl.DataFrame, scores: pl.Series, shots: int, out: Draft) -> dict[str, Any]:
    """One part's AUC with its interval over users; no numbers where there is one class only."""
    users, owner = np.unique(rows["user"].to_numpy(), return_inverse=True)
    measure = pooled_auc(owner, rows["label"].to_numpy(), scores.to_numpy())
    found = value(measure, len(users)) if len(users) else float("nan")
    bounds = (float("nan"),) * 2
    if np.isfinite(found):
        low, high = interval(bootstrap([measure], len(users), RESAMPLES, out.seed), CONFIDENCE, len(users))
        bounds = (float(low[0]), float(high[0]))
    part = rows["part"][0] if rows.height else ""
    place = {"method": out.stage.method, "variant": out.variant, "seed": out.seed, "shots": shots, "part": part}
    return {
        **place,
        "rows": rows.height,
        "users": len(users),
        "auc": found,
        "low": bounds[0],
        "high": bounds[1],
    }


def picture(points: Sequence[Mapping[str, Any]], title: str) -> "Figure":
    """AUC of both held-out parts over the number of examples, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for part in SCORED:
        rows = [point for point in points if point["part"] == part]
        shots, auc = [p["shots"] for p in rows], [p["auc"] for p in rows]
        reach = [[p["auc"] - p["low"] for p in rows], [p["high"] - p["auc"] for p in rows]]
        axes.errorbar(shots, auc, yerr=reach, marker="o", capsize=3, label=f"{part}, 95 %")
    axes.axhline(0.5, color="grey", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([p["shots"] for p in points], [str(p["shots"]) for p in points])
    axes.set(xlabel="training examples", ylabel="AUC", title=title)
    axes.legend()
    return figure


def every_number_was_tried(draft: Draft, inputs: Mapping[str, Input], settings: Shots) -> Verdict:
    """Each number of examples that the study names has a point for both held-out parts."""
    found = set(draft.read("few_shot").select("shots", "part").iter_rows())
    missing = [f"{shots} {part}" for shots in settings.shots for part in SCORED if (shots, part) not in found]
    asked = f"{len(settings.shots)} numbers of examples" if settings.shots else "skipped: no shots are named"
    return Verdict(not missing, f"missing: {', '.join(missing)}" if missing else asked)


CURVE_CHECKS = (Check(every_number_was_tried),)
