"""Ready texts: read by column, refusals recognised, every owner counted once."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.data.importers.tables import TableError
from pipeline.knowledge.imported import ReadyTexts, as_knowledge, counted, outside, read
from pipeline.schema import Knowledge

OWNERS = pl.DataFrame({"owner": [0, 1, 2], "id": ["a", "b", "c"]}, schema_overrides={"owner": pl.UInt32})


def test_every_owner_has_one_row_with_what_became_of_it() -> None:
    texts = pl.DataFrame({"id": ["b", "a", "z"], "text": ["As an AI, I can't say.", 'A "heist"\nfilm.', "x"]})
    table = as_knowledge(texts, OWNERS, "item_facts", 100)
    Knowledge.validate(table)
    assert table.select("owner", "kind", "text", "status", "answer").rows() == [
        (0, "item_facts", "A 'heist' film.", "answered", None),
        (1, "item_facts", None, "refused", None),
        (2, "item_facts", None, "not_asked", None),
    ]
    assert counted(table) == {"answered": 1, "refused": 1, "truncated": 0, "failed": 0, "not_asked": 1}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_files_of_three_kinds_are_read(ending: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"movie": [1, 2, 2], "said": ["one", "two", "again"]})
    {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}[ending](
        tmp_path / f"t.{ending}"
    )
    found = read(ReadyTexts(location=f"t.{ending}", id="movie", text="said"), tmp_path)
    assert found.rows() == [("1", "one"), ("2", "two")]


def test_a_wrong_column_or_ending_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [1], "text": ["a"]}).write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(TableError, match=r"no column 'item_od'.*item_id"):
        read(ReadyTexts(location="t.parquet", id="item_od"), tmp_path)
    with pytest.raises(TableError, match="unknown ending"):
        read(ReadyTexts(location="t.xlsx"), tmp_path)


def test_the_content_of_the_file_is_part_of_what_the_artefact_is(tmp_path: Path) -> None:
    assert outside(ReadyTexts(), tmp_path) == {}
    hashes = []
    for text in ("one", "three"):
        pl.DataFrame({"id": [1], "text": [text]}).write_csv(tmp_path / "t.csv")
        hashes.append(outside(ReadyTexts(location="t.csv"), tmp_path)["t.csv"])
    assert hashes[0] != hashes[1]


def test_real_answers_on_films_are_read_and_their_refusals_counted(shared_data: Path) -> None:
    file = shared_data / "ml1m-llm-text" / "items.parquet"
    if not file.exists():
        pytest.skip("the real texts are not there")
    texts = read(ReadyTexts(location=str(file), id="item_id", text="agent4rec_llm_rating"), Path("/"))
    owners = texts.select("id").with_row_index("owner")
    found = counted(as_knowledge(texts, owners, "item_facts", 4000))
    assert texts.height == 3883
    assert (found["answered"], found["refused"]) == (3863, 20)
    long = read(ReadyTexts(location=str(file), id="item_id", text="yulan_description_long"), Path("/"))
    assert counted(as_knowledge(long, owners, "item_facts", 4000))["refused"] == 94
