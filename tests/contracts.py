"""What is true of every method, as classes that a method's tests inherit.

`PromptContract` and `ScorerContract` ask the test module for fixtures: `prompted` and `scored`, each variant ->
artefact of a small study with all the method's variants, and `examples`, the split's table.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from pipeline.stage import Artefact, Stage
from tests.toy_ctr import failed

KEYS = ("row", "part", "user", "item", "label")
GUARDS = {
    "labels_change_no_prompt",
    "history_is_of_the_past",
    "target_not_in_history",
    "inside_the_budget",
    "one_prompt_per_example",
    "nothing_smuggled_in",
}


class MethodContract:
    """Facts of a method's declarations. `stages` are its stages, in the order of the data."""

    stages: ClassVar[tuple[Stage, ...]]

    def test_every_setting_is_described_and_has_a_default(self) -> None:
        for stage in self.stages:
            for name, field in stage.settings.model_fields.items():
                assert field.description, f"{stage.name}: {name}"
                assert not field.is_required(), f"{stage.name}: {name}"

    def test_all_stages_have_the_same_variants(self) -> None:
        first = self.stages[0]
        for stage in self.stages:
            assert stage.variants == first.variants
            assert stage.controls == first.controls
            assert stage.default_variants == first.default_variants
            assert {*stage.controls, *stage.default_variants} <= set(stage.variants)

    def test_the_defaults_hold_a_form_of_the_method_and_a_control(self) -> None:
        chosen, controls = set(self.stages[0].default_variants), set(self.stages[0].controls)
        assert chosen & controls
        assert chosen - controls

    def test_every_stage_is_checked_and_the_last_one_predicts(self) -> None:
        assert all(stage.checks for stage in self.stages)
        assert [stage.predicts for stage in self.stages] == [None] * (len(self.stages) - 1) + ["pairs"]


class PromptContract:
    """Facts of every table `prompts`."""

    def test_one_prompt_per_example_in_the_same_order(
        self, prompted: Mapping[str, Artefact], examples: pl.DataFrame
    ) -> None:
        for artefact in prompted.values():
            table = artefact.table("prompts")
            asked = examples.filter(pl.col("row").is_in(table["row"].implode()))
            assert table.select(KEYS).equals(asked.select(KEYS))
            whole = asked.filter(pl.col("part") != "train").height
            assert whole == examples.filter(pl.col("part") != "train").height

    def test_no_prompt_is_empty(self, prompted: Mapping[str, Artefact]) -> None:
        for artefact in prompted.values():
            assert artefact.table("prompts")["prompt"].str.len_chars().min() > 10
            assert artefact.table("prompts").null_count().sum_horizontal().item() == 0

    def test_all_guards_stand_and_pass(self, prompted: Mapping[str, Artefact]) -> None:
        for variant, artefact in prompted.items():
            checks = artefact.manifest["checks"]
            assert set(checks) >= GUARDS
            assert all(checks[guard]["blocking"] for guard in GUARDS)
            assert failed(artefact) == {}, variant

    def test_the_same_rows_in_every_variant(self, prompted: Mapping[str, Artefact]) -> None:
        rows = {tuple(artefact.table("prompts")["row"]) for artefact in prompted.values()}
        assert len(rows) == 1


class ScorerContract:
    """Facts of every table `pairs`."""

    def test_each_pair_once_and_finite(
        self, prompted: Mapping[str, Artefact], scored: Mapping[str, Artefact]
    ) -> None:
        for variant, artefact in scored.items():
            pairs = artefact.table("pairs")
            wanted = prompted[variant].table("prompts").filter(pl.col("part") != "train")
            assert pairs.select(KEYS).equals(wanted.select(KEYS))
            assert pairs["score"].is_finite().all()
            assert pairs["probability"].is_between(0, 1).all()
            assert set(pairs["variant"]) == {variant}

    def test_a_higher_score_is_a_higher_probability(self, scored: Mapping[str, Artefact]) -> None:
        for artefact in scored.values():
            ordered = artefact.table("pairs").sort("score")
            assert ordered["probability"].is_sorted()


def same_files(one: Artefact, other: Artefact) -> bool:
    """Whether two artefacts hold the same bits."""
    hashes: list[Any] = [{name: f["sha256"] for name, f in a.manifest["files"].items()} for a in (one, other)]
    return hashes[0] == hashes[1]
