"""Two processes query the warehouse without a pause while a whole study runs; every error counts.

python -m benchmarks.readers quickstart
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from benchmarks.kills import ROOT, command, environment

QUERIES = (
    "select count(*) from leaderboard",
    "select stage, count(*) from raw.artefacts group by all",
    "select part, count(*) from raw.examples group by all",
)


def read(catalogue: str, done, tally) -> None:
    """Open, query and close, again and again until the run is over; then tell the answers and errors."""
    answers, errors = 0, []
    while not done.is_set():
        if not Path(catalogue).exists():
            time.sleep(0.05)
            continue
        for query in QUERIES:
            try:
                with duckdb.connect(catalogue, read_only=True) as connection:
                    connection.sql(query).fetchall()
                answers += 1
            except duckdb.Error as error:
                errors.append(f"{query}: {error}")
    tally.put((answers, errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="quickstart")
    chosen = parser.parse_args()
    done, tally = multiprocessing.Event(), multiprocessing.Queue()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalogue = environment(folder)["INTERLINGUA_CATALOGUE"]
        readers = [multiprocessing.Process(target=read, args=(catalogue, done, tally)) for _ in range(2)]
        for reader in readers:
            reader.start()
        code = subprocess.run(command(chosen.study), cwd=ROOT, env=environment(folder)).returncode
        done.set()
        found = [tally.get() for _ in readers]
        for reader in readers:
            reader.join()
    errors = [error for _, own in found for error in own]
    print(f"run ended with {code}; {sum(answers for answers, _ in found)} answers, {len(errors)} errors")
    print("\n".join(errors[:5]))
    sys.exit(bool(errors or code))


if __name__ == "__main__":
    main()
