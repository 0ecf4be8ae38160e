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
    """Open, query and close, again and again."""
    while not done.is_set():
        if not Path(catalogue).exists():
            time.sleep(0.05)
            continue
        for query in QUERIES:
            try:
                with duckdb.connect(catalogue, read_only=True) as connection:
                    connection.sql(query).fetchall()
                tally.put(None)
            except duckdb.Error as error:
                tally.put(f"{query}: {error}")


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
        process = subprocess.Popen(command(chosen.study), cwd=ROOT, env=environment(folder))
        answers, errors = 0, []
        while process.poll() is None or not tally.empty():
            while not tally.empty():
                error = tally.get()
                answers += error is None
                errors += [error] if error else []
            if process.poll() is not None:
                done.set()
            time.sleep(0.01)
        for reader in readers:
            reader.join()
    print(f"run ended with {process.returncode}; {answers} answers, {len(errors)} errors")
    print("\n".join(errors[:5]))
    sys.exit(bool(errors or process.returncode))


if __name__ == "__main__":
    main()
