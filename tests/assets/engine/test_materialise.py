"""Materialising: what is computed, what is found, what the head and the readers get, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from assets.engine import materialise
from pipeline.stage import Check
from tests import toy
from tests.assets import stages
from tests.assets.projects import Workshop, declared

ALL = ["numbers", "doubled", "guess/scores", "board"]


pytestmark = pytest.mark.usefixtures("no_warehouse")


def made(happenings) -> dict[str, dict]:
    return {h.asset: h.facts for h in happenings if h.kind == "made"}


def test_a_first_run_computes_everything_and_a_second_nothing(workshop: Workshop) -> None:
    assert workshop.computed() == ALL
    assert workshop.computed() == []


def test_a_changed_setting_computes_that_stage_and_its_descendants_only(workshop: Workshop) -> None:
    workshop.run()
    workshop.write("toy", models={"doubled": {"times": 3}})
    assert workshop.computed() == ["doubled", "guess/scores", "board"]
    workshop.write("toy")
    assert workshop.computed() == []  # the old artefacts are still there


def test_the_data_version_is_the_fingerprint_of_a_single_cell(workshop: Workshop) -> None:
    facts = made(workshop.run())["numbers"]
    [cell] = workshop.project.store.head("toy", "numbers")
    assert facts["fingerprint"] == cell["fingerprint"]


def test_cells_of_seeds_are_made_counted_and_all_in_the_head(workshop: Workshop) -> None:
    workshop.write("toy", seeds=[1, 2, 3])
    facts = made(workshop.run())
    assert (facts["doubled"]["cells"], facts["doubled"]["computed"]) == (3, 3)
    assert [c["cell"] for c in workshop.project.store.head("toy", "doubled")] == [
        {"seed": 1}, {"seed": 2}, {"seed": 3}
    ]  # fmt: skip
    workshop.write("toy", seeds=[1, 2, 3, 4])
    facts = made(workshop.run())
    assert (facts["doubled"]["computed"], facts["doubled"]["reused"]) == (1, 3)


def test_a_method_that_the_study_does_not_ask_for_makes_nothing_and_the_rest_works(workshop: Workshop) -> None:
    workshop.write("toy", methods={})
    facts = made(workshop.run())
    assert facts["guess/scores"]["note"] == "not in this study"
    assert facts["guess/scores"]["computed"] == 0
    assert facts["board"]["predictions"] == 0
    assert not workshop.project.store_root.joinpath("artefacts/guess").exists()


def test_a_method_taken_out_of_the_study_leaves_its_head(workshop: Workshop) -> None:
    workshop.run()
    workshop.write("toy", methods={})
    workshop.run()
    assert workshop.project.store.head("toy", "guess/scores") == []


def test_the_warehouse_is_published_for_what_is_new_only(workshop: Workshop, no_warehouse: list[Path]) -> None:
    workshop.run()
    assert no_warehouse == [workshop.project.catalogue] * 4
    workshop.run()
    assert len(no_warehouse) == 4
    workshop.write("toy", evaluate={"board": {"title": "other"}})
    workshop.run()
    assert len(no_warehouse) == 5


def test_a_run_that_ends_in_the_warehouse_republishes_at_most_every_moment(
    workshop: Workshop, no_warehouse: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialise, "MOMENT", 1000.0)
    workshop.run(names=[*ALL, "warehouse"])
    assert len(no_warehouse) == 1  # the first finds no catalogue; the last one's own is not counted here
    workshop.write("toy", models={"doubled": {"times": 3}})
    monkeypatch.setattr(materialise, "MOMENT", 0.0)
    workshop.run(names=[*ALL, "warehouse"])
    assert len(no_warehouse) == 1 + 3


def test_a_run_that_stops_early_leaves_no_reader_behind(
    tmp_path: Path, memory: dg.DagsterInstance, no_warehouse: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialise, "MOMENT", 1000.0)
    workshop = Workshop.at(tmp_path, [toy.numbers, stages.raises], on=memory)
    workshop.write("toy", methods={})
    workshop.project.catalogue.parent.mkdir()
    workshop.project.catalogue.touch()  # a moment old, so the first asset leaves it
    workshop.run(names=["numbers", "raises", "warehouse"])
    assert len(no_warehouse) == 1  # by the one that failed

    blocked = Workshop.at(tmp_path, [stages.guarded, stages.reader], on=memory)
    blocked.write("toy", methods={}, data={"numbers": {"count": 6}})
    blocked.run(names=["numbers", "reader", "warehouse"])
    assert len(no_warehouse) == 2  # by the one whose check blocks


def test_a_catalogue_behind_any_head_catches_up(workshop: Workshop, no_warehouse: list[Path]) -> None:
    workshop.run()
    published = len(no_warehouse)
    materialise.catch_up(workshop.project)
    assert len(no_warehouse) == published
    workshop.project.store.set_head("other", "numbers", [])
    materialise.catch_up(workshop.project)
    assert len(no_warehouse) == published + 1


def test_a_warehouse_that_was_deleted_comes_back_without_computing(workshop: Workshop) -> None:
    workshop.run()
    workshop.project.catalogue.unlink()
    assert workshop.computed() == []
    assert workshop.project.catalogue.exists()


def test_a_failed_blocking_check_stops_what_is_downstream(tmp_path: Path, memory: dg.DagsterInstance) -> None:
    workshop = Workshop.at(tmp_path, [stages.guarded, stages.reader], on=memory)
    workshop.write("toy", methods={}, data={"numbers": {"count": 6}})
    happenings = workshop.run()
    assert [h.text for h in happenings if h.kind == "check"] == ["too_many: 6 of 5"]
    assert list(made(happenings)) == ["numbers"]
    assert not workshop.project.store_root.joinpath("artefacts/reader").exists()
    workshop.write("toy", methods={}, data={"numbers": {"count": 5}})
    assert list(made(workshop.run())) == ["numbers", "reader"]


def test_what_a_failed_check_blocked_stays_blocked_when_run_alone(
    tmp_path: Path, memory: dg.DagsterInstance
) -> None:
    workshop = Workshop.at(tmp_path, [stages.guarded, stages.reader], on=memory)
    workshop.write("toy", methods={}, data={"numbers": {"count": 6}})
    workshop.run()
    [failure] = [h for h in workshop.run(names=["reader"]) if h.kind == "failed"]
    assert failure.text == "reader of study toy reads numbers, which failed its check too_many"


def test_a_check_that_only_advises_is_told_and_stops_nothing(
    tmp_path: Path, memory: dg.DagsterInstance
) -> None:
    workshop = Workshop.at(tmp_path, [stages.advised, stages.reader], on=memory)
    workshop.write("toy", methods={}, data={"numbers": {"count": 6}})
    happenings = workshop.run()
    assert [h.text for h in happenings if h.kind == "check"] == ["too_many: 6 of 5"]
    assert list(made(happenings)) == ["numbers", "reader"]


def test_a_check_younger_than_the_artefact_is_told_as_not_judged(workshop: Workshop) -> None:
    workshop.run(names=["numbers"])
    judged = replace(toy.numbers, checks=(*toy.numbers.checks, Check(stages.too_many)))
    workshop.declared = declared([judged, *toy.STAGES[1:]])
    happenings = workshop.run()
    [told] = [h.text for h in happenings if h.kind == "check"]
    assert told == "too_many: not judged: made before this check; raise the stage's version to judge it"
    assert list(made(happenings)) == ALL


def test_an_asset_whose_parents_were_never_made_says_what_to_do(workshop: Workshop) -> None:
    [failure] = [h for h in workshop.run(names=["board"]) if h.kind == "failed"]
    assert "reads guess/scores, which is not up to date: materialise guess/scores first" in failure.text
    assert "interlingua run toy --select board" in failure.text


def test_a_bug_in_a_stage_is_told_with_stage_and_study_and_the_rest_goes_on(
    tmp_path: Path, memory: dg.DagsterInstance
) -> None:
    workshop = Workshop.at(tmp_path, [*toy.STAGES, stages.raises], on=memory)
    happenings = workshop.run()
    [failure] = [h for h in happenings if h.kind == "failed"]
    assert failure.text.startswith("raises (one cell) of study toy: the bug (ValueError in tests.assets.stages")
    assert set(made(happenings)) == set(ALL)


def test_a_broken_study_fails_its_own_runs_with_the_key_at_fault(workshop: Workshop) -> None:
    workshop.write("other")
    workshop.write("toy", models={"dubbled": {}})
    [failure] = [h for h in workshop.run(names=["numbers"]) if h.kind == "failed"]
    assert "unknown key 'dubbled'; did you mean 'doubled'?" in failure.text
    assert workshop.computed("other") == ALL


def test_a_page_for_people_is_copied_and_follows_its_artefact(
    tmp_path: Path, memory: dg.DagsterInstance
) -> None:
    workshop = Workshop.at(tmp_path, on=memory)
    workshop.declared = [
        replace(one, page="manifest.json") if one.stage is toy.board else one for one in workshop.declared
    ]
    page = workshop.project.page("toy", "manifest.json")
    workshop.run()
    first = json.loads(page.read_text())["fingerprint"]
    workshop.write("toy", evaluate={"board": {"title": "other"}})
    workshop.run()
    assert json.loads(page.read_text())["fingerprint"] != first
    page.unlink()
    workshop.run()
    assert page.exists()


def test_two_studies_share_what_is_equal(workshop: Workshop) -> None:
    workshop.write("twin", evaluate={"board": {"title": "twin"}})
    workshop.run("toy")
    assert workshop.computed("twin") == ["board"]
