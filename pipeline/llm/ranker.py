"""The three stages of every method that asks a language model for yes or no, declared from its own facts.

    examples -> prompts (table) -> adapter (LoRA weights) -> predictions (table pairs)

    RANKER = YesNoRanker(__name__, template, shown, variants=..., default_variants=..., controls=...)
    prompts = RANKER.prompts(version=1)
    adapter = RANKER.adapter(version=1)
    predictions = RANKER.predictions(version=1)

A method that does one of them otherwise declares that one itself, under the same name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.llm import controls
from pipeline.llm.adapt import ADAPTER_CHECKS, tune_on
from pipeline.llm.answer import PREDICTION_CHECKS, score_with
from pipeline.llm.ask import Shown, ask, model_folder, write_prompts, write_vectors
from pipeline.llm.examples import few_shot
from pipeline.llm.few_shot import CURVE_CHECKS, Shots, few_shot_curve
from pipeline.llm.guards import Guards
from pipeline.llm.load import load_tokenizer
from pipeline.llm.settings import Plan, Prompting, Scoring, Tuning
from pipeline.schema import Curve, FewShot, Pairs, Prompts
from pipeline.stage import Artefact, Check, Draft, PerVariant, Pinned, Stage, stage
from pipeline.text.prompts import Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

Asking = Callable[[str, Any], Template]  # variant, settings
Vectors = Callable[[Mapping[str, Artefact], Any, str, int], "NDArray[np.float32] | None"]
Showing = Callable[[pl.DataFrame, Mapping[str, Artefact], Any, str, int], Shown]


@dataclass(frozen=True)
class YesNoRanker:
    """A method's own facts. All that is not here is the same for every such method.

    module: where its stages are bound, under their own names: `__name__`; its last part is the method.
    template: (variant, settings) -> the question with its answers.
    shown: (examples asked about, inputs, settings, variant, seed) -> what fills the question, row by row.
        It may read the inputs `split`, `dataset` and `language_model`, and those named in `inputs`.
    variants, default_variants, controls: as in `stage`. shuffled: control that shuffles something -> the
    variant it is a control of; how much it changes is told. foreign: controls that show the pasts of other
    users; the guards of one's own past do not judge them. inputs: what `shown` reads besides, parameter ->
    stage; prompting, tuning: classes of settings. start: the adapter that tuning goes on from; from_scratch:
    variants that begin with fresh weights. untuned: variants that take no step. vectors: (inputs, settings,
    variant, seed) -> (n, d) numbers that soft tokens show, rows named by `shown`; None
        for a variant without any. plan: what is tuned in a variant that has some.
    asked_again: variant -> the variant as which its train rows are asked a second time, on a mixed set.
    reads_ratings: whether prompts show ratings, which are then guarded; checks: of prompts, besides the guards.
    """

    module: str
    template: Asking
    shown: Showing
    variants: tuple[str, ...]
    default_variants: tuple[str, ...]
    controls: tuple[str, ...]
    shuffled: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    inputs: Mapping[str, str | PerVariant] = field(default_factory=dict)
    prompting: type[Prompting] = Prompting
    tuning: type[Tuning] = Tuning
    start: str | Pinned | None = None
    from_scratch: tuple[str, ...] = ()
    untuned: tuple[str, ...] = ()
    vectors: Vectors | None = None
    plan: Callable[[str], Plan | None] = lambda variant: None
    asked_again: Mapping[str, str] = field(default_factory=dict)
    reads_ratings: bool = False
    checks: tuple[Check, ...] = ()

    @property
    def method(self) -> str:
        return self.module.rpartition(".")[2]

    def render(
        self,
        inputs: Mapping[str, Any],
        settings: Any,
        variant: str,
        seed: int,
        examples: pl.DataFrame,
        only: pl.Series | None = None,
    ) -> pl.DataFrame:
        """The table `prompts` of one variant: `train_rows` of train, twice where asked again; all of the rest.

        only: make no more than these rows of it; what they say is the same.
        """
        asked = few_shot(examples, settings.train_rows, seed)
        table = self.in_form(variant, inputs, settings, seed, asked, only)
        if variant not in self.asked_again:
            return table
        train = asked.filter(part="train")
        again = self.in_form(self.asked_again[variant], inputs, settings, seed, train, only)
        return pl.concat([table, again.with_columns(form=pl.lit(2, dtype=pl.UInt8))]).sort("row", "form")

    def in_form(
        self,
        variant: str,
        inputs: Mapping[str, Any],
        settings: Any,
        seed: int,
        asked: pl.DataFrame,
        only: pl.Series | None,
    ) -> pl.DataFrame:
        """Prompts of these examples as one variant asks about them."""
        shown = self.shown(asked, inputs, settings, variant, seed)
        if only is not None:
            places = np.flatnonzero(asked["row"].is_in(only.implode())).tolist()
            asked, shown = asked[places], shown.take(places)
        titles = dict(inputs["dataset"].table("items").select("item", "title").iter_rows())
        tokenizer = load_tokenizer(model_folder(inputs["language_model"]))
        return ask(asked, shown, titles, self.template(variant, settings), settings, tokenizer)

    def prompts(self, version: int, doc: str = "What the language model is asked about each example.") -> Stage:
        """The stage that asks, with its guards."""

        def prompts(settings: Any, out: Draft, **inputs: Artefact) -> None:
            examples = inputs["split"].table("examples")
            table = self.render(inputs, settings, out.variant, out.seed, examples)
            question = self.template(out.variant, settings)
            write_prompts(table, question.answers, out)
            write_vectors(self.vectors and self.vectors(inputs, settings, out.variant, out.seed), question, out)
            if out.variant in self.shuffled:
                out.metric(**self.shares_changed(inputs, settings, out, table))

        return self.declare(
            prompts,
            version,
            doc,
            settings=self.prompting,
            inputs={
                "split": "ctr/split",
                "dataset": "dataset",
                "language_model": "language_model",
                **self.inputs,
            },
            tables={"prompts": Prompts},
            checks=(*self.guards(), *self.checks, *controls.CONTROL_CHECKS),
            shared={"words": "words"},
        )

    def guards(self) -> tuple[Check, ...]:
        return Guards(self.render, self.foreign, tuple(self.asked_again)).checks(self.reads_ratings)

    def shares_changed(
        self, inputs: Mapping[str, Any], settings: Any, out: Draft, table: pl.DataFrame
    ) -> dict[str, float]:
        """How much of the table a shuffled control has changed, against the variant that it shuffles."""
        examples, plain = inputs["split"].table("examples"), self.shuffled[out.variant]
        asked = few_shot(examples, settings.train_rows, out.seed)
        slots = [self.shown(asked, inputs, settings, v, out.seed).slots for v in (out.variant, plain)]
        own = self.render(inputs, settings, plain, out.seed, examples)
        return controls.shares_changed(table, own) | controls.slot_shares_changed(*slots)

    def adapter(self, version: int, doc: str = "Low-rank weights tuned to answer yes or no.") -> Stage:
        """The stage that tunes."""

        def adapter(
            prompts: Artefact,
            language_model: Artefact,
            settings: Any,
            out: Draft,
            start: Artefact | None = None,
        ) -> None:
            steps = {"steps": 0} if out.variant in self.untuned else {}
            before = None if out.variant in self.from_scratch else start
            plan, how = self.plan(out.variant), settings.model_copy(update=steps)
            tune_on(prompts, language_model, before, how, out, plan)

        inputs: dict[str, str | Pinned] = {
            "prompts": f"{self.method}/prompts",
            "language_model": "language_model",
        }
        return self.declare(
            adapter,
            version,
            doc,
            settings=self.tuning,
            inputs=inputs | ({"start": self.start} if self.start else {}),
            tables={"curve": Curve},
            checks=ADAPTER_CHECKS,
            needs="gpu",
        )

    def predictions(
        self, version: int, doc: str = "How far yes leads over no, for every valid and test example."
    ) -> Stage:
        """The stage that scores."""

        def predictions(
            prompts: Artefact, adapter: Artefact, language_model: Artefact, settings: Any, out: Draft
        ) -> None:
            score_with(prompts, language_model, adapter, settings, out)

        return self.declare(
            predictions,
            version,
            doc,
            settings=Scoring,
            inputs={
                "prompts": f"{self.method}/prompts",
                "adapter": f"{self.method}/adapter",
                "language_model": "language_model",
            },
            tables={"pairs": Pairs},
            checks=PREDICTION_CHECKS,
            predicts="pairs",
            needs="gpu",
        )

    def few_shot(self, version: int, doc: str = "AUC over numbers of training examples.") -> Stage:
        """The stage that draws a curve over numbers of training examples; nothing where the study names
        none."""

        def few_shot(
            prompts: Artefact,
            language_model: Artefact,
            settings: Any,
            out: Draft,
            start: Artefact | None = None,
        ) -> None:
            few_shot_curve(prompts, language_model, start, settings, out)

        inputs = {"prompts": f"{self.method}/prompts", "language_model": "language_model"}
        return self.declare(
            few_shot,
            version,
            doc,
            settings=Shots,
            inputs=inputs | ({"start": self.start} if self.start else {}),
            tables={"few_shot": FewShot},
            checks=CURVE_CHECKS,
            needs="gpu",
        )

    def declare(self, function: Callable[..., None], version: int, doc: str, **facts: Any) -> Stage:
        """The function as a stage of the method's module, where a child process will look for it."""
        function.__module__, function.__doc__ = self.module, doc
        forms = {
            "variants": self.variants,
            "default_variants": self.default_variants,
            "controls": self.controls,
        }
        return stage(
            f"{self.method}/{function.__name__}",
            section="methods",
            version=version,
            seeded=True,
            **forms,
            **facts,
        )(function)
