"""Two real shops, as a new user would bring them: what the page on own data says, shown."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.stage import StageFailed
from tests.pipeline.data.project import Project

pytestmark = pytest.mark.shared_data
SHOP = {
    "file": "interactions.parquet",
    "columns": {"user_id": "user_id", "item_id": "item_id", "at": "timestamp"},
}
ITEMS = {"file": "items.parquet", "columns": {"item_id": "item_id", "title": "title"}}


@pytest.fixture
def shop(project: Project, shared_data: Path) -> Project:
    (project.root / "data").symlink_to(shared_data)
    return project


def read(shop: Project, folder: str, split: dict | None = None, **dataset):
    until = "ctr/split" if split is not None else "dataset"
    ctr = {"ctr": {"split": split}} if split is not None else {}
    return shop.make(until, source={"locations": f"data/{folder}"}, dataset=dataset, **ctr)


def test_a_shop_with_nameless_customers_stops_and_says_how_many(shop: Project) -> None:
    verdict = read(shop, "online-retail", interactions=SHOP).manifest["checks"]["quarantine_share"]
    assert not verdict["passed"]
    assert "26.8% of the rows of interactions are refused:" in verdict["description"]
    nameless = "interactions.parquet: user_id: missing: 135,080 rows (first: row 623, row 1444, row 1445)"
    assert nameless in verdict["description"]


def test_returns_nameless_customers_and_duplicates_stand_in_quarantine_with_their_rows(shop: Project) -> None:
    made = read(
        shop,
        "online-retail",
        interactions={**SHOP, "minimum": {"quantity": 1}},
        items=ITEMS,
        max_quarantine_share=0.3,
    )
    counts = made.table("quarantine").group_by("column", "reason").len().sort("len", descending=True).rows()
    assert counts == [
        ("user_id", "missing", 135_080),
        ("quantity", "below 1", 10_624),
        ("user_id, item_id, timestamp", "repeats another row", 10_127),
    ]
    assert made.manifest["checks"]["quarantine_share"]["passed"]
    source = pl.read_parquet(shop.root / "data/online-retail/interactions.parquet")
    sound = source.filter(pl.col("user_id").is_not_null() & (pl.col("quantity") >= 1))
    assert made.metrics["interactions"] == sound.unique(["user_id", "item_id", "timestamp"]).height
    row = made.table("quarantine").filter(reason="below 1").row(0, named=True)
    assert str(source["quantity"][row["source_row"] - 1]) == row["value"]


def test_a_shop_without_ratings_is_told_what_it_needs(shop: Project) -> None:
    with pytest.raises(StageFailed, match=r"there are no ratings.*set negatives_per_positive"):
        read(shop, "online-retail", {}, interactions=SHOP)


def test_a_shop_that_knows_only_an_order_is_split_as_published_with_drawn_negatives(shop: Project) -> None:
    table = {"file": "interactions.parquet", "columns": {"order": "seq_pos", "part": "split"}}
    titles = {"file": "items.parquet", "columns": {"title": "title", "categories": "categories"}}
    split = {"kind": "published", "negatives_per_positive": 1, "valid_rows": 1000, "test_rows": 1000}
    made = read(shop, "amazon-beauty-p5", split, interactions=table, items=titles)
    assert all(check["passed"] for check in made.manifest["checks"].values())
    facts = made.metrics
    assert [facts[f"{part}_rows_before_caps"] for part in ("train", "valid", "test")] == [
        153_776,
        22_363,
        22_363,
    ]
    assert facts["train_rows"] == 2 * 153_776
    dataset = shop.made["dataset"]
    assert (dataset.metrics["users"], dataset.metrics["items"]) == (22_363, 12_101)
    assert dataset.metrics["items_without_title"] == 0


def test_an_order_counted_per_user_is_not_cut_at_one_moment(shop: Project) -> None:
    table = {"file": "interactions.parquet", "columns": {"order": "seq_pos"}}
    with pytest.raises(StageFailed, match="seems to be counted per user: use kind: per_user"):
        read(shop, "amazon-beauty-p5", {"negatives_per_positive": 1}, interactions=table)
