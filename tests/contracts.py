"""What is true of every method, as classes that a method's tests inherit.

`PromptContract` and `ScorerContract` ask for fixtures: `prompted` and `scored`, each variant -> artefact of a
small study with all the method's variants, and `examples`, the split's table. `YesNoContract` brings them.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

from pipeline.collab import labelled, pairs
from pipeline.collab.encoders import Encoded, vectors_of
from pipeline.evaluate.pointwise import auc
from pipeline.stage import Artefact, Pinned, Stage, StageFailed, run
from tests import toy_ctr, toy_next, toy_pairs
from tests.toy_ctr import failed

KEYS = ("row", "part", "user", "item", "label")
GUARDS = {
    "labels_change_no_prompt",
    "history_is_of_the_past",
    "target_not_in_history",
    "inside_the_budget",
    "one_prompt_per_example",
    "nothing_smuggled_in",
    "every_slot_has_its_vector",
}


class MethodContract:
    """Facts of a method's declarations. `stages` are its stages, in the order of the data."""

    stages: ClassVar[tuple[Stage, ...]]
    predicts: ClassVar[str] = "pairs"

    def test_every_setting_is_described_and_has_a_default(self) -> None:
        for stage in self.stages:
            for name, field in stage.settings.model_fields.items():
                assert field.description, f"{stage.name}: {name}"
                assert not field.is_required(), f"{stage.name}: {name}"

    def test_all_stages_have_the_same_variants(self) -> None:
        first = self.stages[0]
        for stage in self.stages:
            assert stage.variants == first.variants
            assert (stage.controls, stage.control_of) == (first.controls, first.control_of)
            assert set(stage.control_of) <= set(stage.controls)
            assert stage.default_variants == first.default_variants
            assert {*stage.controls, *stage.default_variants} <= set(stage.variants)

    def test_the_defaults_hold_a_form_of_the_method_and_a_control(self) -> None:
        chosen, controls = set(self.stages[0].default_variants), set(self.stages[0].controls)
        assert chosen & controls
        assert chosen - controls

    def test_every_stage_is_checked_and_the_last_one_predicts(self) -> None:
        assert all(stage.checks for stage in self.stages)
        assert [stage.predicts for stage in self.stages] == [None] * (len(self.stages) - 1) + [self.predicts]


class PromptContract:
    """Facts of every table `prompts`. `asked_again`: variants that ask every train row a second time."""

    asked_again: ClassVar[Collection[str]] = ()

    def test_one_prompt_per_example_in_the_same_order(
        self, prompted: Mapping[str, Artefact], examples: pl.DataFrame
    ) -> None:
        for variant, artefact in prompted.items():
            table = artefact.table("prompts").filter(form=1)
            asked = examples.filter(pl.col("row").is_in(table["row"].implode()))
            assert table.select(KEYS).equals(asked.select(KEYS))
            again = artefact.table("prompts").filter(pl.col("form") != 1)
            train = asked.filter(pl.col("part") == "train", variant in self.asked_again)
            assert again.select(KEYS).equals(train.select(KEYS))
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


QUICK = {"steps": 3, "examples_per_step": 4, "evaluate_every": 3, "valid_rows": 20, "warm_up": 0}


class YesNoContract(MethodContract, PromptContract, ScorerContract):
    """All of it, for a method whose stages are prompts, adapter and predictions: runs all its variants."""

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Artefact]]:
        """Stage -> variant -> artefact."""
        folder = tmp_path_factory.mktemp("yes_no")
        wanted = {stage.method: list(stage.variants) for stage in cls.stages}
        pinned = [p for stage in cls.stages for p in stage.inputs.values() if isinstance(p, Pinned)]
        wanted |= {one.stage.split("/")[0]: [one.variant] for one in pinned}
        small = {"prompts": {"train_rows": 40}, "adapter": QUICK}
        methods = {method: {"variants": variants, **small} for method, variants in wanted.items()}
        names = ("ctr/split", *(stage.name for stage in cls.stages))
        return toy_ctr.make(folder, names, data={"dataset": {"telling": True}}, methods=methods)

    @pytest.fixture(scope="class")
    @classmethod
    def examples(cls, made: Mapping[str, Mapping[str, Artefact]]) -> pl.DataFrame:
        return made["ctr/split"]["default"].table("examples")

    @pytest.fixture(scope="class")
    @classmethod
    def prompted(cls, made: Mapping[str, Mapping[str, Artefact]]) -> Mapping[str, Artefact]:
        return made[cls.stages[0].name]

    @pytest.fixture(scope="class")
    @classmethod
    def scored(cls, made: Mapping[str, Mapping[str, Artefact]]) -> Mapping[str, Artefact]:
        return made[cls.stages[-1].name]


class RankerContract:
    """Facts of every model of the next_item track, on the circles of `tests.toy_next`.

    stage: the model's; settings: such that it is quick and learns; personal: whether orders differ by user.
    """

    stage: ClassVar[Stage]
    settings: ClassVar[Mapping[str, Any]] = {}
    personal: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
        return cls.make(tmp_path_factory)

    @classmethod
    def make(cls, folders: pytest.TempPathFactory, seed: int = 1) -> Artefact:
        return toy_next.make(cls.stage, toy_next.circles(), folders.mktemp("ranker"), seed, **cls.settings)

    @pytest.fixture(scope="class")
    @classmethod
    def rankings(cls, made: Artefact) -> pl.DataFrame:
        """The orders of the test queries, seen items masked, all 24 items of each."""
        return made.table("rankings").filter(part="test", variant="default").sort("user", "rank")

    def test_every_setting_is_described_and_has_a_default(self) -> None:
        for name, field in self.stage.settings.model_fields.items():
            assert field.description, name
            assert not field.is_required(), name

    def test_all_checks_pass(self, made: Artefact) -> None:
        assert "every_query_ranked_once" in made.manifest["checks"]
        assert failed(made) == {}

    def test_every_item_stands_once_and_scores_are_finite_or_missing(self, rankings: pl.DataFrame) -> None:
        users = rankings.group_by("user", maintain_order=True).agg("rank", "item", "score")
        assert users.height == toy_next.EMPTY + 1
        for _, rank, item, score in users.iter_rows():
            assert rank == list(range(1, toy_next.ITEMS + 1))
            assert sorted(item) == list(range(toy_next.ITEMS))
            scored = [value for value in score if value is not None]
            assert all(abs(value) < float("inf") for value in scored)
            assert scored == sorted(scored, reverse=True)

    def test_seen_items_are_masked(self, rankings: pl.DataFrame) -> None:
        for user, history in toy_next.circles().part("test").select("user", "history").iter_rows():
            seen = rankings.filter(pl.col("user") == user, pl.col("item").is_in(history))
            assert seen.height == len(history)
            assert seen["score"].null_count() == len(history)

    def test_cold_items_are_never_recommended(self, rankings: pl.DataFrame) -> None:
        cold = rankings.filter(pl.col("item") >= toy_next.COLD_ITEM)
        assert cold["score"].null_count() == cold.height
        last = rankings.filter(pl.col("score").is_not_null()).group_by("user").agg(last=pl.col("rank").max())
        assert cold.join(last, on="user").filter(pl.col("rank") < pl.col("last")).is_empty()

    def test_cold_users_get_an_order_and_all_the_same(self, rankings: pl.DataFrame) -> None:
        cold = rankings.filter(pl.col("user") >= toy_next.NEW_ON_COLD, pl.col("score").is_not_null())
        orders = [tuple(items) for (items,) in cold.group_by("user").agg("item").select("item").iter_rows()]
        assert len(orders) == 2
        assert len(set(orders)) == 1
        assert len(orders[0]) == toy_next.CIRCLE

    def test_the_planted_taste_is_found(self, rankings: pl.DataFrame) -> None:
        first = rankings.filter(pl.col("rank") == 1, pl.col("user") < toy_next.LEARNT)
        own = (first["item"] % 2 == first["user"] % 2).sum()
        assert own == toy_next.LEARNT if self.personal else own < toy_next.LEARNT

    def test_the_same_bits_twice(self, made: Artefact, tmp_path_factory: pytest.TempPathFactory) -> None:
        assert same_files(made, self.make(tmp_path_factory))

    def test_the_finished_artefact_is_asked_again_and_orders_to_the_bit(self, made: Artefact) -> None:
        again = toy_next.asked_again(made, toy_next.circles().queries)
        assert again.equals(made.table("rankings").filter(variant="default").select(again.columns))

    def test_a_user_is_asked_with_all_that_ever_happened(self, made: Artefact) -> None:
        events = toy_next.circles().events.sort("user", "at")
        whole = events.group_by("user", maintain_order=True).agg(history="item")
        queries = toy_next.circles().part("test").drop("history").join(whole, on="user")
        found = toy_next.asked_again(made, queries.select(toy_next.circles().queries.columns))
        longest = queries["history"].list.len().max()
        assert longest == toy_next.STEPS  # one more than any query of the split holds
        masked = found.filter(pl.col("score").is_null()).join(events, on=["user", "item"], how="semi")
        assert masked.height == events.select("user", "item").unique().height
        scored = found.filter(pl.col("score").is_not_null(), pl.col("user") < toy_next.LEARNT)
        assert scored.height == toy_next.LEARNT * (toy_next.CIRCLE - toy_next.STEPS)

    def test_another_seed_gives_other_scores_where_there_is_chance(
        self, made: Artefact, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = self.make(tmp_path_factory, seed=2).table("rankings")["score"].to_list()
        assert (other != made.table("rankings")["score"].to_list()) == self.stage.seeded


class VectorContract:
    """Facts of models of the next_item track that export vectors of this width; beside `RankerContract`."""

    width: ClassVar[int]

    def test_every_id_has_a_vector_and_the_cold_ones_the_mean(self, made: Artefact) -> None:
        for entity, known in (("user", toy_next.LEARNT), ("item", toy_next.CIRCLE)):
            rows = made.table(f"{entity}_vectors").sort(entity)
            vectors = np.array(rows["vector"].to_list(), dtype=np.float64)
            assert vectors.shape[1] == self.width
            assert rows["trained"].to_list() == [place < known for place in range(rows.height)]
            assert np.allclose(vectors[known:], vectors[:known].mean(0), atol=1e-6)
            assert made.tensors("vectors")[f"{entity}s"].numpy() == pytest.approx(vectors)


class ResumeContract:
    """A killed fit of the shared loop goes on from its checkpoint; beside `RankerContract`."""

    stage: ClassVar[Stage]
    settings: ClassVar[Mapping[str, Any]]

    @pytest.mark.parametrize("killed_after", [2, 7])
    def test_a_killed_fit_goes_on_to_the_same_bits(
        self, made: Artefact, killed_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = toy_next.spec_of(self.stage, toy_next.store_with(toy_next.circles(), tmp_path), **self.settings)
        with monkeypatch.context() as patched:
            patched.setattr(pairs.Saving, "__init__", eager(pairs.Saving))
            patched.setattr(pairs, "advance", killing(pairs.advance, killed_after))
            with pytest.raises(StageFailed, match="killed"):
                run(spec)
        (checkpoint,) = tmp_path.rglob("checkpoints/*.safetensors")
        epochs: list[int] = []
        plain = pairs.descend
        monkeypatch.setattr(pairs, "descend", lambda *given: (epochs.append(given[-1]), plain(*given))[1])
        assert same_files(run(spec)[0], made)
        assert epochs[0] == killed_after - 1
        assert not checkpoint.exists()


class EncoderContract:
    """Facts of every collaborative model of the ctr track that gives vectors, on a planted taste.

    The last user and the last item of `toy_pairs.taste` are in test only. width: numbers of a vector.
    """

    stage: ClassVar[Stage]
    settings: ClassVar[Mapping[str, Any]]
    width: ClassVar[int]

    @staticmethod
    def usual_user(encoded: Encoded, examples: pl.DataFrame, made: Artefact) -> Any:
        """What a user without training rows has at the end of their vector: here the mean of the others."""
        return encoded.user[labelled.known(examples).users].mean(0)

    @pytest.fixture(scope="class")
    @classmethod
    def examples(cls) -> pl.DataFrame:
        return toy_pairs.remembered(toy_pairs.taste())

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, examples: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
        return toy_pairs.make(cls.stage, examples, tmp_path_factory.mktemp("encoder"), **cls.settings)

    def test_every_setting_is_described_and_has_a_default(self) -> None:
        for name, field in self.stage.settings.model_fields.items():
            assert field.description, name
            assert not field.is_required(), name

    def test_it_stands_on_the_ctr_board_and_all_checks_pass(self, made: Artefact) -> None:
        assert (self.stage.track, self.stage.predicts, self.stage.seeded) == ("ctr", "pairs", True)
        assert "every_example_has_vectors" in made.manifest["checks"]
        assert failed(made) == {}

    def test_each_held_out_row_is_scored_once_and_finite(self, made: Artefact, examples: pl.DataFrame) -> None:
        pairs = made.table("pairs")
        assert pairs.select(KEYS).equals(examples.filter(pl.col("part") != "train").select(KEYS))
        assert pairs["score"].is_finite().all()
        assert pairs["probability"].is_between(0, 1).all()

    def test_the_planted_taste_is_found(self, made: Artefact) -> None:
        warm = made.table("pairs").filter(pl.col("user") < 29, pl.col("item") < 23, part="test")
        assert auc(warm["label"], warm["score"]) > 0.85

    def test_every_example_and_item_has_a_finite_vector(self, made: Artefact, examples: pl.DataFrame) -> None:
        encoded = vectors_of(made)
        assert encoded.user_of_row.dtype == np.int64
        assert len(encoded.user_of_row) == examples.height
        assert encoded.user[encoded.user_of_row].shape == (examples.height, self.width)
        assert encoded.item.shape == (24, self.width)
        for vectors in encoded[:2]:
            assert vectors.dtype == np.float32
            assert np.isfinite(vectors).all()
        assert np.unique(encoded.user_of_row).tolist() == list(range(len(encoded.user)))

    def test_the_cold_have_the_mean(self, made: Artefact, examples: pl.DataFrame) -> None:
        encoded = vectors_of(made)
        assert encoded.item[23] == pytest.approx(encoded.item[:23].mean(0), abs=1e-6)
        usual = self.usual_user(encoded, examples, made)
        cold = encoded.user[encoded.user_of_row[(examples["user"] == 29).to_numpy()]]
        assert cold[:, -len(usual) :] == pytest.approx(np.tile(usual, (4, 1)), abs=1e-6)

    def test_another_seed_gives_other_vectors(
        self, made: Artefact, examples: pl.DataFrame, tmp_path: Path
    ) -> None:
        other = toy_pairs.make(self.stage, examples, tmp_path, seed=2, **self.settings)
        assert not np.array_equal(vectors_of(other).item, vectors_of(made).item)

    def test_test_labels_change_nothing(self, made: Artefact, examples: pl.DataFrame, tmp_path: Path) -> None:
        other = toy_pairs.flipped(examples, pl.col("part") == "test")
        same = toy_pairs.make(self.stage, other, tmp_path, **self.settings)
        assert (
            toy_pairs.files_of(same)["vectors.safetensors"] == toy_pairs.files_of(made)["vectors.safetensors"]
        )
        assert same.table("pairs")["score"].equals(made.table("pairs")["score"])

    def test_vectors_move_with_the_labels_of_train(
        self, made: Artefact, examples: pl.DataFrame, tmp_path: Path
    ) -> None:
        other = toy_pairs.flipped(examples, (pl.col("part") == "train") & (pl.col("user") < 3))
        moved = toy_pairs.make(self.stage, toy_pairs.remembered(other), tmp_path, **self.settings)
        for one, then in zip(vectors_of(moved)[:2], vectors_of(made)[:2], strict=True):
            assert one.shape != then.shape or not np.allclose(one, then, atol=1e-3)

    @pytest.mark.parametrize("killed_after", [2, 5])
    def test_a_killed_fit_goes_on_to_the_same_bits(
        self,
        made: Artefact,
        examples: pl.DataFrame,
        killed_after: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        spec = toy_pairs.spec_of(self.stage, toy_pairs.store_with(examples, tmp_path), **self.settings)
        with monkeypatch.context() as patched:
            patched.setattr(pairs.Saving, "__init__", eager(pairs.Saving))
            patched.setattr(pairs, "advance", killing(pairs.advance, killed_after))
            with pytest.raises(StageFailed, match="killed"):
                run(spec)
        epochs: list[int] = []
        plain = pairs.descend
        monkeypatch.setattr(pairs, "descend", lambda *given: (epochs.append(given[-1]), plain(*given))[1])
        assert same_files(run(spec)[0], made)
        assert epochs[0] == killed_after - 1


def eager(saving: Any) -> Any:
    """An initialiser that writes a checkpoint after every epoch."""
    plain = saving.__init__
    return lambda self, file: plain(self, file, 0)


def killing(advance: Callable[..., bool], after: int) -> Callable[..., bool]:
    """`advance` that raises at its n-th call, before the epoch is recorded."""
    calls = iter(range(1, after + 1))

    def instead(*given: Any) -> bool:
        if next(calls) == after:
            raise KeyError("killed")
        return advance(*given)

    return instead


def same_files(one: Artefact, other: Artefact) -> bool:
    """Whether two artefacts hold the same bits."""
    hashes: list[Any] = [{name: f["sha256"] for name, f in a.manifest["files"].items()} for a in (one, other)]
    return hashes[0] == hashes[1]
