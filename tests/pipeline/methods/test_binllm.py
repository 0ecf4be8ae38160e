"""BinLLM: what its prompts say, where its tuning starts, and that codes teach a model what text cannot."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import polars as pl
import pytest

from pipeline.evaluate.pointwise import auc
from pipeline.llm import controls
from pipeline.methods import binllm
from pipeline.stage import Artefact
from tests import toy_ctr
from tests.contracts import MethodContract, PromptContract, ScorerContract, same_files

QUICK = {"steps": 3, "examples_per_step": 4, "evaluate_every": 3, "valid_rows": 20, "warm_up": 0}
LEARNING = {**QUICK, "steps": 12, "evaluate_every": 2, "learning_rate": 2e-2}
TINY = {
    "binllm": {"variants": list(binllm.prompts.variants), "prompts": {"train_rows": 40}, "adapter": QUICK},
    "tallrec": {"variants": ["titles"], "prompts": {"train_rows": 40}, "adapter": LEARNING},
}
STAGES = ("binllm/prompts", "binllm/adapter", "binllm/predictions", "tallrec/prompts", "tallrec/adapter")
Made = Mapping[str, Mapping[str, Artefact]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return toy_ctr.make(
        tmp_path_factory.mktemp("binllm"), STAGES, data={"dataset": {"telling": True}}, methods=TINY
    )


@pytest.fixture(scope="module")
def examples(made: Made) -> pl.DataFrame:
    return made["ctr/split"]["default"].table("examples")


@pytest.fixture(scope="module")
def prompted(made: Made) -> Mapping[str, Artefact]:
    return made["binllm/prompts"]


@pytest.fixture(scope="module")
def scored(made: Made) -> Mapping[str, Artefact]:
    return made["binllm/predictions"]


class TestBinllm(MethodContract, PromptContract, ScorerContract):
    stages: ClassVar = (binllm.prompts, binllm.adapter, binllm.predictions)


def prompt(prompted: Mapping[str, Artefact], variant: str, row: int = 479) -> str:
    return prompted[variant].table("prompts").filter(row=row)["prompt"].item()


def test_the_full_prompt_is_the_papers(prompted: Mapping[str, Artefact], examples: pl.DataFrame) -> None:
    asked = examples.filter(row=479).row(0, named=True)
    liked = [i for i, y in zip(asked["history"], asked["history_labels"], strict=True) if y][-10:]
    titles = ", ".join(f'"Film {i} (19{i:02})"' for i in liked) or "unknown"
    user, item = asked["user"], asked["item"]
    assert prompt(prompted, "dotted") == (
        f"#Question: A user has given high ratings to the following films: {titles}. Additionally, we have "
        "information about the user's preferences encoded in the feature "
        f"{user // 2 % 2}.{user % 2}. Using all available information, make a prediction about whether the "
        f'user would enjoy the film titled "Film {item} (19{item:02})" with the feature '
        f"{item // 2 % 2}.{item % 2}? "
        'Answer with "Yes" or "No". \n#Answer:'
    )
    assert prompt(prompted, "one_step") == prompt(prompted, "dotted")


def test_bits_are_written_as_bits(prompted: Mapping[str, Artefact], examples: pl.DataFrame) -> None:
    user = examples.filter(row=479)["user"].item()
    assert f"encoded in the feature {user // 2 % 2:04b}000{user % 2}. Using" in prompt(prompted, "bits")


def test_codes_only_tells_no_title_and_without_codes_no_code(prompted: Mapping[str, Artefact]) -> None:
    assert "Film" not in prompt(prompted, "codes_only")
    assert "feature" in prompt(prompted, "codes_only")
    assert "feature" not in prompt(prompted, "without_codes")


def test_without_codes_asks_what_the_first_step_asked(made: Made) -> None:
    first, control = made["tallrec/prompts"]["titles"], made["binllm/prompts"]["without_codes"]
    assert first.table("prompts").equals(control.table("prompts"))


def test_the_prompt_moves_when_a_code_moves(prompted: Mapping[str, Artefact]) -> None:
    plain, shuffled = (prompted[v].table("prompts")["prompt"] for v in ("dotted", "shuffled_codes"))
    assert (plain != shuffled).mean() > 0.5


CODES = pl.DataFrame(
    {
        "entity": ["user"] * 3 + ["item"] * 2,
        "id": [2, 0, 1, 0, 1],
        "bits": ["00000010", "00000000", "00000001", "00000111", "00001000"],
        "dotted": ["2", "0", "1", "7", "8"],
    }
)


def slots(users: list[int], items: list[int], variant: str) -> dict[str, list[str]]:
    asked = pl.DataFrame({"user": users, "item": items})
    return {name: codes.to_list() for name, codes in binllm.code_slots(asked, CODES, variant, 1).items()}


def test_codes_are_looked_up_by_user_and_item() -> None:
    assert slots([2, 0, 2], [1, 1, 0], "dotted") == {"user_code": ["2", "0", "2"], "item_code": ["8", "8", "7"]}
    assert slots([2, 0, 2], [1, 1, 0], "bits")["item_code"] == ["00001000", "00001000", "00000111"]


def test_a_user_without_a_code_is_named() -> None:
    with pytest.raises(ValueError, match="1 of the examples' users have no code, 5 among them"):
        slots([5, 0], [0, 0], "dotted")


def test_shuffled_codes_are_the_same_codes_of_others() -> None:
    plain, shuffled = (binllm.spell(CODES, "user", variant, 3) for variant in ("dotted", "shuffled_codes"))
    assert plain["id"].to_list() == shuffled["id"].to_list() == [0, 1, 2]
    assert sorted(plain["code"]) == sorted(shuffled["code"])
    assert (plain["code"] != shuffled["code"]).all()
    assert shuffled.equals(binllm.spell(CODES, "user", "shuffled_codes", 3))


def test_shuffled_codes_are_other_codes_even_where_several_share_one() -> None:
    dotted = ["9"] * 4 + ["1", "2", "3", "4"]
    cold = pl.DataFrame({"entity": "user", "id": range(8), "bits": "0", "dotted": dotted})
    plain, shuffled = (binllm.spell(cold, "user", variant, 3) for variant in ("dotted", "shuffled_codes"))
    assert sorted(plain["code"]) == sorted(shuffled["code"])
    assert (plain["code"] != shuffled["code"]).all()


def test_the_control_tells_how_many_codes_it_changed(made: Made) -> None:
    told = made["binllm/prompts"]["shuffled_codes"]
    changed = {name: share for name, share in told.metrics.items() if name.endswith("share_changed")}
    assert changed == {
        f"{what}share_changed": 1.0 for what in ("", "train_", "valid_", "test_", "user_code_", "item_code_")
    }
    assert told.manifest["checks"]["prompts_really_change"]["passed"]
    assert "share_changed" not in made["binllm/prompts"]["dotted"].metrics


def test_a_shuffle_of_codes_that_are_all_alike_is_told(made: Made, examples: pl.DataFrame) -> None:
    own_code = pl.when(entity="item").then("dotted")
    alike = (
        made["binary_codes"]["default"].table("codes").with_columns(dotted=own_code.otherwise(pl.lit("0.1")))
    )
    own, shuffled = (binllm.code_slots(examples, alike, v, 1) for v in ("dotted", "shuffled_codes"))
    shares = controls.slot_shares_changed(shuffled, own)
    assert shares == {"user_code_share_changed": 0.0, "item_code_share_changed": 1.0}
    draft = SimpleNamespace(metrics=shares)
    assert not controls.prompts_really_change(draft, {}, None).passed  # type: ignore[arg-type]


def test_two_step_variants_start_from_the_first_steps_weights(made: Made, tmp_path: Path) -> None:
    from pipeline.llm.tune import read_adapter

    start = read_adapter(made["tallrec/adapter"]["titles"].path)
    assert any(weight.any() for name, weight in start.items() if "lora_B" in name)
    no_steps = {**TINY, "binllm": {**TINY["binllm"], "adapter": {**QUICK, "steps": 0}}}
    still = toy_ctr.make(tmp_path, STAGES, data={"dataset": {"telling": True}}, methods=no_steps)[
        "binllm/adapter"
    ]
    for variant, artefact in still.items():
        same = all(weight.equal(start[name]) for name, weight in read_adapter(artefact.path).items())
        assert same == (variant not in binllm.RANKER.from_scratch), variant


def test_the_control_takes_as_many_steps_on_the_same_rows(made: Made) -> None:
    steps = {v: (a.metrics["steps"], a.metrics["train_rows"]) for v, a in made["binllm/adapter"].items()}
    assert set(steps.values()) == {(3, 40)}


def test_the_same_study_makes_the_same_bits(made: Made, tmp_path: Path) -> None:
    one = {**TINY, "binllm": {**TINY["binllm"], "variants": ["dotted"]}}
    again = toy_ctr.make(tmp_path, STAGES, data={"dataset": {"telling": True}}, methods=one)
    for stage in STAGES:
        for variant, artefact in again[stage].items():
            assert same_files(artefact, made[stage][variant]), (stage, variant)


def test_codes_teach_what_text_cannot(tmp_path: Path) -> None:
    """Yes where both bits are set, and all titles alike: only the codes know."""
    tuning = {
        "steps": 40,
        "examples_per_step": 16,
        "evaluate_every": 20,
        "valid_rows": None,
        "learning_rate": 1e-2,
        "dropout": 0.0,
        "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "batch_tokens": 4096,
        "dtype": "float32",
    }
    quick = {**tuning, "steps": 10}
    plain = {"history": 0, "train_rows": None}
    methods = {
        "binllm": {"variants": ["dotted", "without_codes"], "prompts": plain, "adapter": tuning},
        "tallrec": {"variants": ["titles"], "prompts": plain, "adapter": quick},
    }
    made = toy_ctr.make(tmp_path, STAGES, methods=methods)["binllm/predictions"]
    found = {v: a.table("pairs").filter(part="test") for v, a in made.items()}
    areas = {v: auc(pairs["label"], pairs["score"]) for v, pairs in found.items()}
    assert areas["dotted"] > 0.99
    assert areas["without_codes"] == pytest.approx(0.5, abs=0.1)  # on as few test rows as these
