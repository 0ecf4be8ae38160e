"""What the UI shows: columns, numbers, escaped previews, pictures, checks over cells."""

import math
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.engine import shown
from pipeline.schema import Examples, UserVectors
from pipeline.stage import Check, Verdict
from pipeline.store import Artefact
from tests import toy
from tests.assets import stages

MEASURED = {"seconds": 1.5, "cpu_seconds": 1.0, "peak_memory_mb": 100.0, "device": "cpu", "started": 1.0}


def artefact(path: Path = Path("/nowhere"), **facts) -> Artefact:
    manifest = {
        "stage": "numbers",
        "fingerprint": "f" * 32,
        "cell": {},
        "tables": {"codes": {"rows": 3}},
        "metrics": {},
        "measured": dict(MEASURED),
        "checks": {"some_rows": verdict(True)},
        **facts,
    }
    return Artefact(path, manifest)


def verdict(passed: bool, description: str = "", **facts) -> dict:
    return {"passed": passed, "blocking": True, "description": description, "facts": facts}


def test_columns_carry_type_meaning_and_constraints() -> None:
    by_name = {column.name: column for column in shown.columns(Examples).columns}
    assert by_name["row"].constraints == dg.TableColumnConstraints(nullable=False, unique=True)
    assert by_name["history"].type == "List(UInt32)"
    assert by_name["label"].description == "1 liked, 0 not"
    assert by_name["label"].constraints.unique is False


def test_a_definition_shows_grain_settings_and_the_first_table_as_its_columns() -> None:
    facts = shown.definition(toy.numbers)
    assert facts["codes/grain"] == "one user's or item's binary code"
    assert [c.name for c in facts["dagster/column_schema"].columns][:2] == ["entity", "id"]
    assert "| count | 3 | how many |" in facts["settings"].value


def test_a_second_table_has_its_columns_too() -> None:
    facts = shown.definition(replace(toy.numbers, tables={"examples": Examples, "vectors": UserVectors}))
    assert [c.name for c in facts["vectors/columns"].columns] == ["user", "vector", "trained"]


def test_one_cell_shows_its_metrics_plain() -> None:
    facts = shown.describe([artefact(metrics={"auc": 0.7, "kept": 12})], [False], 2.0, toy.numbers)
    assert (facts["auc"], facts["kept"]) == (0.7, 12)
    assert (facts["cells"], facts["computed"], facts["reused"], facts["took_seconds"]) == (1, 1, 0, 2.0)
    assert (facts["seconds"], facts["peak_memory_mb"], facts["device"]) == (1.5, 100.0, "cpu")
    assert facts["dagster/row_count"] == facts["codes/rows"] == 3
    assert "by_cell" not in facts


def test_several_cells_show_the_mean_and_a_table() -> None:
    cells = [
        artefact(cell={"variant": "bits", "seed": 1}, metrics={"auc": 0.6}),
        artefact(cell={"variant": "bits", "seed": 2}, metrics={"auc": 0.7}),
    ]
    facts = shown.describe(cells, [True, False], 1.0, toy.numbers)
    assert facts["auc"] == pytest.approx(0.65)
    assert facts["seconds"] == 3.0
    assert facts["dagster/row_count"] == 6
    assert facts["by_cell"].value == (
        "| cell | auc |\n| --- | --- |\n| variant bits, seed 1 | 0.6 |\n| variant bits, seed 2 | 0.7 |"
    )


def test_no_cell_says_so() -> None:
    assert shown.describe([], [], 0.1, toy.numbers)["note"] == "not in this study"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], 0.5),
        ([1, 3], 2.0),
        ([None, 4.0], 4.0),
        (["cpu", "cpu"], "cpu"),
        (["cpu", "gpu"], None),
        ([None, None], None),
        ([math.nan], "nan"),
        ([math.inf, 1.0], None),
    ],
)
def test_an_average_has_meaning_or_is_left_out(values: list, expected: object) -> None:
    assert shown.average(values) == expected


def test_a_title_cannot_write_markdown_or_html() -> None:
    text = shown.escape("a|b\n![x](http://evil) <script>alert(1)</script> `c` & *d* [e](f)")
    assert "\n" not in text
    assert "<" not in text
    assert text.startswith("a\\|b \\!\\[x\\]\\(http://evil\\)")
    assert "&lt;script&gt;" in text


@given(st.text())
def test_a_table_has_as_many_columns_as_its_header_whatever_is_in_it(text: str) -> None:
    lines = shown.table(["a", "b"], [[text, 1]]).split("\n")
    assert len(lines) == 3
    assert lines[2].replace("\\\\", "").replace("\\|", "").count("|") == 3


def test_values_are_short() -> None:
    assert shown.show(0.123456789) == "0.1235"
    assert shown.show([1, 2.5, None]) == "1, 2.5, "
    assert shown.show(None) == ""
    assert len(shown.show("x" * 10_000)) == shown.CELL_LENGTH
    assert len(shown.show(list(range(10_000)))) <= shown.CELL_LENGTH


def test_previews_and_pictures_come_from_the_first_cell(tmp_path: Path) -> None:
    pl.DataFrame({"entity": ["user"], "id": [7]}).write_parquet(tmp_path / "codes.parquet")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/curve.svg").write_text("<svg/>")
    (tmp_path / "pictures/huge.svg").write_text("x" * (shown.PICTURE_BYTES + 1))
    facts = shown.views([artefact(tmp_path)], toy.numbers)
    assert facts["codes/preview"].value.splitlines()[-1] == "| user | 7 |"
    assert facts["picture/curve"].value == "![curve](data:image/svg+xml;base64,PHN2Zy8+)"
    assert "picture/huge" not in facts


def test_a_check_passes_where_it_passes_in_every_cell() -> None:
    cells = [
        artefact(cell={"seed": 1}, checks={"some_rows": verdict(True, "3 rows", rows=3)}),
        artefact(cell={"seed": 2}, checks={"some_rows": verdict(False, "0 rows", rows=0)}),
    ]
    [result] = shown.check_results(toy.numbers, cells)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.ERROR
    assert result.description == "seed 2: 0 rows"
    assert result.metadata["rows"].value == 0
    assert (result.metadata["cells"].value, result.metadata["cells_failed"].value) == (2, 1)
    [good] = shown.check_results(toy.numbers, cells[:1])
    assert good.passed
    assert good.description == "3 rows"


def test_a_check_without_cells_passes_and_says_so() -> None:
    [result] = shown.check_results(toy.numbers, [])
    assert result.passed
    assert result.description == "nothing to check in this study"


def test_a_check_that_only_advises_warns() -> None:
    check = Check(stages.too_many, blocking=False)
    failed = [("all", {**verdict(False, "6 of 5"), "blocking": False})]
    assert shown.one_result(check, failed).severity == dg.AssetCheckSeverity.WARN


def test_specs_show_the_first_line_of_a_check() -> None:
    [spec] = shown.check_specs(toy.numbers, ["numbers"])
    assert (spec.name, spec.description, spec.blocking) == ("some_rows", "There is at least one row.", True)


def test_facts_of_any_kind_become_metadata() -> None:
    found = Verdict(True, "", {"n": 1, "share": 0.5, "worst": [1, 2], "gone": None, "bad": math.nan})
    result = shown.one_result(Check(stages.too_many), [("all", {**verdict(True), "facts": found.facts})])
    assert result.metadata["worst"].value == "1, 2"
    assert result.metadata["bad"].value == "nan"
    assert result.metadata["gone"].value == "none"
