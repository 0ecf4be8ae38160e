"""The warehouse as an asset: published, and its assertions as checks of the study that is run."""

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.engine import warehouse
from resources.warehouse import SQL
from tests.assets.projects import Workshop


def test_every_assertion_is_a_check_with_its_meaning() -> None:
    files = {file.stem for file in (SQL / "assertions").glob("*.sql")}
    known = warehouse.known()
    assert set(known) == files
    assert known["blocking_check_failed"] == "blocking checks that failed on an artefact a study stands for"


def test_the_asset_publishes_and_judges(workshop: Workshop) -> None:
    happenings = workshop.run(names=["numbers", "doubled", "guess/scores", "board", "warehouse"])
    [facts] = [h.facts for h in happenings if h.kind == "made" and h.asset == "warehouse"]
    assert workshop.project.catalogue.exists()
    assert facts["assertions"] == len(warehouse.known())
    assert facts["note"] == "published"


def test_broken_rows_of_another_study_do_not_count() -> None:
    rows = pl.DataFrame({"study": ["a", "b", "a"], "row": [1, 2, 3]})
    assert warehouse.of_study(rows, "a").height == 2
    assert warehouse.of_study(rows, "c").is_empty()
    assert warehouse.of_study(rows.drop("study"), "c").height == 3  # whose they are is not known


def test_a_broken_assertion_shows_its_first_rows() -> None:
    result = warehouse.judged("pair_scored_twice", pl.DataFrame({"row": list(range(9)), "title": ["<b>"] * 9}))
    assert not result.passed
    assert result.description == "9 rows break it"
    assert result.metadata["first"].value.count("&lt;b&gt;") == warehouse.SHOWN
    assert warehouse.judged("pair_scored_twice", pl.DataFrame({"row": []})).passed


def test_a_planted_fault_in_the_store_fails_its_check(workshop: Workshop) -> None:
    workshop.run()
    store = workshop.project.store
    [head] = store.head("toy", "guess/scores")
    artefact = store.get("guess/scores", head["fingerprint"])
    file = artefact.file("pairs.parquet")
    pl.read_parquet(file).with_columns(probability=2.0).write_parquet(file)
    resize(artefact.file("manifest.json"), file)
    happenings = workshop.run(names=["warehouse"])
    assert any(h.kind == "check" and h.text.startswith("probability_outside_unit") for h in happenings)


def resize(manifest: Path, file: Path) -> None:
    """Give the manifest the size of the changed file, as the store looks at sizes."""
    facts = json.loads(manifest.read_text())
    facts["files"][file.name]["bytes"] = file.stat().st_size
    manifest.write_text(json.dumps(facts))


def test_its_code_version_follows_the_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = warehouse.code_version()
    monkeypatch.setattr(warehouse, "SQL", tmp_path)
    (tmp_path / "view.sql").write_text("-- grain\nselect 1")
    assert warehouse.code_version() != before


def test_it_stands_after_all_stages(workshop: Workshop) -> None:
    [spec] = [s for s in workshop.definitions.resolve_all_asset_specs() if s.key == dg.AssetKey("warehouse")]
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == {
        "numbers",
        "doubled",
        "guess/scores",
        "board",
    }
