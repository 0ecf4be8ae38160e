"""Every assertion returns no rows on good data, and some on planted bad data."""

import json
import shutil

import polars as pl
import pytest

from pipeline.store import MANIFEST, Store
from resources import warehouse
from resources.warehouse import SQL, query, read_view

BINLLM, BOARD, SHOWN = "binllm/predictions", "ctr/leaderboard", "next_item/recommendations"


def first(column: str, value) -> pl.Expr:
    """The column with its first row replaced."""
    return pl.when(pl.int_range(pl.len()) == 0).then(value).otherwise(pl.col(column)).alias(column)


def doubled(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(1)])


def swapped_history(frame: pl.DataFrame) -> pl.DataFrame:
    """The first example's history holds its own item, met only now."""
    fresh = frame.filter(~pl.col("item").is_in(pl.col("history"))).head(1)
    fresh = fresh.with_columns(history=pl.concat_list("item"), history_labels=pl.concat_list("label"))
    return pl.concat([fresh.select(frame.columns), frame.filter(pl.col("row") != fresh["row"][0])])


def recommended_again(frame: pl.DataFrame) -> pl.DataFrame:
    """Every user's first item is every item, so that some were used."""
    every = pl.DataFrame({"item": range(100)}, schema={"item": pl.UInt32})
    return frame.filter(rank=1).drop("item").join(every, how="cross").select(frame.columns)


PLANTED = {  # assertion -> stage, table, fault
    "score_not_finite": (BINLLM, "pairs", lambda f: f.with_columns(first("score", float("nan")))),
    "pair_scored_twice": (BINLLM, "pairs", doubled),
    "probability_outside_unit": (BINLLM, "pairs", lambda f: f.with_columns(first("probability", 1.5))),
    "label_mismatch": (BINLLM, "pairs", lambda f: f.with_columns(first("label", 1 - pl.col("label")))),
    "pair_not_in_split": (BINLLM, "pairs", lambda f: f.with_columns(first("user", 999).cast(pl.UInt32))),
    "methods_scored_different_rows": (BINLLM, "pairs", lambda f: f.slice(1)),
    "history_not_earlier": ("ctr/split", "examples", swapped_history),
    "prompt_shows_more_than_history": (
        "binllm/prompts",
        "prompts",
        lambda f: f.with_columns(first("shown", pl.concat_list(pl.lit(999, pl.UInt32)))),
    ),
    "interaction_unknown": ("dataset", "items", lambda f: f.slice(1)),
    "figure_outside_interval": (BOARD, "leaderboard", lambda f: f.with_columns(first("low", 0.999))),
    "figure_out_of_range": (BOARD, "leaderboard", lambda f: f.with_columns(first("value", -0.1))),
    "p_value_impossible": (BOARD, "comparisons", lambda f: f.with_columns(first("p_holm", -0.1))),
    "recommended_item_used_before": (SHOWN, "recommendations", recommended_again),
    "recommended_item_twice": (SHOWN, "recommendations", doubled),
    "curve_not_finite": ("mf", "curve", lambda f: f.with_columns(first("value", float("inf")))),
}


@pytest.fixture
def copied(store, tmp_path):
    """A store of one's own to spoil."""
    shutil.copytree(store.root, tmp_path / "store")
    return Store(tmp_path / "store")


def spoil(store: Store, stage: str, table: str, fault) -> None:
    """Change a table of the stage's first artefact behind the schema's back."""
    artefact = store.heads()["ranked" if stage == SHOWN else "quickstart"][stage][0]
    file = artefact.file(f"{table}.parquet")
    fault(pl.read_parquet(file)).write_parquet(file)
    manifest = json.loads(artefact.file(MANIFEST).read_text())
    manifest["files"][f"{table}.parquet"]["bytes"] = file.stat().st_size
    artefact.file(MANIFEST).write_text(json.dumps(manifest))


def test_good_data_breaks_nothing(catalogue):
    assert {name: rows.height for name, rows in warehouse.assertions(catalogue).items() if rows.height} == {}


def test_every_assertion_names_the_study(catalogue):
    assert all("study" in rows.columns for rows in warehouse.assertions(catalogue).values())


def test_every_assertion_has_a_planted_fault():
    assert {file.stem for file in (SQL / "assertions").glob("*.sql")} == {*PLANTED, "blocking_check_failed"}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_found(copied, tmp_path, name):
    spoil(copied, *PLANTED[name])
    catalogue = warehouse.publish(copied.root, tmp_path / "spoilt.duckdb")
    assert query(catalogue, read_view(SQL / f"assertions/{name}.sql")[1]).height > 0


def test_fault_of_one_study_is_not_laid_on_another(copied, tmp_path):
    spoil(copied, *PLANTED["score_not_finite"])
    catalogue = warehouse.publish(copied.root, tmp_path / "spoilt.duckdb")
    assert warehouse.assertions(catalogue, "quickstart")["score_not_finite"].height == 1
    assert {rows.height for rows in warehouse.assertions(catalogue, "baselines").values()} == {0}


def test_blocking_check_that_failed_is_found(copied, tmp_path):
    artefact = copied.heads()["quickstart"]["mf"][0]
    manifest = json.loads(artefact.file(MANIFEST).read_text())
    manifest["checks"]["holds"]["passed"] = False
    artefact.file(MANIFEST).write_text(json.dumps(manifest))
    catalogue = warehouse.publish(copied.root, tmp_path / "spoilt.duckdb")
    found = warehouse.assertions(catalogue)["blocking_check_failed"]
    assert sorted(found.select("study", "stage", "name").rows()) == [
        ("baselines", "mf", "holds"),  # the studies share this artefact
        ("quickstart", "mf", "holds"),
    ]


def test_good_data_holds_a_warning_that_breaks_nothing(catalogue):
    warned = query(catalogue, "from raw.checks where not passed")
    assert warned["name"].unique().to_list() == ["balanced"]


@pytest.mark.parametrize("file", sorted((SQL / "assertions").glob("*.sql")), ids=lambda file: file.stem)
def test_assertion_says_what_its_rows_are(file):
    assert len(read_view(file)[0]) > 20
