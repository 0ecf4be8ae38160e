"""A method's facts become three stages, where a child process finds them."""

import importlib

from pipeline.llm.ranker import YesNoRanker
from pipeline.llm.settings import Scoring
from pipeline.methods import binllm, tallrec
from pipeline.stage import Pinned


def test_stages_are_found_by_their_reference() -> None:
    for method in (tallrec, binllm):
        for stage in (method.prompts, method.adapter, method.predictions):
            module, attribute = stage.reference.split(":")
            assert getattr(importlib.import_module(module), attribute) is stage
            assert stage.name == f"{method.RANKER.method}/{attribute}"


def test_what_a_stage_reads_is_what_the_method_says() -> None:
    shared = {"split": "ctr/split", "dataset": "dataset", "language_model": "language_model"}
    assert tallrec.prompts.inputs == shared
    assert binllm.prompts.inputs == {**shared, "codes": "binary_codes"}
    assert tallrec.adapter.inputs["start"] == tallrec.few_shot.inputs["start"] == "instructions"
    assert binllm.adapter.inputs["start"] == Pinned("tallrec/adapter", "titles")
    assert binllm.predictions.inputs["adapter"] == "binllm/adapter"
    assert binllm.predictions.settings is Scoring


def test_a_method_says_its_own_words_and_version() -> None:
    ranker = YesNoRanker(
        "pipeline.methods.made_up",
        tallrec.template,
        tallrec.shown,
        variants=("one", "none"),
        default_variants=("one",),
        controls=("none",),
    )
    stage = ranker.adapter(3, "Weights of a method made up.")
    assert (stage.name, stage.version, stage.doc) == ("made_up/adapter", 3, "Weights of a method made up.")
    assert (stage.variants, stage.default_variants, stage.controls) == (("one", "none"), ("one",), ("none",))
    assert [s.predicts for s in (ranker.prompts(1), stage, ranker.predictions(1))] == [None, None, "pairs"]
