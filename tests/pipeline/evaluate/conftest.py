"""Artefacts and drafts made by hand, without a store or a run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from pipeline.schema import Pairs, empty
from pipeline.stage import Artefact, Draft, Spec, Stage, Verdict

MakeArtefact = Callable[..., Artefact]
MakeDraft = Callable[[Stage], Draft]


@pytest.fixture
def artefact(tmp_path: Path) -> MakeArtefact:
    """Write tables as one artefact: `artefact(pairs=frame, section="methods", controls=["shuffled"])`."""
    made = 0

    def make(
        section: str = "models",
        controls: tuple[str, ...] = (),
        control_of: Mapping[str, list[str]] | None = None,
        **tables: pl.DataFrame,
    ) -> Artefact:
        nonlocal made
        made += 1
        folder = tmp_path / f"artefact-{made}"
        folder.mkdir()
        for name, table in tables.items():
            table.write_parquet(folder / f"{name}.parquet")
        facts = {"section": section, "controls": list(controls), "control_of": control_of or {}, "cell": {}}
        return Artefact(folder, facts)

    return make


@pytest.fixture
def draft(tmp_path: Path) -> MakeDraft:
    """An empty draft of a stage."""

    def make(stage: Stage) -> Draft:
        spec = cast(Spec, SimpleNamespace(root=str(tmp_path), store=str(tmp_path), study="toy", cell={}))
        return Draft(tmp_path / "draft", stage, spec, tmp_path / "checkpoints")

    return make


@pytest.fixture
def as_pairs() -> Callable[..., pl.DataFrame]:
    """Pairs of one run from examples (part, row, user, item, label) and a score for each."""

    def make(
        examples: pl.DataFrame, method: str, score: Any, variant: str = "default", **more: Any
    ) -> pl.DataFrame:
        facts = {"track": "ctr", "method": method, "variant": variant, "seed": 0, "probability": None, **more}
        columns = {
            name: value if isinstance(value, pl.Series) else pl.lit(value) for name, value in facts.items()
        }
        frame = examples.with_columns(score=pl.Series(score, dtype=pl.Float64), **columns)
        return frame.select(empty(Pairs).columns).cast(cast(Any, empty(Pairs).schema))

    return make


@pytest.fixture
def verdict() -> Callable[..., Verdict]:
    """What one of a stage's checks, by name, says of a draft and its inputs."""

    def ask(stage: Stage, name: str, draft: Draft, inputs: Mapping[str, Any]) -> Verdict:
        (check,) = [check for check in stage.checks if check.name == name]
        return check.run(draft, inputs, stage.settings())

    return ask
