"""Synthetic studies with their reports, materialised once for all tests of the report."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.evaluate.report import report
from pipeline.store import Artefact, Store
from tests.warehouse import synthetic

ROOT = synthetic.ROOT
HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync")
Browser = Callable[..., str]


class Made(NamedTuple):
    """A materialised study: its artefacts by stage, and all of them but the report's."""

    store: Store
    stages: dict[str, list[Artefact]]

    @property
    def everything(self) -> list[Artefact]:
        return [a for stage, artefacts in self.stages.items() if stage != "report" for a in artefacts]

    @property
    def html(self) -> str:
        return self.stages["report"][0].file("report.html").read_text()


def made(folder, study, more=()) -> Made:
    store = Store(folder)
    return Made(store, synthetic.materialise(store, study, (*synthetic.STAGES, *more, report), ROOT))


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Made:
    """Two seeds, methods with controls, and published figures."""
    evaluate = {**synthetic.QUICK, "report": {"published": "ml-1m-collm"}}
    return made(tmp_path_factory.mktemp("full"), synthetic.study(seeds=(1, 2), evaluate=evaluate))


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Made:
    """Baselines only, one seed."""
    return made(tmp_path_factory.mktemp("plain"), synthetic.study("baselines", methods={}, also=()))


@pytest.fixture(scope="session")
def ranked_study(tmp_path_factory) -> Made:
    """Baselines of two tracks, two seeds, seen items kept in one model's second form."""
    return made(tmp_path_factory.mktemp("ranked"), synthetic.ranked_study(seeds=(1, 2)), synthetic.RANKED)


@pytest.fixture(scope="session")
def browser() -> Browser:
    """Open a page in a real browser without a window: `browser(page, folder, *flags)`, to what it prints."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here")

    def show(page: Path, folder: Path, *flags: str) -> str:
        own = ("--disable-background-networking", f"--user-data-dir={folder / 'profile'}", *flags)
        home = {**os.environ, "HOME": str(folder)}
        command = [found, *HEADLESS, *own, page.as_uri()]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=home)
        return done.stdout

    return show
