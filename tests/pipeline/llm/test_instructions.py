"""Instruction tuning: what a set says, that nothing happens without one, and that rankers go on from it."""

import json
from pathlib import Path

import pytest

from pipeline.data.sources import SourceError
from pipeline.llm.instructions import Example, InstructionTuning, instructions, read
from pipeline.llm.tune import LORA_FILES
from tests import toy_ctr

ROWS = [
    {"instruction": "Name a film.", "input": "", "output": "Heat"},
    {"instruction": "Shorten.", "input": "A long text", "output": "A text"},
]
TASK = "### Instruction:\n"


def saved(folder: Path, text: str, name: str = "set.jsonl") -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", [json.dumps(ROWS), "\n".join(map(json.dumps, ROWS)) + "\n\n"])
def test_examples_are_alpacas_prompts(tmp_path: Path, text: str) -> None:
    bare, paired = read(saved(tmp_path, text))
    assert bare == Example(
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        f"request.\n\n{TASK}Name a film.\n\n### Response:\n",
        "Heat",
    )
    assert paired.prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        f"Write a response that appropriately completes the request.\n\n{TASK}Shorten.\n\n"
        "### Input:\nA long text\n\n### Response:\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"instruction": "a", "output": "b"}\n{"instruction": "a"}',
            "example 2 has no instruction or no output",
        ),
        ('["text"]', "example 1 has no"),
        ("{broken", "not JSON"),
    ],
)
def test_a_broken_set_names_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        list(read(saved(tmp_path, text)))


def made(folder: Path, settings: dict) -> dict:
    quick = {"steps": 2, "examples_per_step": 4, "evaluate_every": 2, "valid_rows": 20, "warm_up": 0}
    tallrec = {"variants": ["titles"], "prompts": {"train_rows": 20}, "adapter": {**quick, "steps": 0}}
    stages = ("instructions", "tallrec/prompts", "tallrec/adapter")
    return dict(toy_ctr.make(folder, stages, models={"instructions": settings}, methods={"tallrec": tallrec}))


def test_without_a_set_nothing_is_tuned_and_it_is_said(tmp_path: Path) -> None:
    artefact = made(tmp_path, {})["instructions"]["default"]
    assert not artefact.file(LORA_FILES[0]).exists()
    assert artefact.metrics["examples"] == 0
    assert artefact.manifest["checks"]["fits_its_set"]["description"].startswith("skipped: no instruction set")


def test_a_ranker_goes_on_from_the_instructed_weights(tmp_path: Path) -> None:
    rows = [{"instruction": "Say it", "output": "Yes Yes Yes No"}] * 60
    saved(tmp_path, "\n".join(map(json.dumps, rows)))
    how = {"location": "set.jsonl", "steps": 12, "evaluate_every": 4, "learning_rate": 1e-2, "warm_up": 0}
    found = made(tmp_path, {**how, "examples_per_step": 4, "max_tokens": 400})
    artefact, ranker = found["instructions"]["default"], found["tallrec/adapter"]["titles"]
    assert artefact.metrics["examples"] == 57
    assert artefact.metrics["held_out"] == 3
    assert artefact.metrics["best_step"] > 0
    assert artefact.manifest["checks"]["fits_its_set"]["passed"]
    assert ranker.file(LORA_FILES[0]).read_bytes() == artefact.file(LORA_FILES[0]).read_bytes()


def test_long_examples_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"instruction": "x", "output": "y" * (900 if i % 2 else 1)} for i in range(40)]
    saved(tmp_path, json.dumps(rows), "set.json")
    how = {"location": "set.json", "steps": 1, "evaluate_every": 1, "max_tokens": 400}
    metrics = made(tmp_path, how)["instructions"]["default"].metrics
    assert (metrics["examples"], metrics["held_out"], metrics["too_long"]) == (19, 1, 20)


def test_another_file_of_the_same_name_is_another_artefact(tmp_path: Path) -> None:
    settings = InstructionTuning(location="set.jsonl")
    assert instructions.outside is not None
    saved(tmp_path, "{}")
    before = instructions.outside(settings, tmp_path)
    saved(tmp_path, "{ }")
    assert instructions.outside(settings, tmp_path) != before
    assert instructions.outside(InstructionTuning(), tmp_path) == {}
