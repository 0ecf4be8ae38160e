"""What knowledge costs a click-through model: a pass over the training rows with it and without.

    python -m benchmarks.kar [--store store] [--study quickstart] [--backbones dcnv2,din] [--epochs 3]
        [--batch 2048]

Both fits are the stage's own (`pipeline.ctr.fit.learn`), on one thread; the fastest pass counts, in processor
seconds. `per row` reads every row's two vectors through the experts by itself, as KAR's code does, for one
pass. Adapted once and stored, vectors cost a look-up: the last column is what scoring all rows takes so, over
what it takes through the experts batch by batch.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from pipeline.collab import pairs
from pipeline.ctr import fit
from pipeline.ctr.adaptor import Adaptor
from pipeline.knowledge import reading
from pipeline.knowledge.vectors import vectors_of
from pipeline.methods import kar
from pipeline.stage import Artefact
from pipeline.store import Store


def newest(store: Store, stage: str, study: str) -> Artefact:
    """The artefact that the study's stage stands for."""
    head = store.head(study, stage)
    if not head:
        raise SystemExit(f"run the study {study} first: {stage} is not in the store")
    return store.get(stage, head[0]["fingerprint"])


@contextmanager
def timed_passes() -> Iterator[list[float]]:
    """Processor seconds of each pass over the training rows."""
    plain, seconds = pairs.descend, []

    def timed(*given):
        begun = time.process_time()
        mean = plain(*given)
        seconds.append(time.process_time() - begun)
        return mean

    pairs.descend = timed
    try:
        yield seconds
    finally:
        pairs.descend = plain


@contextmanager
def read_row_by_row() -> Iterator[None]:
    """Every row's vector through the experts by itself."""
    plain = Adaptor.read

    def each(self: Adaptor, kind: int, rows: Tensor) -> Tensor:
        found = self.adapted(kind, rows.clamp(max=len(self.vectors[kind]) - 1))[:-1]
        return torch.where((rows < len(self.vectors[kind]))[:, None], found, self.missing[kind])

    Adaptor.read = each  # type: ignore[method-assign]
    try:
        yield
    finally:
        Adaptor.read = plain  # type: ignore[method-assign]


def passes(held: fit.Material, backbone: str, settings: kar.KarSettings, with_knowledge: bool, epochs: int):
    """The fitted network, and the fastest pass in seconds."""
    adaptor = kar.experts(settings, "both") if with_knowledge else fit.no_adaptor
    once = settings.model_copy(update={"epochs": epochs, "patience": epochs})
    with timed_passes() as seconds:
        model, _ = fit.learn(held, backbone, once, 3.0, 1, adaptor)
    return model, min(seconds)


def clock(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", default="store")
    parser.add_argument("--study", default="quickstart")
    parser.add_argument("--backbones", default="dcnv2,din")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, help="rows a step; the fit's own number if not given")
    asked = parser.parse_args()
    store = Store(Path(asked.store))
    split, dataset, texts, knowledge = (
        newest(store, stage, asked.study) for stage in ("ctr/split", "dataset", "kar/texts", "kar/vectors")
    )
    rows = split.scan("examples").select("user", "item", "at").collect()
    dense = reading.dense_of(
        vectors_of(knowledge), rows, texts.table("told").select("user", "until"), "both", 1
    )
    settings = kar.KarSettings.model_validate({"batch": asked.batch})
    held = fit.material(split, dataset, settings, dense)
    found = [measured(held, backbone, settings, asked.epochs) for backbone in asked.backbones.split(",")]
    print(pl.DataFrame(found))


def measured(
    held: fit.Material, backbone: str, settings: kar.KarSettings, epochs: int
) -> dict[str, float | str]:
    """Seconds of one backbone, and how they compare."""
    _, without = passes(held, backbone, settings, False, epochs)
    model, with_knowledge = passes(held, backbone, settings, True, epochs)
    with read_row_by_row():
        _, by_row = passes(held, backbone, settings, True, 1)
    some = held.asked()
    stored = clock(lambda: fit.scored(model, some))
    return {
        "backbone": backbone,
        "without": round(without, 2),
        "with": round(with_knowledge, 2),
        "ratio": round(with_knowledge / without, 2),
        "per row": round(by_row, 2),
        "per row, ratio": round(by_row / without, 2),
        "stored over experts": round(stored / clock(lambda: fit.logits(model, some)), 2),
    }


if __name__ == "__main__":
    main()
