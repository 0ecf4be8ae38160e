"""A stage whose code changed and whose version did not is caught."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from assets.engine.declare import graph
from tests import stage_versions, toy
from tests.stage_versions import changed, code_of


def test_every_stage_has_the_code_remembered_under_its_version() -> None:
    found = changed(graph().order, json.loads(stage_versions.FILE.read_text()))
    assert not found, "\n".join([*found, "accept with: python -m tests.stage_versions"])


def remembered() -> dict[str, dict]:
    return {stage.name: {"version": stage.version, "code": code_of(stage)} for stage in toy.STAGES}


def test_unchanged_code_is_quiet() -> None:
    assert changed(list(toy.STAGES), remembered()) == []


def test_changed_code_under_the_same_version_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = remembered(), stage_versions.source
    monkeypatch.setattr(
        stage_versions, "source", lambda m: read(m).replace("settings.times", "settings.times + 1")
    )
    assert any(line.startswith("doubled: its code changed") for line in changed(list(toy.STAGES), before))


def test_comments_and_docstrings_are_not_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = remembered(), stage_versions.source
    monkeypatch.setattr(
        stage_versions,
        "source",
        lambda m: read(m).replace('"""Score two pairs."""', '"""Other words."""  # why'),
    )
    assert changed(list(toy.STAGES), before) == []


def test_a_changed_shared_module_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = next(stage for stage in graph().order if stage.name == "mf")
    before, read = code_of(shared), stage_versions.source
    assert "pipeline.collab.pairs" in stage_versions.reach(shared.function.__module__)
    extra = {"pipeline.collab.pairs": "\nPLANTED = 1\n"}
    monkeypatch.setattr(stage_versions, "source", lambda m: read(m) + extra.get(m, ""))
    assert code_of(shared) != before


def test_a_raised_version_asks_to_be_accepted() -> None:
    newer = [replace(toy.doubled, version=2)]
    assert "doubled: version 2 is new; accept it" in changed(newer, remembered())


def test_a_stage_that_is_gone_is_noticed() -> None:
    assert changed([toy.numbers], {**remembered()})[-1].endswith("is gone; accept")


def test_accepting_writes_what_the_test_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_versions, "FILE", tmp_path / "versions.json")
    stage_versions.accept(list(toy.STAGES))
    assert changed(list(toy.STAGES), json.loads(stage_versions.FILE.read_text())) == []
