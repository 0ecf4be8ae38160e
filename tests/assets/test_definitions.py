"""The whole graph as Dagster loads it: under a snapshot, complete, quick, and without warnings.

When the graph changes on purpose, accept it: `interlingua graph > tests/assets/graph.txt`; read the difference.
"""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from assets.cli import graph_lines
from assets.definitions import define, defs
from assets.engine import declare
from pipeline import study as studies
from resources.project import Project
from tests import toy
from tests.assets.projects import Workshop, declared

SNAPSHOT = Path(__file__).with_name("graph.txt")


@pytest.fixture(scope="module")
def whole() -> dg.Definitions:
    return defs()


def specs(definitions: dg.Definitions) -> Iterator[dg.AssetSpec]:
    yield from (spec for spec in definitions.resolve_all_asset_specs())


def test_the_graph_is_the_one_that_was_accepted() -> None:
    found = "\n".join(graph_lines(declare.graph())) + "\n"
    assert found == SNAPSHOT.read_text(), "accept it: interlingua graph > tests/assets/graph.txt"


def test_dagster_sees_the_same_edges_as_the_graph(whole: dg.Definitions) -> None:
    graph = declare.graph()
    found = {
        spec.key.to_user_string(): {dep.asset_key.to_user_string() for dep in spec.deps}
        for spec in specs(whole)
    }
    warehouse = found.pop("warehouse")
    assert found == {stage.name: set(graph.parents(stage)) for stage in graph.order}
    assert warehouse == set(graph.stages)


def test_every_asset_has_all_that_a_reader_looks_for(whole: dg.Definitions) -> None:
    checks = {key.asset_key for key in whole.resolve_asset_graph().asset_check_keys}
    for spec in specs(whole):
        assert spec.group_name != "default"
        assert spec.kinds
        assert spec.owners == ["team:interlingua"]
        assert spec.description
        assert spec.code_version
        assert spec.tags["needs"] in ("light", "heavy", "gpu", "chat")
        assert spec.key in checks, f"{spec.key.to_user_string()} has no check"


def test_every_table_has_its_columns_and_its_grain(whole: dg.Definitions) -> None:
    stages = declare.graph().stages
    for spec in specs(whole):
        stage = stages.get(spec.key.to_user_string())
        for place, (name, schema) in enumerate(stage.tables.items() if stage else ()):
            shown = spec.metadata["dagster/column_schema" if place == 0 else f"{name}/columns"]
            assert [column.name for column in shown.columns] == list(schema.columns())
            assert spec.metadata[f"{name}/grain"] == schema.grain


def test_a_paper_is_linked_from_its_method(whole: dg.Definitions) -> None:
    by_key = {spec.key.to_user_string(): spec for spec in specs(whole)}
    assert "https://arxiv.org/abs/2406.03210" in by_key["binllm/adapter"].description
    assert "https://arxiv.org/abs/2305.00447" in by_key["tallrec/adapter"].description


def test_stages_on_the_accelerator_share_a_pool_and_other_heavy_ones_another(whole: dg.Definitions) -> None:
    stages = declare.graph().stages
    pools = {asset.key.to_user_string(): asset.op.pool for asset in whole.resolve_asset_graph().assets_defs}
    for pool in ("gpu", "heavy"):
        found = {name for name, own in pools.items() if own == pool}
        assert found == {name for name, stage in stages.items() if stage.needs == pool}
    assert {pools["mf"], pools["binary_codes"], pools["language_model"]} == {"heavy", "gpu"}
    assert pools["mf"] == pools["binary_codes"] == "heavy"
    assert pools["ctr/split"] is None


def test_importing_the_definitions_is_quick_quiet_and_light() -> None:
    script = (
        "import sys, time; before = time.process_time();"
        "from assets.definitions import defs; defs().get_repository_def();"
        "heavy = {'torch', 'transformers', 'peft', 'sklearn', 'scipy', 'matplotlib', 'faiss'};"
        "assert not heavy & set(sys.modules), heavy; print(time.process_time() - before)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 6  # processor seconds; under three on a machine that is not busy


def test_studies_are_partitions_and_examples_are_not(tmp_path: Path) -> None:
    workshop = Workshop.at(tmp_path)
    workshop.write("own-data.example")
    workshop.write("other")
    [spec] = [s for s in specs(workshop.definitions) if s.key == dg.AssetKey("numbers")]
    assert spec.partitions_def.get_partition_keys() == ["other", "toy"]


def test_a_study_that_cannot_be_read_does_not_take_the_others_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workshop = Workshop.at(tmp_path)
    (tmp_path / "studies" / "broken.yaml").write_text("titel: typo\n")
    assert len(list(specs(workshop.definitions))) == len(toy.STAGES) + 1
    assert "study broken is left out" in caplog.text


def versions(workshop: Workshop) -> dict[str, str | None]:
    return {spec.key.to_user_string(): spec.code_version for spec in specs(workshop.definitions)}


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"models": {"doubled": {"times": 3}}}, {"doubled", "guess/scores", "board"}),
        ({"models": {"doubled": {"times": 2}}}, set()),  # the default, written out
        ({"seeds": [1, 2]}, {"doubled", "guess/scores", "board"}),
        ({"methods": {"guess": {"variants": ["plain", "shuffled"]}}}, {"guess/scores", "board"}),
        ({"evaluate": {"board": {"title": "other"}}}, {"board"}),
        (
            {"words": {"item": "book"}},
            {"guess/scores", "board"},
        ),  # a setting shared from elsewhere in the study
        ({"title": "Another title", "budget": {"threads": 1}}, set()),
    ],
)
def test_a_code_version_follows_what_the_stage_would_do(
    tmp_path: Path, sections: dict, names: set[str]
) -> None:
    workshop = Workshop.at(tmp_path)
    before = versions(workshop)
    workshop.write("toy", **sections)
    assert changed(before, versions(workshop)) == names


def test_a_code_version_follows_the_threads_of_a_heavy_stage(tmp_path: Path) -> None:
    heavy = [toy.numbers, replace(toy.doubled, needs="heavy"), *toy.STAGES[2:]]
    workshop = Workshop.at(tmp_path, heavy)
    before = versions(workshop)
    workshop.write("toy", budget={"threads": 1})
    assert changed(before, versions(workshop)) == {"doubled", "guess/scores", "board"}


def test_a_raised_version_is_another_code_version(tmp_path: Path) -> None:
    workshop = Workshop.at(tmp_path)
    before = versions(workshop)
    workshop.declared = declared([replace(toy.numbers, version=2), *toy.STAGES[1:]])
    assert changed(before, versions(workshop)) == {"numbers", "doubled", "guess/scores", "board"}


def test_every_study_has_a_nightly_schedule_that_is_off(tmp_path: Path) -> None:
    workshop = Workshop.at(tmp_path)
    workshop.write("my-own")
    repository = workshop.definitions.get_repository_def()
    schedules = {s.name: s for s in repository.schedule_defs}
    assert set(schedules) == {"nightly_toy", "nightly_my_own"}
    nightly = schedules["nightly_my_own"]
    assert nightly.default_status == dg.DefaultScheduleStatus.STOPPED
    [request] = nightly.evaluate_tick(dg.build_schedule_context(repository_def=repository)).run_requests
    assert request.partition_key == "my-own"


def test_shipped_studies_load_and_fit_the_graph() -> None:
    project, graph = Project.here({}), declare.graph()
    for name in studies.names(project.root):
        study = studies.load(studies.find(project.root, name))
        graph.check(study)


def test_the_kar_study_asks_for_three_backbones_each_with_its_own_controls() -> None:
    graph, root = declare.graph(), Project.here({}).root
    study = studies.load(studies.find(root, "ml-1m-kar"))
    stage = graph.stages["kar/predictions"]
    cells = {(cell["variant"], cell["seed"]) for cell in graph.cells(stage, study)}
    assert len(cells) == 3 * 8 * 3
    asked = {variant for variant, _ in cells}
    for backbone in ("din", "dcnv2", "fibinet"):
        own = {control for control, of in stage.control_of.items() if of == (backbone,)}
        assert len(own) == 7
        assert own | {backbone} <= asked
    wanted = graph.wanted(study)
    assert {"kar/vectors", "kar/raw_vectors", "kar/facts", "ctr/leaderboard", "report"} <= wanted
    assert not {"ctr/sasrec", "next_item/split", "language_model"} & wanted


def test_definitions_need_no_study(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = define(Project.here({"INTERLINGUA_ROOT": str(tmp_path)}), declared())
    assert len(list(specs(made))) == len(toy.STAGES) + 1
