"""Fixtures of everything that runs Dagster on the toy project."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.engine import materialise, runs
from resources.project import Project
from tests.assets.projects import SOURCE_TREE, Workshop


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Opening an instance sets variables for its children; a test leaves none behind."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def fresh_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dagster's empty databases: making them anew for every test would take most of its time."""
    root = tmp_path_factory.mktemp("dagster")
    shutil.copy(SOURCE_TREE / "dagster.yaml", root)
    before = dict(os.environ)
    with runs.instance(Project.here({"INTERLINGUA_ROOT": str(root)})) as on:
        on.get_runs()
        on.event_log_storage.get_pool_limits()
    os.environ.clear()
    os.environ.update(before)
    return root / ".dagster"


@pytest.fixture
def lasting(tmp_path: Path, fresh_state: Path) -> Workshop:
    """The toy project with Dagster's databases on disk."""
    shutil.copytree(fresh_state, tmp_path / ".dagster")
    return Workshop.at(tmp_path)


@pytest.fixture
def memory() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as on:
        yield on


@pytest.fixture
def workshop(tmp_path: Path, memory: dg.DagsterInstance) -> Workshop:
    """The toy project with Dagster in memory: much faster."""
    return Workshop.at(tmp_path, on=memory)


@pytest.fixture
def no_warehouse(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Publishing only noted, not done; for tests that do not query."""
    published: list[Path] = []

    def publish(store_root: Path, catalogue: Path) -> None:
        published.append(catalogue)
        catalogue.parent.mkdir(parents=True, exist_ok=True)
        catalogue.touch()

    monkeypatch.setattr(materialise, "publish", publish)
    return published
