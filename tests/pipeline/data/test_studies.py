"""The studies that come with the project say what the data stages understand, and run on their data."""

from pathlib import Path

import pytest

from pipeline import stage, study
from pipeline.graph import Graph
from pipeline.store import Store
from tests.pipeline.data.project import STAGES, Project

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_data_section_of_every_study_is_understood(file: Path) -> None:
    written = study.load(file)
    graph = Graph(STAGES.values())
    graph.check(written.model_copy(update={"models": {}, "methods": {}, "evaluate": {}}))
    assert written.words.items != "items"


def test_a_misspelt_key_is_not(tmp_path: Path) -> None:
    text = (STUDIES[0].parent / "quickstart.yaml").read_text().replace("test_rows", "test_row")
    (tmp_path / "s.yaml").write_text(text)
    written = study.load(tmp_path / "s.yaml").model_copy(update={"models": {}, "methods": {}})
    with pytest.raises(study.StudyError, match=r"unknown key 'test_row'; did you mean 'test_rows'"):
        Graph(STAGES.values()).check(written)


def test_the_example_runs_on_files_as_it_describes_them(project: Project) -> None:
    lines = [
        f"{n % 31},S{n * 7 % 61},2011-01-{1 + n // 10:02d} 10:{n % 60:02d}:00,{n % 10}" for n in range(300)
    ]
    project.write(
        "data/shop/interactions.csv", "CustomerID,StockCode,InvoiceDate,Quantity\n" + "\n".join(lines)
    )
    names = "".join(f"S{n},Product {n}\n" for n in range(61))
    project.write("data/shop/items.csv", "StockCode,Description\n" + names)
    example = study.load(STUDIES[0].parent / "own-data.example.yaml")
    data = {**example.data, "dataset": {**example.data["dataset"], "max_quarantine_share": 0.2}}
    made = project.make(**data)
    assert all(check["passed"] for check in made.manifest["checks"].values())
    assert project.made["dataset"].table("quarantine")["reason"].unique().to_list() == ["below 1"]


# --- on the real data


def run(file: str, root: Path, shared: Path) -> dict:
    """The data stages of a study, with `data/` of its project standing for the real datasets."""
    (root / "data").symlink_to(shared)
    written = study.load(STUDIES[0].parent / f"{file}.yaml")
    written = written.model_copy(update={"models": {}, "methods": {}, "evaluate": {}})
    plan = Graph(STAGES.values()).plan(written, Store(root / "store"), root)
    return {one.stage.name: stage.run(one.spec)[0] for one in plan}


@pytest.mark.shared_data
def test_the_published_split_has_the_rows_and_likes_that_the_papers_count(
    tmp_path: Path, shared_data: Path
) -> None:
    made = run("collm-ml1m", tmp_path, shared_data)["ctr/split"]
    facts = made.metrics
    assert [facts[f"{part}_rows"] for part in ("train", "valid", "test")] == [33_891, 10_401, 7_331]
    shares = [round(facts[f"{part}_positive_share"], 3) for part in ("train", "valid", "test")]
    assert shares == [0.537, 0.528, 0.545]
    assert facts["test_two_class_users"] == 224
    assert all(check["passed"] for check in made.manifest["checks"].values())
