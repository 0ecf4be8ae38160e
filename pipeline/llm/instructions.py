"""Instruction tuning before a ranker's own: TALLRec's first stage, on a set that the study names.

    instructions (JSON lines) -> Alpaca's two prompts -> low-rank weights that a ranker's tuning goes on from

Bao et al., RecSys 2023, https://arxiv.org/abs/2305.00447, section 3.1: Alpaca's 52,000 self-instructed
examples. Those are not for commercial use, so no set comes by default: without `location` nothing is tuned
here, the artefact says so, and rankers start from the model as it is.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from pipeline.data.sources import Location, SourceError, cache, fetch, find_local, hashes, scheme
from pipeline.llm.adapt import run_tuning
from pipeline.llm.ask import model_folder
from pipeline.llm.load import encode, end_id, load_tokenizer
from pipeline.llm.settings import Tuning
from pipeline.schema import Curve, empty
from pipeline.stage import Artefact, Check, Draft, Input, Verdict, stage

HEAD = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}\n\n"
)
PAIRED = ", paired with an input that provides further context"
VALID_EVERY = 20  # every twentieth example is held out, to choose the step


class InstructionTuning(Tuning):
    location: Location | None = Field(
        None,
        description="JSON lines (or one JSON list) of instruction, input and output: a path from the project's "
        "root, https:... or hf:...; null: no instruction tuning",
    )
    sha256: str | None = Field(
        None, description="hash of the file; needed for https, and for hf without a commit"
    )
    examples: int | None = Field(None, ge=2, description="examples taken from its beginning; null for all")
    max_tokens: int = Field(512, ge=16, description="longer examples are left out, and counted")


class Text(NamedTuple):
    """Ids of a prompt and of what should follow it."""

    prompt: Sequence[int]
    ending: Sequence[int]


class Example(NamedTuple):
    """One instruction in Alpaca's form, and its answer."""

    prompt: str
    answer: str


def read(file: Path) -> Iterator[Example]:
    """The examples of a file. Raises SourceError, with the example's number, for one without what it needs."""
    text = file.read_text(encoding="utf-8")
    try:
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else map(json.loads, filter(str.strip, text.splitlines()))
        )
        for number, row in enumerate(rows, 1):
            yield written(row, number, file.name)
    except json.JSONDecodeError as error:
        raise SourceError(f"{file.name}: not JSON: {error}") from error


def written(row: Any, number: int, name: str) -> Example:
    """Alpaca's prompt of one example, with or without an input."""
    if not isinstance(row, dict) or not row.get("instruction") or not row.get("output"):
        raise SourceError(f"{name}: example {number} has no instruction or no output")
    given = row.get("input") or ""
    head = HEAD.format(paired=PAIRED if given else "", instruction=row["instruction"])
    return Example(head + (f"### Input:\n{given}\n\n" if given else "") + "### Response:\n", row["output"])


def outside(settings: InstructionTuning, root: Path) -> Mapping[str, Any]:
    """The hash of a local file: it belongs to the artefact's identity."""
    if settings.location is None or scheme(settings.location)[0]:
        return {}
    file = find_local(settings.location, root)
    return {file.name: hashes([file], cache(root))[file]}


def fits_its_set(draft: Draft, inputs: Mapping[str, Input], settings: InstructionTuning) -> Verdict:
    """Tuning lowers the loss on held-out instructions; nothing is tuned where the study names no set."""
    if settings.location is None:
        return Verdict(True, "skipped: no instruction set is named (models.instructions.location)")
    losses = draft.read("curve").filter(metric="valid_loss")["value"].to_list()
    return Verdict(min(losses) < losses[0], f"held-out loss {losses[0]:.3f} -> {min(losses):.3f}")


@stage(
    "instructions",
    settings=InstructionTuning,
    section="models",
    version=2,
    inputs={"language_model": "language_model"},
    tables={"curve": Curve},
    checks=(Check(fits_its_set, blocking=False),),
    seeded=True,
    needs="gpu",
    outside=outside,
)
def instructions(language_model: Artefact, settings: InstructionTuning, out: Draft) -> None:
    """Low-rank weights tuned to follow instructions, for rankers to go on from; none where no set is named."""
    if settings.location is None:
        out.table("curve", empty(Curve))
        out.metric(examples=0)
        return
    from pipeline.llm.tasks import Written, judged_by_likelihood

    found, left_out = read_texts(settings, model_folder(language_model), out.root)
    train, valid = (
        [text for i, text in enumerate(found) if (i % VALID_EVERY == 0) == held_out]
        for held_out in (False, True)
    )
    judge = judged_by_likelihood(*parts_of(valid), settings.batch_tokens)
    task = Written(*parts_of(train), judge, "likelihood")
    run_tuning(task, None, language_model, None, settings, out)
    out.metric(examples=len(train), held_out=len(valid), too_long=left_out)


def read_texts(settings: InstructionTuning, folder: Path, root: Path) -> tuple[list[Text], int]:
    """Ids of each example's prompt and of its answer with the closing token, and how many were too long."""
    assert settings.location is not None
    file = fetch(settings.location, settings.sha256, cache(root), root)
    examples = list(read(file))[: settings.examples]
    tokenizer, end = load_tokenizer(folder), end_id(folder)
    close = [] if end is None else [end]
    prompts = encode(tokenizer, [one.prompt for one in examples])
    wholes = encode(tokenizer, [one.prompt + one.answer for one in examples])
    texts = [Text(p, [*whole[len(p) :], *close]) for p, whole in zip(prompts, wholes, strict=True)]
    kept = [text for text in texts if len(text.prompt) + len(text.ending) <= settings.max_tokens]
    return kept, len(texts) - len(kept)


def parts_of(texts: Sequence[Text]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """All prompts, and all endings."""
    return [text.prompt for text in texts], [text.ending for text in texts]
