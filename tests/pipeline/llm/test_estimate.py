"""What is told before a run: sizes by hand, what moves them, and that what does not fit is refused unloaded."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage as stages
from pipeline.llm import estimate, load
from pipeline.llm.embed import LmEmbeddings
from pipeline.llm.estimate import Work, cannot_quantise, cures, foretell, memory, operations, shape_of, work_of
from pipeline.llm.few_shot import Shots
from pipeline.llm.instructions import InstructionTuning
from pipeline.llm.settings import Scoring, Tuning
from pipeline.machine import GIB, Forecast, Machine
from pipeline.methods.palr import Writing
from pipeline.stage import StageFailed
from pipeline.store import Store
from tests.toy_ctr import make

SMOL = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
}
SHAPE = shape_of(SMOL)
LONG = Work(longest=160, mean=140.0, tuned=10_000, judged=2_000, rows=100)
HERE = Machine(free=8 * GIB, workers=2)
GPU = Machine(free=80 * GIB, device="H100", accelerator=True)
MiB = 2**20


def total(settings: Any, work: Work = LONG, machine: Machine = HERE, shape=SHAPE) -> int:
    return sum(memory(settings, shape, work, machine).values())


# --- sizes -------------------------------------------------------------------------------------------------


def test_the_sizes_of_smollm2_are_counted_from_its_config() -> None:
    assert abs(SHAPE.parameters - 134_515_008) < 40_000  # norms are not counted
    assert (SHAPE.layers, SHAPE.width, SHAPE.kv, SHAPE.own) == (30, 576, 192, True)
    assert SHAPE.inner == SHAPE.parameters - 49152 * 576


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}, (12, 768, 3072, 768)),
        ({"d_model": 64, "n_layers": 3, "n_heads": 4, "vocab_size": 10}, (3, 64, 256, 64)),
        ({"hidden_size": 64, "n_layer": 3, "n_head": 4, "ffn_dim": 99, "vocab_size": 10}, (3, 64, 99, 64)),
    ],
)
def test_other_architectures_name_their_sizes_otherwise(config: dict, sizes: tuple[int, ...]) -> None:
    found = shape_of(config)
    assert (found.layers, found.width, found.middle, found.kv) == sizes
    assert not found.own


def test_gpt2_has_its_124_million_parameters() -> None:
    shape = shape_of({"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257})
    assert abs(shape.parameters / 124e6 - 1) < 0.02


def test_weights_by_hand() -> None:
    words, inner = 49152 * 576, SHAPE.inner
    assert memory(Scoring(), SHAPE, LONG, HERE)["weights"] == 4 * (words + inner) + 2 * inner
    few = Tuning(quantisation="8bit")
    assert memory(few, SHAPE, LONG, GPU)["weights"] == 4 * words + inner
    theirs = SHAPE._replace(own=False)
    assert memory(Scoring(), theirs, LONG, HERE)["weights"] == 4 * (words + inner)


def test_what_a_pass_keeps_by_hand() -> None:
    """Norms' inputs in float32, then numbers of two bytes."""
    shape = SHAPE._replace(layers=1, width=10, kv=4, heads=2, middle=20)
    layer = 2 * 4 * 10 + 2 * 2 * 10 + 2 * 2 * (10 + 2 * 4) + 2 * 2 * 160 + 3 * 2 * 20
    assert memory(Tuning(batch_tokens=512), shape, LONG, HERE)["passes"] == 2 * 512 * 2 * layer
    once = Tuning(batch_tokens=512, checkpointing=True)
    assert memory(once, shape, LONG, HERE)["passes"] == 2 * 512 * (4 * 10 + 2 * layer)


def test_the_loss_of_whole_texts_needs_logits() -> None:
    kinds = [Tuning(loss=loss, batch_tokens=512) for loss in ("difference", "lm_all")]
    sizes = [memory(kind, SHAPE, LONG, HERE)["logits"] for kind in kinds]
    assert sizes == [0, 2 * 512 * 3 * 4 * 49152]
    assert memory(InstructionTuning(location="a.jsonl"), SHAPE, LONG, HERE)["logits"] > 0


@given(st.integers(16, 4096), st.integers(1, 4096), st.integers(1, 8))
def test_more_to_read_at_once_never_takes_less(tokens: int, more: int, workers: int) -> None:
    machine = Machine(free=GIB, workers=workers)
    for kind in (Tuning, Scoring):
        less = total(kind(batch_tokens=tokens), machine=machine)
        assert total(kind(batch_tokens=tokens + more), machine=machine) >= less
        assert total(kind(batch_tokens=tokens, dtype="float32"), machine=machine) >= less
    assert total(Tuning(batch_tokens=tokens, checkpointing=True), machine=machine) < total(
        Tuning(batch_tokens=tokens), machine=machine
    )


def test_a_prompt_longer_than_the_budget_decides() -> None:
    long = LONG._replace(longest=4000)
    assert total(Tuning(batch_tokens=16), long) == total(Tuning(batch_tokens=4000), long)


# --- work and time -----------------------------------------------------------------------------------------


def prompts(**metrics: Any) -> Any:
    told = {"longest_prompt": 160, "mean_tokens": 100.0, "train_rows": 64, "valid_rows": 20, "test_rows": 30}
    return SimpleNamespace(metrics={**told, **metrics}, settings={"max_tokens": 512})


def test_tokens_of_each_kind_of_stage() -> None:
    tuning = Tuning(epochs=2, examples_per_step=8, evaluate_every=4, valid_rows=10)
    found = work_of(tuning, prompts())  # 16 steps of 8, looks at 0, 4, 8, 12, 16
    assert (found.tuned, found.judged) == (16 * 8 * 100, 5 * 10 * 100)
    assert work_of(Scoring(), prompts())[2:4] == (0, 50 * 100)
    shots = Shots(shots=(8, 16), epochs=1, examples_per_step=8, evaluate_every=3, valid_rows=10)
    assert work_of(shots, prompts())[2:4] == (3 * 8 * 100, (2 * 10 + 2 * 50) * 100)
    assert work_of(Writing(max_new=40), prompts())[:4] == (200, 100.0, 0, 0)
    lists = SimpleNamespace(metrics={"mean_tokens": 10.0, "learn_rows": 6, "ask_rows": 4}, settings={})
    assert work_of(Tuning(examples_per_step=2), lists)[2:] == (60, 0, 10)
    assert work_of(LmEmbeddings(max_tokens=99), None) == Work(99, 0, 0, 0, 0)


def test_operations_by_hand() -> None:
    assert operations(Tuning(), SHAPE, LONG) == SHAPE.inner * (4 * 10_000 + 2 * 2_000)
    assert operations(Tuning(checkpointing=True), SHAPE, LONG) == SHAPE.inner * (6 * 10_000 + 2 * 2_000)
    assert operations(Scoring(), SHAPE, LONG._replace(tuned=0)) == SHAPE.inner * 2 * 2_000


def artefact(store: Path, stage: str, name: str, **facts: Any) -> Path:
    """A finished artefact with nothing in it but its manifest."""
    folder = store / "artefacts" / stage / name
    folder.mkdir(parents=True)
    base = {"stage": stage, "fingerprint": name, "files": {}, "metrics": {}, "settings": {}, "made_from": []}
    (folder / "manifest.json").write_text(json.dumps({**base, "measured": {}, **facts}))
    return folder


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A store in which 1,000 tokens were scored in 4 s, and 100 tuned in 10 s."""
    model = artefact(tmp_path, "language_model", "m", metrics={"parameters": SHAPE.parameters})
    (model / "model").mkdir()
    (model / "model/config.json").write_text(json.dumps(SMOL))
    source = [{"stage": "language_model", "fingerprint": "m"}]
    measured = {"device": "cpu", "attention": "own", "seconds": 4.0, "threads": 2}
    facts = {"metrics": {"tokens_seen": 1000}, "settings": {"batch_tokens": 512}}
    artefact(tmp_path, "a/predictions", "p", measured=measured, made_from=source, **facts)
    how = {"batch_tokens": 512, "rank": 8, "examples_per_step": 5, "valid_rows": 10, "evaluate_every": 1}
    tuned = {"metrics": {"tokens_seen": 100, "steps": 2}, "settings": how}
    artefact(tmp_path, "a/adapter", "t", measured={**measured, "seconds": 10.0}, made_from=source, **tuned)
    return tmp_path


def test_the_pace_is_that_of_earlier_runs_of_the_same_kind(ran: Path) -> None:
    store = Store(ran)
    assert estimate.pace_of(Scoring(), store, HERE) == (SHAPE.inner * 2 * 1000 / 4, "1 earlier runs here")
    tuning = SHAPE.inner * (4 * 100 + 2 * 10 * 10 * 3) / 10
    assert estimate.pace_of(Tuning(), store, HERE) == (tuning, "1 earlier runs here")
    assert estimate.pace_of(Scoring(), store, GPU) is None  # ran elsewhere
    alone = Machine(free=1, workers=1)
    assert estimate.pace_of(Scoring(), store, alone) == (SHAPE.inner * 2 * 1000 / 8, "1 earlier runs here")


def test_seconds_come_from_the_pace_and_else_from_a_timed_product(ran: Path, tmp_path: Path) -> None:
    inputs = {"language_model": Store(ran).find("language_model", "m"), "prompts": prompts()}
    found = foretell(Scoring(), inputs, HERE, ran)
    assert found is not None
    assert found.seconds == pytest.approx(4 * 50 * 100 / 1000)
    assert found.measures()["expected_seconds"] == 20.0
    elsewhere = foretell(Scoring(), inputs, HERE, tmp_path / "empty")
    assert elsewhere is not None
    assert elsewhere.paced_by == "a timed product, roughly"
    assert elsewhere.seconds is not None
    assert elsewhere.seconds > 0


def test_nothing_is_told_of_a_model_that_is_not_there_or_not_asked(ran: Path) -> None:
    inputs = {"language_model": Store(ran).find("language_model", "m")}
    assert foretell(Tuning(), {}, HERE, ran) is None
    assert foretell(Shots(), inputs, HERE, ran) == Forecast(0, seconds=0.0)
    assert foretell(InstructionTuning(), inputs, HERE, ran) == Forecast(0, seconds=0.0)
    without_prompts = foretell(Tuning(), inputs, HERE, ran)
    assert without_prompts is not None
    assert without_prompts.seconds is None
    assert without_prompts.memory > 500 * MiB


def test_libraries_count_where_they_are_not_loaded_yet(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"language_model": Store(ran).find("language_model", "m")}
    sizes = []
    for loaded in (False, True):
        monkeypatch.delitem(sys.modules, "peft", raising=False)
        if loaded:
            monkeypatch.setitem(sys.modules, "peft", ModuleType("peft"))
        found = foretell(Tuning(), inputs, HERE, ran)
        assert found is not None
        sizes.append((found.memory, *found.cures.values()))
    assert {one - other for one, other in zip(*sizes, strict=True)} == {estimate.LIBRARIES}


# --- what does not fit -------------------------------------------------------------------------------------


def test_the_refusal_names_what_takes_less() -> None:
    found = cures(Tuning(batch_tokens=1024), SHAPE, LONG, HERE)
    assert list(found) == ["batch_tokens: 512", "checkpointing: true"]
    assert all(less < total(Tuning(batch_tokens=1024)) for less in found.values())
    assert "dtype: bfloat16" in cures(Tuning(), SHAPE, LONG, Machine(free=1, native=False))
    assert "quantisation: 4bit" in cures(Tuning(batch_tokens=512), SHAPE, LONG, GPU)
    forecast = Forecast(3 * GIB, {"weights": 2 * GIB, "passes": GIB, "crumbs": 9}, cures={"rank: 1": GIB})
    assert forecast.too_much(Machine(free=3 * GIB)) == ""
    assert forecast.too_much(Machine(free=2 * GIB)) == (
        "about 3.0 GiB will be needed (weights 2.0 GiB, passes 1.0 GiB), and 2.0 GiB are free of memory. What "
        "takes less: `rank: 1` takes 1.0 GiB. To start all the same: budget.fit: try"
    )


def tiny_run(folder: Path, **sections: Any) -> Mapping[str, Any]:
    small = {"prompts": {"train_rows": 8}, "adapter": {"steps": 1, "valid_rows": 4}, "variants": ["titles"]}
    return make(folder, ("tallrec/adapter",), methods={"tallrec": small}, **sections)


def test_a_stage_that_does_not_fit_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "this_machine", lambda: Machine(free=100_000))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.llm.adapt.load_model", lambda *_, **__: pytest.fail("loaded"))
        with pytest.raises(StageFailed, match=r"^studies/toy.yaml: methods.tallrec.adapter: about .*point"):
            tiny_run(tmp_path)
    tried = tiny_run(tmp_path, budget={"fit": "try"})["tallrec/adapter"]["titles"]
    assert tried.measured["expected_memory_mb"] > 0.1
    assert tried.measured["expected_seconds"] is not None
    assert tried.measured["memory_before_mb"] <= tried.measured["peak_memory_mb"]


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_few_bits_are_refused_where_they_cannot_be(bits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "find_spec", lambda name: None)
    assert cannot_quantise("none", HERE) == ""
    assert Scoring().unfit(HERE) == ""
    assert Tuning(quantisation=bits).unfit(HERE) == (
        f"quantisation: {bits} needs what is not here: an NVIDIA accelerator, bitsandbytes; "
        "`none` runs everywhere"
    )
    assert "accelerator" not in Tuning(quantisation=bits).unfit(GPU)
    monkeypatch.setattr(estimate, "find_spec", lambda name: SimpleNamespace())
    assert Tuning(quantisation=bits).unfit(GPU) == ""


def test_a_stage_with_few_bits_is_refused_before_it_starts(tmp_path: Path) -> None:
    small = {"adapter": {"quantisation": "4bit"}, "variants": ["titles"], "prompts": {"train_rows": 8}}
    with pytest.raises(StageFailed, match=r"tallrec.adapter: quantisation: 4bit needs what is not here"):
        make(tmp_path, ("tallrec/adapter",), methods={"tallrec": small})


def test_what_transformers_is_told_of_few_bits() -> None:
    assert load.in_few_bits("none") == {}
    four, eight = load.in_few_bits("4bit"), load.in_few_bits("8bit")
    assert four["quantization_config"].load_in_4bit
    assert four["quantization_config"].bnb_4bit_quant_type == "nf4"
    assert eight["quantization_config"].load_in_8bit
    assert eight["device_map"] == {"": 0}
