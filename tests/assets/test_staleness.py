"""Dagster's own stale marks agree with the store, on a real instance."""

import dagster as dg
import pytest

from assets.engine import runs
from pipeline import study as studies
from pipeline.graph import Graph
from tests import toy
from tests.assets.projects import Workshop

ALL = ["numbers", "doubled", "guess/scores", "board"]
pytestmark = pytest.mark.usefixtures("no_warehouse")


def marked(workshop: Workshop, study: str = "toy") -> list[str]:
    """What Dagster marks as stale or missing."""
    if workshop.on:
        return runs.unsynced(workshop.definitions, workshop.on, study, ALL)
    with runs.instance(workshop.project) as on:
        return runs.unsynced(workshop.definitions, on, study, ALL)


def behind(workshop: Workshop, study: str = "toy") -> list[str]:
    """What the store says is stale or missing."""
    graph = Graph(toy.STAGES)
    plan = studies.load(studies.find(workshop.project.root, study))
    statuses = graph.status(plan, workshop.project.store, workshop.project.root)
    return list(dict.fromkeys(s.planned.stage.name for s in statuses if s.state != "fresh"))


def test_a_changed_setting_marks_its_asset_and_descendants_until_they_are_re_run(lasting: Workshop) -> None:
    assert marked(lasting) == behind(lasting) == ALL
    lasting.run()
    assert marked(lasting) == behind(lasting) == []

    lasting.write("toy", models={"doubled": {"times": 3}})
    assert marked(lasting) == behind(lasting) == ["doubled", "guess/scores", "board"]
    lasting.run(names=["doubled"])
    assert marked(lasting) == behind(lasting) == ["guess/scores", "board"]
    assert lasting.computed() == ["guess/scores", "board"]
    assert marked(lasting) == behind(lasting) == []


def test_a_setting_that_goes_back_is_marked_and_heals_without_computing(workshop: Workshop) -> None:
    workshop.run()
    workshop.write("toy", evaluate={"board": {"title": "other"}})
    workshop.run()
    workshop.write("toy")
    assert marked(workshop) == behind(workshop) == ["board"]
    assert workshop.computed() == []
    assert marked(workshop) == behind(workshop) == []


def test_another_study_marks_are_healed_by_hits(workshop: Workshop) -> None:
    workshop.write("twin")
    workshop.run("toy")
    workshop.run("twin")
    workshop.write("twin", models={"doubled": {"times": 5}})
    assert behind(workshop, "toy") == []
    # One code version per asset: marked too much, never too little.
    assert marked(workshop, "toy") == ["doubled", "guess/scores", "board"]
    assert workshop.computed("toy") == []
    assert marked(workshop, "toy") == []


def test_a_method_switched_on_marks_it_and_all_around_it(workshop: Workshop) -> None:
    workshop.write("toy", methods={})
    workshop.run()
    assert marked(workshop) == behind(workshop) == []
    workshop.write("toy")
    assert marked(workshop) == behind(workshop) == ["doubled", "guess/scores", "board"]
    workshop.run(names=["doubled", "guess/scores"])
    assert marked(workshop) == behind(workshop) == ["board"]


def test_the_data_version_that_dagster_holds_is_the_fingerprint(lasting: Workshop) -> None:
    lasting.run(names=["numbers"])
    with runs.instance(lasting.project) as on:
        event = on.get_latest_materialization_event(dg.AssetKey("numbers"))
        tags = event.asset_materialization.tags
    [head] = lasting.project.store.head("toy", "numbers")
    assert tags["dagster/data_version"] == head["fingerprint"]
