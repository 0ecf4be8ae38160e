"""RecTools' SASRec on interactions from a folder; runs in the peer's own environment, see `benchmarks.sasrec`.

    python peer_sasrec.py FOLDER EPOCHS THREADS

Reads known_valid.csv and known_test.csv (user, item, row: what is known before the query of each part; the
first is what is learnt from), writes valid.csv and test.csv (user, rank, item: first ten, seen masked) and
seconds.json. Settings are the peer's defaults but for the width of 64.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

K = 10


def read(folder: Path, part: str) -> Dataset:
    """The interactions as the peer wants them; rows become seconds, so their order is the order of time."""
    frame = pd.read_csv(folder / f"known_{part}.csv")
    frame = frame.rename(columns={"user": Columns.User, "item": Columns.Item})
    frame[Columns.Datetime] = pd.to_datetime(frame["row"], unit="s")
    return Dataset.construct(frame.assign(**{Columns.Weight: 1.0}).drop(columns="row"))


def main() -> None:
    folder, epochs, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    seed_everything(1)
    train = read(folder, "valid")
    model = SASRecModel(n_factors=64, epochs=epochs)
    start = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - start
    for part in ("valid", "test"):
        known = read(folder, part)
        users = known.user_id_map.external_ids
        found = model.recommend(
            users=users, dataset=known, k=K, filter_viewed=True, on_unsupported_targets="ignore"
        )
        found = found.rename(columns={Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"})
        found[["user", "rank", "item"]].to_csv(folder / f"{part}.csv", index=False)
    (folder / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
