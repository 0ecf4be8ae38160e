"""The child process in which a heavy stage runs: reads a Spec, makes its artefact, tells Dagster.

    python -m resources.worker        started by `resources.child` through Dagster Pipes

The artefact goes into the store as it would from any process; only a note of how it went comes back.
"""

import json
import sys
from pathlib import Path

from dagster_pipes import PipesContext, open_dagster_pipes

from pipeline.stage import Spec, StageFailed, run
from resources.chat import reach

FAILED = 3  # exit status of a stage that raised, as against a process that died


def work(pipes: PipesContext) -> int:
    """Run the spec given in the Pipes extras. Returns the exit status."""
    spec, note = Spec.from_json(pipes.get_extra("spec")), Path(pipes.get_extra("note"))
    try:
        artefact, hit = run(spec, reach(Path(spec.root)))
    except (StageFailed, FileNotFoundError) as error:
        note.write_text(json.dumps({"failed": str(error)}))
        return FAILED
    note.write_text(json.dumps({"hit": hit}))
    pipes.log.info(f"{spec.stage} {'found' if hit else 'made'} as {artefact.fingerprint}")
    return 0


if __name__ == "__main__":
    with open_dagster_pipes() as pipes:
        status = work(pipes)
    sys.exit(status)
