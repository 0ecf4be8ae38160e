"""Heavy stages in a child process: the same bits, and a death of the child told in words."""

import os
from pathlib import Path

import dagster as dg
import pytest

from pipeline.stage import describe_files
from pipeline.store import Store
from resources import child
from tests.assets import stages
from tests.assets.projects import Workshop

pytestmark = pytest.mark.usefixtures("no_warehouse")


def weights(store: Store) -> dict:
    [head] = store.head("toy", "heavy")
    artefact = store.get("heavy", head["fingerprint"])
    return {name: facts["sha256"] for name, facts in describe_files(artefact.path).items() if "drawn" in name}


@pytest.fixture
def shop(tmp_path: Path, memory: dg.DagsterInstance) -> Workshop:
    return Workshop.at(tmp_path, [stages.heavy], on=memory)


def write(shop: Workshop, end: str = "well", place: str = "process", **sections) -> None:
    shop.write("toy", methods={}, models={"heavy": {"end": end}}, budget={"place": place}, **sections)


def test_a_child_makes_the_same_bits_as_this_process(shop: Workshop) -> None:
    write(shop)
    assert shop.computed() == ["heavy"]
    away = weights(shop.project.store)
    [head] = shop.project.store.head("toy", "heavy")
    artefact = shop.project.store.get("heavy", head["fingerprint"])
    assert artefact.measured["process"] != os.getpid()

    (artefact.path / "manifest.json").unlink()  # forget it, and make it here
    write(shop, place="here")
    assert shop.computed() == ["heavy"]
    assert weights(shop.project.store) == away
    write(shop)
    assert shop.computed() == []  # where it was made is no part of its identity


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("raise", "heavy (seed 1) of study toy: told to raise"),
        (
            "segfault",
            "child process crashed (SIGSEGV); the run's own process is unharmed",
        ),
        ("kill", "its child process was killed (SIGKILL); most often the machine ran out of memory"),
        ("exit", "its child process ended with status 7"),
    ],
)
def test_an_end_of_the_child_fails_its_asset_alone_and_says_why(shop: Workshop, end: str, said: str) -> None:
    write(shop, end)
    [failure] = [h for h in shop.run() if h.kind == "failed"]
    assert said in failure.text


def test_light_stages_stay_in_the_process_of_the_run(tmp_path: Path, memory: dg.DagsterInstance) -> None:
    shop = Workshop.at(tmp_path, on=memory)
    shop.write("toy", budget={"place": "process"})
    shop.run(names=["numbers", "doubled"])
    [head] = shop.project.store.head("toy", "doubled")
    measured = shop.project.store.get("doubled", head["fingerprint"]).measured
    assert measured["process"] == os.getpid()


def test_a_hit_starts_no_child(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    write(shop, place="here")
    shop.run()
    write(shop)
    monkeypatch.setattr(child, "COMMAND", ("false",))
    assert shop.computed() == []
    assert [h.kind for h in shop.run()] == ["started", "made"]


def test_what_another_run_made_while_the_child_started_is_told_as_found(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shop, place="here")
    assert shop.computed() == ["heavy"]
    write(shop)
    looked, find = [], Store.find

    def too_early(store: Store, *identity: str):
        looked.append(identity)
        return find(store, *identity) if len(looked) > 1 else None

    monkeypatch.setattr(child.Store, "find", too_early)
    assert shop.computed() == []
    assert len(looked) > 1
