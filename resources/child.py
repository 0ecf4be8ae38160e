"""Run a spec in a child process through Dagster Pipes: a native crash ends one asset, not the run."""

import json
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from pipeline.stage import Spec, StageFailed
from pipeline.store import Artefact, Store
from resources.worker import FAILED

COMMAND = (sys.executable, "-m", "resources.worker")


def run_in_child(spec: Spec, context: dg.AssetExecutionContext) -> tuple[Artefact, bool]:
    """Make the spec's artefact in a child process, or find it made: the twin of `pipeline.stage.run`.

    Raises StageFailed where the stage raised and where the process died, with the reason.
    """
    store = Store(spec.store)
    found = store.find(spec.stage, spec.fingerprint)
    if found is not None:
        return found, True
    # The child imports from where this process does, so stages of any package are found.
    client = dg.PipesSubprocessClient(env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
    with tempfile.TemporaryDirectory(prefix="interlingua-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of Dagster's, about its own parts
        note = Path(folder) / "note.json"
        extras = {"spec": spec.to_json(), "note": str(note)}
        try:
            client.run(command=COMMAND, context=context.op_execution_context, extras=extras)
        except DagsterPipesExecutionError as error:
            raise StageFailed(read(note)["failed"] if note.exists() else death(spec, error)) from None
        hit = read(note)["hit"]  # another run may have made it while the child waited
    return store.get(spec.stage, spec.fingerprint), hit


def read(note: Path) -> dict[str, Any]:
    """What the child wrote down of how it went: `failed` with a reason, or whether it was a `hit`."""
    return json.loads(note.read_text())


def death(spec: Spec, error: DagsterPipesExecutionError) -> str:
    """What became of a child that left no note."""
    code = int(str(error).rsplit(" ", 1)[-1])
    where = f"{spec.stage} of study {spec.study}: its child process"
    if code == -signal.SIGKILL:
        return f"{where} was killed (SIGKILL); most often the machine ran out of memory"
    if code < 0:
        return f"{where} crashed ({signal.Signals(-code).name}); the run's own process is unharmed"
    return f"{where} ended with status {code}" + (" and left no reason" if code == FAILED else "")
