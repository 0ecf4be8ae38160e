"""A small graph of stages that tests run for real: numbers -> doubled [seeded] -> guess/scores -> board."""

import json
import os
import time
from pathlib import Path

import polars as pl
from pydantic import Field

from pipeline.graph import Graph
from pipeline.schema import Codes, Pairs
from pipeline.stage import Check, Every, Settings, Verdict, stage
from pipeline.store import write_atomic
from pipeline.study import Study


class Numbers(Settings):
    count: int = Field(3, description="how many")
    file: str | None = Field(None, description="a file whose content counts")


class Doubled(Settings):
    times: int = Field(2, description="factor")
    steps: int = Field(4, description="checkpoints on the way")
    pause: float = Field(0.0, description="seconds a step")


class Scores(Settings):
    shift: float = Field(0.5, description="added to each score")
    word: str = Field("item", description="word of the study")


class Board(Settings):
    title: str = Field("board", description="printed")


def some_rows(draft, inputs, settings) -> Verdict:
    """There is at least one row."""
    rows = draft.read("codes").height
    return Verdict(rows > 0, f"{rows} rows", {"rows": rows})


def content(settings: Numbers, root: Path) -> dict[str, str]:
    return {"file": (root / settings.file).read_text()} if settings.file else {}


@stage(
    "numbers",
    settings=Numbers,
    section="data",
    version=1,
    tables={"codes": Codes},
    checks=(Check(some_rows),),
    outside=content,
)
def numbers(settings: Numbers, out) -> None:
    """Write some numbers."""
    ids = list(range(settings.count))
    bits = [format(i, "08b") for i in ids]
    out.table(
        "codes",
        pl.DataFrame(
            {"entity": "user", "id": ids, "bits": bits, "dotted": [str(i) for i in ids], "trained": True}
        ),
    )
    out.metric(count=settings.count)


@stage("doubled", settings=Doubled, section="models", version=1, inputs={"numbers": "numbers"}, seeded=True)
def doubled(numbers, settings: Doubled, out) -> None:
    """Multiply step by step, with a checkpoint after each."""
    saved = out.checkpoints / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "total": out.seed}
    while state["step"] < settings.steps:
        state = {"step": state["step"] + 1, "total": state["total"] * settings.times}
        write_atomic(saved, json.dumps(state))
        time.sleep(settings.pause)
    out.json("total", {"total": state["total"], "numbers": numbers.table("codes").height})
    out.measure(process=os.getpid())


@stage(
    "guess/scores",
    settings=Scores,
    section="methods",
    version=1,
    inputs={"doubled": "doubled"},
    tables={"pairs": Pairs},
    seeded=True,
    variants=("plain", "shuffled"),
    default_variants=("plain",),
    controls=("shuffled",),
    predicts="pairs",
    shared={"word": "words.item"},
)
def scores(doubled, settings: Scores, out) -> None:
    """Score two pairs."""
    total = float(doubled.json("total")["total"])
    out.table(
        "pairs",
        pl.DataFrame(
            {
                "track": "ctr",
                "method": "guess",
                "variant": out.variant,
                "seed": out.seed,
                "part": "test",
                "row": [0, 1],
                "user": [0, 0],
                "item": [0, 1],
                "label": [0, 1],
                "score": [total, total + settings.shift],
                "probability": None,
            }
        ),
    )


@stage("board", settings=Board, section="evaluate", version=1, inputs={"predictions": Every("pairs")})
def board(predictions, settings: Board, out) -> None:
    """Count predictions."""
    out.metric(predictions=len(predictions))


STAGES = (numbers, doubled, scores, board)
GRAPH = Graph(STAGES)


def study(**sections) -> Study:
    """A study of the toy graph, the method switched on unless told otherwise."""
    return Study(**{"name": "toy", "title": "Toy", "methods": {"guess": {}}, **sections})
