"""What a dry run tells: of inputs that are there, of their predecessors, and of none."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.forecasts import Told, earlier, foretell, known_inputs
from pipeline.graph import Status
from pipeline.machine import Forecast, Machine
from pipeline.store import Store
from tests.toy_ctr import GRAPH, make, study

HERE = Machine(free=2**33)
METHODS = {"tallrec": {"variants": ["titles", "without_history"], "prompts": {"train_rows": 8}}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the prompts of a study are made, and its head says so."""
    folder = tmp_path_factory.mktemp("root")
    made = make(folder, ("tallrec/prompts",), methods=METHODS)
    store = Store(folder / "store")
    for stage, artefacts in made.items():
        cells = [{"cell": a.manifest["cell"], "fingerprint": a.fingerprint} for a in artefacts.values()]
        store.set_head("toy", stage, cells)
    return folder


def statuses(root: Path, **sections) -> list[Status]:
    return GRAPH.status(study(**{"methods": METHODS, **sections}), Store(root / "store"), root)


def told(root: Path, machine: Machine = HERE, **sections) -> dict[str, Told]:
    found = foretell(statuses(root, **sections), Store(root / "store"), machine)
    return {one.asset: one for one in found if one.asset.startswith("tallrec")}


def test_stages_that_are_to_run_tell_memory_and_seconds_of_all_their_cells(root: Path) -> None:
    found = told(root)
    assert set(found) == {"tallrec/adapter", "tallrec/predictions"}  # no shots are named, so no few_shot
    adapter = found["tallrec/adapter"]
    assert (adapter.cells, len(adapter.forecasts), adapter.refused) == (2, 2, "")
    assert adapter.memory == max(one.memory for one in adapter.forecasts)
    assert adapter.seconds == sum(one.seconds or 0 for one in adapter.forecasts)
    assert adapter.paced_by == "a timed product, roughly"


def test_prompts_that_are_to_be_made_anew_are_told_by_those_of_before(root: Path) -> None:
    longer = {"tallrec": {**METHODS["tallrec"], "prompts": {"train_rows": 8, "history": 3}}}
    found = told(root, methods=longer)
    assert found["tallrec/adapter"].seconds is not None
    planned = next(
        s.planned for s in statuses(root, methods=longer) if s.planned.stage.name == "tallrec/adapter"
    )
    store = Store(root / "store")
    assert set(known_inputs(planned, store)) == {"prompts", "language_model"}
    (before,) = earlier("tallrec/prompts", planned, store)
    assert before.variant == planned.cell["variant"]


def test_of_another_study_nothing_is_known_but_what_is_in_the_store(root: Path) -> None:
    planned = next(s.planned for s in statuses(root) if s.planned.stage.name == "tallrec/adapter")
    other = replace(planned, spec=replace(planned.spec, study="other"))
    assert list(earlier("tallrec/prompts", other, Store(root / "store"))) == []
    assert set(known_inputs(other, Store(root / "store"))) == {"prompts", "language_model"}


def test_an_empty_store_tells_nothing_yet(tmp_path: Path) -> None:
    adapter = told(tmp_path)["tallrec/adapter"]
    assert (adapter.forecasts, adapter.memory, adapter.seconds, adapter.refused) == ((), 0, None, "")


def test_what_does_not_fit_or_cannot_run_says_so(root: Path) -> None:
    small = Machine(free=1000)
    assert " GiB will be needed (" in told(root, small)["tallrec/adapter"].refused
    assert told(root, small, budget={"fit": "try"})["tallrec/adapter"].refused == ""
    few = {"tallrec": {**METHODS["tallrec"], "adapter": {"quantisation": "4bit"}}}
    assert told(root, methods=few)["tallrec/adapter"].refused.startswith("quantisation: 4bit needs")


def test_seconds_of_some_cells_alone_are_no_sum() -> None:
    known = Forecast(1, seconds=2.0)
    assert Told("a", 2, (known, known), "").seconds == 4.0
    assert Told("a", 2, (known,), "").seconds is None
