"""SIGKILL at any moment, two runs at once: the store ends whole, with the bits of an unbroken run."""

import random
import subprocess
import sys
import time
from pathlib import Path

from pipeline.stage import run
from pipeline.store import Store
from tests import toy

SECTIONS = {"seeds": (1, 2), "models": {"doubled": {"steps": 10, "pause": 0.03}}}


def start(store: Path) -> subprocess.Popen:
    """A process that makes the whole toy study."""
    code = (
        "from pathlib import Path; from pipeline.stage import run; from pipeline.store import Store\n"
        "from tests import toy\n"
        f"store = Store({str(store)!r})\n"
        f"for planned in toy.GRAPH.plan(toy.study(**{SECTIONS!r}), store, Path('.')): run(planned.spec)"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def made(root: Path) -> dict[str, dict]:
    return {a.fingerprint: a.manifest["files"] for a in Store(root).all()}


def unbroken(folder: Path) -> dict[str, dict]:
    for planned in toy.GRAPH.plan(toy.study(**SECTIONS), Store(folder), Path()):
        run(planned.spec)
    return made(folder)


def torn(root: Path) -> list[Path]:
    """Folders in an artefact's place that are no whole artefact."""
    whole = {a.path for a in Store(root).all()}
    return [f.parent for f in (root / "artefacts").rglob("*.parquet") if f.parent not in whole]


def seconds_of_a_run(store: Path) -> float:
    began = time.monotonic()
    assert start(store).wait() == 0
    return time.monotonic() - began


def test_a_store_killed_at_random_moments_ends_bit_equal(tmp_path: Path) -> None:
    moment, whole = random.Random(1), unbroken(tmp_path / "whole")
    longest = seconds_of_a_run(tmp_path / "timed")
    kills = stores = 0
    while kills < 6:
        store = tmp_path / f"broken-{stores}"
        process = start(store)
        try:
            assert process.wait(moment.uniform(0.3, 1) * longest) == 0
            assert made(store) == whole
            stores += 1  # it was done before the kill: go on with an empty one
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        assert torn(store) == []
    assert start(tmp_path / f"broken-{stores}").wait() == 0
    assert made(tmp_path / f"broken-{stores}") == whole


def test_interrupted_work_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    process = start(tmp_path / "broken")
    checkpoint = tmp_path / "broken" / "work"
    while not list(checkpoint.glob("*/checkpoints/state.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert list(checkpoint.glob("*/checkpoints/state.json"))
    assert start(tmp_path / "broken").wait() == 0
    assert made(tmp_path / "broken") == unbroken(tmp_path / "whole")


def test_two_runs_at_once_make_each_artefact_once(tmp_path: Path) -> None:
    both = [start(tmp_path / "shared") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert made(tmp_path / "shared") == unbroken(tmp_path / "whole")
    doubled = [a for a in Store(tmp_path / "shared").all() if a.stage == "doubled"]
    assert len(doubled) == 2
