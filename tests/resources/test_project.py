"""Where a project lives, as its environment says."""

from pathlib import Path

from resources.project import SOURCE_TREE, Project


def test_without_variables_it_is_this_source_tree() -> None:
    project = Project.here({})
    assert project.root == SOURCE_TREE == Path(__file__).parents[2]
    assert project.home == SOURCE_TREE
    assert (project.store_root, project.state) == (SOURCE_TREE / "store", SOURCE_TREE / ".dagster")
    assert project.catalogue == SOURCE_TREE / "warehouse" / "interlingua.duckdb"


def test_a_root_takes_everything_with_it(tmp_path: Path) -> None:
    project = Project.here({"INTERLINGUA_ROOT": str(tmp_path)})
    places = (project.store_root, project.catalogue, project.reports, project.home, project.state)
    assert all(place.is_relative_to(tmp_path) for place in places)


def test_each_place_has_its_own_variable(tmp_path: Path) -> None:
    project = Project.here(
        {
            "INTERLINGUA_STORE": str(tmp_path / "s"),
            "INTERLINGUA_CATALOGUE": str(tmp_path / "c.duckdb"),
            "INTERLINGUA_REPORTS": str(tmp_path / "r"),
            "DAGSTER_HOME": str(tmp_path / "h"),
        }
    )
    assert project.store.root == tmp_path / "s"
    assert project.catalogue == tmp_path / "c.duckdb"
    assert project.page("toy", "report.html") == tmp_path / "r" / "toy.html"
    assert project.state == tmp_path / "h" / ".dagster"


def test_an_empty_variable_counts_as_none_and_a_tilde_is_home() -> None:
    assert Project.here({"INTERLINGUA_ROOT": ""}).root == SOURCE_TREE
    assert Project.here({"INTERLINGUA_STORE": "~/s"}).store_root == Path.home() / "s"


def test_its_variables_give_another_process_the_same_project(tmp_path: Path) -> None:
    project = Project.here({"INTERLINGUA_ROOT": str(tmp_path), "DAGSTER_STATE": str(tmp_path / "elsewhere")})
    assert Project.here(project.variables()) == project


def test_nothing_is_made_by_asking(tmp_path: Path) -> None:
    Project.here({"INTERLINGUA_ROOT": str(tmp_path / "new")}).variables()
    assert not (tmp_path / "new").exists()
