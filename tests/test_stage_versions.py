"""A stage whose code changed and whose version did not is caught."""

import json
import tokenize
from dataclasses import replace
from pathlib import Path

import dataframely as dy
import pytest

from assets.engine.declare import graph
from pipeline.schema import Table
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


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = 1\n", "x   =  1  # why\n\n", True),
        ("def f():\n    return 1\n", 'def f():\n    """Words."""\n    return 1\n', True),
        ("def f(a, b):\n    return a\n", "def f(\n    a, b\n):\n    return a\n", True),
        ("x = f'{a}  {b!r:>{c}}'\n", "x =  f'{a}  {b!r:>{c}}'\n", True),
        ("x = f'{a}  {b}'\n", "x = f'{a} {b}'\n", False),
        ("x = f'{a}'\n", "x = f'{b}'\n", False),
        ("x = 'a'\n", "x = 'b'\n", False),
        ("if x:\n    y()\n    z()\n", "if x:\n    y()\nz()\n", False),
    ],
)
def test_code_is_its_tokens_without_comments_docstrings_and_layout(one: str, other: str, same: bool) -> None:
    assert (stage_versions.bare(one) == stage_versions.bare(other)) == same


def test_an_f_string_of_many_tokens_is_the_same_as_one_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x = f'{a:{b}}'\n"
    bare = stage_versions.bare.__wrapped__  # not what was remembered of the text
    whole, opens, closes = bare(text), 900, 901
    kinds = [
        (tokenize.NAME, 0, 1),
        (tokenize.OP, 2, 3),
        (opens, 4, 6),
        (tokenize.OP, 6, 7),
        (tokenize.NAME, 7, 8),
    ]
    kinds += [
        (opens, 8, 9),
        (tokenize.NAME, 10, 11),
        (closes, 11, 12),
        (closes, 13, 14),
        (tokenize.NEWLINE, 14, 15),
    ]
    later = [tokenize.TokenInfo(kind, text[a:b], (1, a), (1, b), text) for kind, a, b in kinds]
    monkeypatch.setattr(stage_versions.tokenize, "generate_tokens", lambda _: iter(later))
    assert bare(text) != whole  # the fault: each piece counted
    monkeypatch.setattr(stage_versions, "OPENS", opens)
    monkeypatch.setattr(stage_versions, "CLOSES", closes)
    assert bare(text) == whole == "x = f'{a:{b}}' \n"


class Plain(Table):
    bits = dy.String(description="the code")


class Reworded(Table):
    bits = dy.String(description="other words")


class Nullable(Table):
    bits = dy.String(nullable=True, description="the code")


class Bounded(Table):
    bits = dy.Float64(max=1, description="the code")


@pytest.mark.parametrize(("table", "counts"), [(Reworded, False), (Nullable, True), (Bounded, True)])
def test_columns_count_and_their_descriptions_do_not(table: type[Table], counts: bool) -> None:
    one, other = (code_of(replace(toy.numbers, tables={"codes": t})) for t in (Plain, table))
    assert (one != other) == counts


def test_what_is_borrowed_of_the_schema_and_the_study_counts_and_the_rest_of_them_does_not() -> None:
    found = stage_versions.borrowed(["pipeline.llm.settings", "pipeline.evaluate.report.facts"])
    assert {"pipeline.study.Words", "pipeline.schema.PARTS", "pipeline.schema.Curve"} <= set(found)
    assert "pipeline.study.Budget" not in found
    assert stage_versions.described(found["pipeline.schema.PARTS"]) == "('train', 'valid', 'test')"
    assert "Words" in stage_versions.described(found["pipeline.study.Words"])


def test_a_file_that_the_code_reads_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = next(stage for stage in graph().order if stage.name == "report")
    [template] = stage_versions.read_by("pipeline.evaluate.report.page")
    assert template.name == "page.html.j2"
    before, other = code_of(report), tmp_path / "page.html.j2"
    other.write_text(template.read_text() + " ")
    read_by = stage_versions.read_by
    monkeypatch.setattr(stage_versions, "read_by", lambda m: [other] if read_by(m) else [])
    assert code_of(report) != before
