"""A small split of the next_item track, and a way to run one of its models on it as the graph would.

Users of two tastes walk round a circle of their items, even or odd, so a model has something to find: of the
items not seen, those of a user's own parity are right, and the next one on the circle is the target.
"""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import polars as pl

from pipeline.collab.events import Trained, trained_rows
from pipeline.collab.fitted import scores_of
from pipeline.collab.ranked import order
from pipeline.schema import Catalogue, Events, Queries
from pipeline.stage import Draft, Source, Spec, Stage, run
from pipeline.store import Artefact, Store
from tests.specs import spec_from

SPLIT = "6" * 32
CIRCLE, COLD_ITEM, ITEMS = 22, 22, 24  # items with training rows; the first without; all
LEARNT, STEPS = 22, 9  # users with training rows; items that each of them uses
NEW, NEW_ON_COLD, EMPTY = 22, 23, 24  # users without: history of known items, of a cold item, none


class Toy(NamedTuple):
    """Tables of a split."""

    events: pl.DataFrame
    queries: pl.DataFrame
    catalogue: pl.DataFrame

    @property
    def trained(self) -> Trained:
        return trained_rows(self.events, self.queries, self.catalogue.height)

    def part(self, name: str) -> pl.DataFrame:
        """The queries of a part."""
        return self.queries.filter(pl.col("part") == name)


def toy(learnt: Iterable[list[int]], n_items: int, new: Iterable[list[int]] = ()) -> Toy:
    """Leave-last-two of users who use these items in this order; of users who came after training, the last."""
    rows, asked = [], []
    walks = [*((True, items) for items in learnt), *((False, items) for items in new)]
    for user, (known, items) in enumerate(walks):
        last = len(items) - 1
        parts = ["train"] * (last - 1) + ["valid", "test"] if known else ["test"] * len(items)
        rows += [(part, user, item, at) for at, (part, item) in enumerate(zip(parts, items, strict=True))]
        asked += [("valid", user, last - 1, items[: last - 1], [items[last - 1]])] if known else []
        asked += [("test", user, last, items[:last], [items[last]])]
    events = pl.DataFrame(rows, schema=["part", "user", "item", "at"], orient="row").with_row_index("row")
    queries = pl.DataFrame(asked, schema=["part", "user", "at", "history", "targets"], orient="row")
    counts = [events.filter(part="train", item=item).height for item in range(n_items)]
    places = iter(range(n_items))
    held = {
        "item": range(n_items),
        "place": [next(places) if n else None for n in counts],
        "train_rows": counts,
    }
    return Toy(
        Events.validate(events.select(Events.column_names()), cast=True),
        Queries.validate(queries.sort("part", "user"), cast=True),
        Catalogue.validate(pl.DataFrame(held), cast=True),
    )


def circles() -> Toy:
    """The toy of this module."""
    learnt = [[(user + 2 * step) % CIRCLE for step in range(STEPS)] for user in range(LEARNT)]
    return toy(learnt, ITEMS, new=[[0, 2, 4, 6], [COLD_ITEM, 5], [7]])


def store_with(tables: Toy, folder: Path) -> Store:
    """A store that holds the tables as the artefact of `next_item/split`."""
    store = Store(folder / "store")
    draft = store.draft(folder / "store/work" / SPLIT)
    for name, frame in tables._asdict().items():
        frame.write_parquet(draft / f"{name}.parquet")
    key = {"stage": "next_item/split", "fingerprint": SPLIT}
    store.commit(draft, {**key, "files": {}, "cell": {}, "metrics": {}, "measured": {}})
    return store


def spec_of(stage: Stage, store: Store, seed: int = 1, **settings: Any) -> Spec:
    """The spec of the stage on that store's split."""
    cell = {"seed": seed} if stage.seeded else {}
    inputs = {"split": Source("next_item/split", SPLIT)}
    return spec_from(stage, store, inputs, cell, settings)


def artefact(folder: Path, **tables: pl.DataFrame) -> Artefact:
    """A finished folder of these tables, whatever stage they are of."""
    folder.mkdir(parents=True)
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return Artefact(folder, {"cell": {}, "section": "models", "controls": []})


def draft(stage: Stage, folder: Path) -> Draft:
    """An empty draft of a stage."""
    spec = cast(Spec, SimpleNamespace(root=str(folder), store=str(folder), study="toy", cell={}))
    return Draft(folder / "draft", stage, spec, folder / "checkpoints")


def split_of(made: Artefact) -> Artefact:
    """The split that `make` made an artefact from."""
    return Store(made.path.parents[3]).get("next_item/split", SPLIT)


def asked_again(made: Artefact, queries: pl.DataFrame) -> pl.DataFrame:
    """The orders that a finished artefact of `make` gives queries, by what it holds and its split alone."""
    return order(scores_of(made, split_of(made)), queries, ITEMS)


def make(stage: Stage, tables: Toy, folder: Path, seed: int = 1, **settings: Any) -> Artefact:
    """Run the stage on the tables. Returns its artefact, whose checks all ran."""
    return run(spec_of(stage, store_with(tables, folder), seed, **settings))[0]
