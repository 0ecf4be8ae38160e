"""The real UI in a real browser: open an asset, choose the study, press Materialize, see it done."""

import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assets.engine import runs
from resources import servers
from resources.project import Project
from tests.assets.projects import SOURCE_TREE

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1100",
)
PATIENCE = 120
STUDY = """
title: Tiny
data:
  source: {locations: [ratings]}
  dataset:
    interactions: {file: ratings.csv, columns: {user_id: user, item_id: book, rating: stars, at: time}}
"""
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium with chromedriver on this machine"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The real graph with two small studies of the reader's own data."""
    root = tmp_path_factory.mktemp("ui")
    shutil.copy(SOURCE_TREE / "dagster.yaml", root)
    (root / "ratings").mkdir()
    (root / "ratings" / "ratings.csv").write_text("user,book,stars,time\nu1,b1,5,1\nu2,b1,2,2\n")
    (root / "studies").mkdir()
    for name in ("tiny", "other"):
        (root / "studies" / f"{name}.yaml").write_text(STUDY)
    return Project.here({"INTERLINGUA_ROOT": str(root)})


@pytest.fixture(scope="module")
def address(project: Project) -> Iterator[str]:
    """Webserver, daemon and code server of the project, as `interlingua ui` starts them."""
    port = servers.free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "INTERLINGUA"))}
    environment = {**kept, **project.variables(), "PYTHONPATH": str(SOURCE_TREE)}
    with servers.serving(project.state, port, environment, runs.LOCATION):
        yield f"http://{servers.LOOPBACK}:{port}"


@pytest.fixture
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


def until(what: str, found: Callable[[], Any]) -> Any:
    """What `found` finds, once it finds something."""
    from selenium.common.exceptions import WebDriverException

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if thing := found():
                return thing
        except WebDriverException:
            pass  # the page was being redrawn
        time.sleep(0.3)
    raise AssertionError(f"no {what} within {PATIENCE} s")


def press(browser: Any, text: str) -> None:
    """Click the button that begins with this text."""

    def click() -> bool:
        for button in browser.find_elements("tag name", "button"):
            if button.text.startswith(text) and button.is_enabled():
                button.click()
                return True
        return False

    until(f"button {text!r}", click)


def pick(browser: Any, path: str) -> None:
    """Click the first thing seen at an XPath."""

    def click() -> bool:
        for thing in browser.find_elements("xpath", path):
            if thing.is_displayed():
                thing.click()
                return True
        return False

    until(path, click)


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{address}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        told = json.load(answer)
    assert "errors" not in told, told
    return told["data"]


MATERIALISED = """
query($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      staleStatus(partition: "tiny")
      assetMaterializations(limit: 5) {
        partition
        metadataEntries { label ... on IntMetadataEntry { intValue } }
      }
    }
  }
}
"""


def ask_node(address: str) -> dict[str, Any]:
    return ask(address, MATERIALISED, key={"path": ["source"]})["assetNodeOrError"]


def test_an_asset_is_materialised_by_hand_for_the_study_that_was_chosen(
    browser: Any, address: str, project: Project, tmp_path: Path
) -> None:
    browser.get(f"{address}/assets/source")
    press(browser, "Materialize")
    pick(browser, "//*[contains(text(), 'Select a partition')]")
    pick(browser, "//span[text()='tiny']")
    browser.save_screenshot(str(tmp_path / "chosen.png"))
    press(browser, "Launch 1 run")

    def done() -> Any:
        node = ask_node(address)
        return node if node["assetMaterializations"] else None

    node = until("materialisation", done)
    browser.get(f"{address}/assets/source?view=partitions&partition=tiny")
    until(
        "metadata of the materialisation",
        lambda: "took_seconds" in browser.find_element("tag name", "body").text,
    )
    browser.save_screenshot(str(tmp_path / "done.png"))
    [event] = node["assetMaterializations"]
    assert event["partition"] == "tiny"
    until("stale mark to go", lambda: ask_node(address)["staleStatus"] == "FRESH")
    assert {e["label"]: e.get("intValue") for e in event["metadataEntries"]}["computed"] == 1
    assert project.store.head("tiny", "source")
    assert project.store.head("other", "source") is None


RERUN = """
mutation($id: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: ALL_STEPS}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def test_a_run_of_the_command_line_can_be_run_again_from_the_ui(address: str, project: Project) -> None:
    from assets.definitions import define
    from assets.engine import declare

    before = dict(os.environ)
    try:
        with runs.instance(project, capture=False) as on:
            list(runs.drive(define(project, declare.discover()), on, "other", ["source"]))
            [run] = on.get_runs(limit=1)
    finally:
        os.environ.clear()
        os.environ.update(before)
    launched = ask(address, RERUN, id=run.run_id)["launchRunReexecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    def ended() -> str | None:
        status = ask(address, STATUS, id=launched["run"]["runId"])["runOrError"]["status"]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert until("end of the run", ended) == "SUCCESS"
