"""PRM: lists to learn from, what a list may read, figures; all variants on a small world."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from pipeline.data.candidates import candidates
from pipeline.data.next_item import next_split
from pipeline.graph import Graph
from pipeline.knowledge.vectors import KINDS
from pipeline.methods import prm
from pipeline.schema import Interactions, Items, Knowledge, ToldPasts, Users, empty
from pipeline.stage import Artefact, Settings, run, stage
from pipeline.store import Store
from pipeline.study import Study
from tests import toy_ctr_models
from tests.contracts import MethodContract
from tests.toy_ctr import failed

USERS, ITEMS, STEPS = 12, 24, 9
QUICK = {
    "lists": "random_10", "steps": 2, "history": 4, "dim": 4, "width": 8, "layers": [8], "shared": 1,
    "dedicated": 1, "hidden": 6, "epochs": 4, "patience": 4, "batch": 8, "lr": 0.02, "spread": 0.3,
}  # fmt: skip


@stage(
    "dataset",
    settings=Settings,
    section="data",
    version=1,
    tables={"interactions": Interactions, "items": Items, "users": Users},
)
def dataset(settings: Settings, out) -> None:
    """Walks round a circle of items, a step a moment."""
    rows = [(user, (5 * user + 2 * step) % ITEMS, step) for user in range(USERS) for step in range(STEPS)]
    table = pl.DataFrame(rows, schema=["user", "item", "at"], orient="row").with_row_index("row")
    nothing = {"rating": pl.lit(None, pl.Float64), "part": pl.lit(None, pl.String)}
    out.table("interactions", table.with_columns(**nothing).select(Interactions.column_names()))
    out.table("items", toy_ctr_models.items(ITEMS).with_columns(text=pl.lit(None, pl.String)))
    out.table("users", toy_ctr_models.users(USERS))
    out.metric(clock="seconds")


@stage(
    "kar/texts",
    settings=Settings,
    section="models",
    version=1,
    tables={"knowledge": Knowledge, "told": ToldPasts},
    inputs={"dataset": "dataset"},
)
def texts(dataset: Artefact, settings: Settings, out) -> None:
    """The first four events of each user but the last; all but two of the first user's."""
    rows = dataset.table("interactions").filter(pl.col("at") < pl.when(user=0).then(STEPS - 2).otherwise(4))
    told = rows.filter(pl.col("user") < USERS - 1).group_by("user", maintain_order=True)
    out.table("told", told.agg(items="item", until=pl.col("at").max()))
    out.table("knowledge", empty(Knowledge))


def random_vectors(out, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    sizes = zip(KINDS, (USERS, ITEMS), strict=True)
    held = {kind: torch.randn(count, 5, generator=draws) for kind, count in sizes}
    out.tensors("vectors", held | {f"{kind}_owner": torch.arange(len(held[kind])) for kind in KINDS})


@stage("kar/vectors", settings=Settings, section="models", version=1)
def kar_vectors(settings: Settings, out) -> None:
    """Drawn."""
    random_vectors(out, 1)


@stage("kar/raw_vectors", settings=Settings, section="models", version=1)
def raw_vectors(settings: Settings, out) -> None:
    """Drawn otherwise."""
    random_vectors(out, 2)


GRAPH = Graph((dataset, next_split, candidates, texts, kar_vectors, raw_vectors, prm.predictions))
Made = Mapping[str, Mapping[str, Artefact]]


def make(folder: Path, variants: list[str], **settings: Any) -> dict[str, dict[str, Artefact]]:
    study = Study(
        name="toy",
        title="Toy",
        tracks=("next_item", "rerank"),
        methods={"prm": {"variants": variants, "predictions": {**QUICK, **settings}}},
    )
    found: dict[str, dict[str, Artefact]] = {}
    for planned in GRAPH.plan(study, Store(folder / "store"), folder):
        artefact, _ = run(planned.spec)
        found.setdefault(planned.stage.name, {})[artefact.variant] = artefact
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("prm"), list(prm.VARIANTS))


def scores(made: Made, variant: str) -> np.ndarray:
    return made["prm/predictions"][variant].table("rankings").sort("part", "user", "item")["score"].to_numpy()


def events(made: Made) -> pl.DataFrame:
    return made["next_item/split"]["default"].table("events")


class TestPrm(MethodContract):
    stages: ClassVar = (prm.predictions,)
    predicts: ClassVar = "orders"


def test_no_check_fails_but_what_a_small_fit_may_fail(made: Made) -> None:
    for variant, artefact in made["prm/predictions"].items():
        assert set(failed(artefact)) <= {"better_than_first_scores", "knowledge_moves_scores"}, variant


def test_every_variant_scores_otherwise_and_again_the_same(made: Made, tmp_path: Path) -> None:
    found = [scores(made, variant) for variant in prm.VARIANTS]
    assert all(not np.allclose(a, b) for n, a in enumerate(found) for b in found[:n])
    again = make(tmp_path, ["shuffled"])
    assert np.array_equal(scores(again, "shuffled"), scores(made, "shuffled"))


# --- lists


def test_lists_to_learn_from_are_of_the_last_train_events_and_items_unused_in_train(made: Made) -> None:
    train = events(made).filter(part="train")
    rows, items = prm.learnt(events(made), 10, 2, seed=3)
    walk = train.filter(user=4).sort("at")["item"].to_list()
    own = rows.filter(user=4).sort("step")
    assert own["item"].to_list() == walk[:-3:-1]
    assert own["history"].to_list() == [walk[:-1], walk[:-2]]
    assert own["at"].to_list() == train.filter(user=4)["at"].sort().to_list()[:-3:-1]
    assert items.group_by("step", "user").agg(pl.len(), pl.col("label").sum()).select(
        "len", "label"
    ).unique().rows() == [(10, 1)]
    assert items.filter(label=0).join(train, on=["user", "item"], how="semi").is_empty()
    both = [set(items.filter(user=4, step=step, label=0)["item"]) for step in (0, 1)]
    assert both[0] != both[1]


def test_first_scores_are_train_uses_without_the_row_itself_and_give_the_first_order(made: Made) -> None:
    settings = prm.PrmSettings.model_validate(QUICK)
    split, stored = made["next_item/split"]["default"], made["rerank/candidates"]["default"]
    lists = prm.gathered(split, stored, settings, seed=1)
    uses = dict(events(made).filter(part="train").group_by("item").len().iter_rows())
    for number, part in lists.rows.select("number", "part").iter_rows():
        own = lists.items.filter(number=number)
        expected = [
            np.log(1 + uses.get(item, 0) - (label if part == "train" else 0))
            for item, label in own.select("item", "label").iter_rows()
        ]
        assert own["initial"].to_list() == pytest.approx(expected)
        assert own["initial"].is_sorted(descending=True)
    due = stored.table("candidates").filter(list="random_10", part="test")
    asked = lists.rows.filter(part="test").select("number", "user")
    found = lists.items.join(asked, on="number").select("user", "item", "label").sort("user", "item")
    assert found.rows() == due.select("user", "item", "label").sort("user", "item").rows()


# --- what a list reads


def test_a_text_of_the_targets_moment_or_later_is_not_read(made: Made) -> None:
    artefact = made["prm/predictions"]["knowledge"]
    held = artefact.tensors("adapted")
    none = len(held["user"]) - 1
    read = dict.fromkeys(range(USERS), 0)
    for user, vector in zip(held["user_of_list"].tolist(), held["vector_of_list"].tolist(), strict=True):
        read[user] += vector != none
    assert read[0] == 2  # both train lists end before the text does: validation and test alone
    assert read[USERS - 1] == 0  # nothing is told of the last user
    assert read[5] == 4


def test_the_guard_sees_a_list_that_reads_its_own_moment(made: Made, tmp_path: Path) -> None:
    artefact = made["prm/predictions"]["knowledge"]
    inputs = {
        name: made[f"{stage}"]["default"]
        for name, stage in (("split", "next_item/split"), ("texts", "kar/texts"))
    }

    class Planted:
        def file(self, name: str) -> Path:
            return tmp_path / name

    settings = prm.PrmSettings.model_validate({})
    assert prm.no_text_tells_its_list(Planted(), inputs, settings).passed  # type: ignore[arg-type]
    held = artefact.tensors("adapted")
    save_file(held, tmp_path / "adapted.safetensors")
    assert prm.no_text_tells_its_list(Planted(), inputs, settings).passed  # type: ignore[arg-type]
    save_file(
        {**held, "vector_of_list": torch.zeros_like(held["vector_of_list"])}, tmp_path / "adapted.safetensors"
    )
    found = prm.no_text_tells_its_list(Planted(), inputs, settings)  # type: ignore[arg-type]
    assert not found.passed
    assert found.description.startswith("6 of 48 lists")  # two of the first user, four of whom nothing is told


# --- orders and figures


def test_every_stored_list_is_ordered_and_a_missing_one_is_seen(made: Made) -> None:
    artefact = made["prm/predictions"]["without_knowledge"]
    table = artefact.table("rankings")
    assert table["track"].unique().to_list() == ["rerank/random_10"]
    inputs = {"candidates": made["rerank/candidates"]["default"]}
    settings = prm.PrmSettings.model_validate(QUICK)

    class Short:
        def __init__(self, rows: pl.DataFrame) -> None:
            self.rows = rows

        def read(self, name: str) -> pl.DataFrame:
            return self.rows

    assert prm.every_list_ordered_once(Short(table), inputs, settings).passed  # type: ignore[arg-type]
    for rows in (table.filter(pl.col("user") != 3), table.clear()):
        assert not prm.every_list_ordered_once(Short(rows), inputs, settings).passed  # type: ignore[arg-type]


def test_figures_of_the_paper_stand_beside_clean_ones(made: Made) -> None:
    metrics = made["prm/predictions"]["knowledge"].metrics
    table = made["prm/predictions"]["knowledge"].table("rankings").filter(part="test").filter("target")
    ranks = table["rank"].to_numpy()
    expected = np.where(ranks <= 7, 1 / ranks, 0).mean()
    assert metrics["test_map_7"] == pytest.approx(expected, abs=1e-6)
    assert metrics["test_map_7_as_coded"] == metrics["test_map_7"]  # one liked item in each list
    assert metrics["valid_ndcg_10"] >= 0


def test_ndcg_counts_equal_scores_against_the_target() -> None:
    assert prm.ndcg_10(np.array([[1.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), np.array([0, 0])) == pytest.approx(
        (1 / np.log2(3) + 1) / 2
    )
    assert np.isnan(prm.ndcg_10(np.zeros((0, 3)), np.zeros(0, int)))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="a width of 9 does not part into 2 heads"):
        prm.PrmSettings.model_validate({"width": 9})
