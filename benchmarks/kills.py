"""SIGKILL a study's run at random moments, run it on, and compare with an unbroken run, bit for bit.

    python -m benchmarks.kills quickstart --kills 50 --reference store

Each kill ends the whole process group of `interlingua run STUDY` after a random time. A store that is complete
before all kills are spent is compared and another is begun. Prints one line a store, exits 1 at any difference.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.store import MANIFEST, Store

ROOT = Path(__file__).resolve().parents[1]


def command(study: str) -> list[str]:
    return [sys.executable, "-m", "assets.cli", "run", study]


def environment(folder: Path) -> dict[str, str]:
    """A project of its own beside the sources: same studies and downloads, another store and Dagster state."""
    return {
        **os.environ,
        "INTERLINGUA_STORE": str(folder / "store"),
        "INTERLINGUA_CATALOGUE": str(folder / "catalogue.duckdb"),
        "INTERLINGUA_REPORTS": str(folder / "reports"),
        "DAGSTER_STATE": str(folder / "dagster"),
    }


def run(study: str, folder: Path, seconds: float | None) -> bool:
    """Run until done or killed after `seconds`. True where it was killed."""
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            command(study), cwd=ROOT, env=environment(folder), start_new_session=True, stdout=log, stderr=log
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
    if code:
        sys.exit(f"the run failed with exit code {code}:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return False


def contents(store: Path, study: str) -> dict[tuple[str, str], dict]:
    """(stage, fingerprint) -> file hashes, of what the study's heads name; measured stages left out."""
    from assets.engine.declare import graph

    stages = graph().stages
    return {
        (stage, artefact.fingerprint): artefact.manifest["files"]
        for stage, artefacts in Store(store).heads()[study].items()
        if not stages[stage].measured
        for artefact in artefacts
    }


def torn(store: Path) -> list[Path]:
    """Artefact folders that are there but not whole."""
    whole = {artefact.path for artefact in Store(store).all()}
    folders = {f.parent for f in (store / "artefacts").rglob(MANIFEST)}
    return sorted(folders - whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", nargs="?", default="quickstart")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--reference", type=Path, default=ROOT / "store", help="store of an unbroken run")
    parser.add_argument("--shortest", type=float, default=1.0, help="seconds")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    moments, expected = random.Random(chosen.seed), contents(chosen.reference, chosen.study)
    kills, stores, started = 0, 0, time.monotonic()
    while kills < chosen.kills:
        with tempfile.TemporaryDirectory() as name:
            folder, here = Path(name), 0
            while kills < chosen.kills:
                if not run(chosen.study, folder, moments.uniform(chosen.shortest, chosen.longest)):
                    break
                kills, here = kills + 1, here + 1
                assert not torn(folder / "store"), torn(folder / "store")
            run(chosen.study, folder, None)
            stores += 1
            same = contents(folder / "store", chosen.study) == expected
            print(f"store {stores}: {here} kills, {len(expected)} artefacts, bit-equal: {same}", flush=True)
            if not same:
                sys.exit(1)
    print(f"{kills} kills, {stores} stores, 0 torn artefacts, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
