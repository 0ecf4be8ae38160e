from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from pipeline.data.importers.columns import ItemsFile, TableFile
from pipeline.data.importers.tables import Reading, TableError, find


def reading(path: Path, **settings) -> Reading:
    return Reading(path, path.name, TableFile(file=path.name, **settings))


def texts(path: Path, column: str, **settings) -> list:
    one = reading(path, **settings)
    return one.frame.select(one.text(column, "columns.x")).collect().to_series().to_list()


def times(values: list | pl.Series, form: str = "auto", dtype=None) -> list:
    path = Path("t.parquet")
    frame = pl.DataFrame({"t": pl.Series(values, dtype=dtype)})
    one = Reading.__new__(Reading)
    one.name, one.types, one.frame = path.name, dict(frame.schema), frame.lazy()
    return one.frame.select(one.time("t", "columns.at", form)).collect().to_series().to_list()


# --- files


def test_a_file_is_found_by_its_end_its_path_or_a_star() -> None:
    files = {"set/a.csv": Path("1"), "set/deep/b.csv": Path("2"), "c.txt": Path("3")}
    assert find("a.csv", files) == {"set/a.csv": Path("1")}
    assert find("set/deep/b.csv", files) == {"set/deep/b.csv": Path("2")}
    assert list(find("*.csv", files)) == ["set/a.csv", "set/deep/b.csv"]
    with pytest.raises(TableError, match=r"no file 'b\.cvs'; did you mean 'b\.csv'"):
        find("b.cvs", files)


def test_an_unknown_ending_needs_a_format(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("u\n1\n")
    with pytest.raises(TableError, match=r"a\.log: unknown ending '\.log'; give `format`"):
        reading(tmp_path / "a.log")
    assert texts(tmp_path / "a.log", "u", format="csv") == ["1"]


def test_a_compressed_csv_is_read(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"u,i\n1,2\n"))
    assert texts(tmp_path / "a.csv.gz", "i") == ["2"]


def test_quotes_blank_lines_and_short_and_long_lines_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('u,i\n"a, b",1\n\n2\n3,4,5\n,,\n"two\nlines",6\n')
    one = reading(tmp_path / "a.csv")
    rows = one.frame.select("source_row", one.text("u", ""), one.text("i", "").alias("i"), torn=one.torn)
    assert rows.collect().rows() == [
        (1, "a, b", "1", None),
        (3, "2", None, None),
        (4, "3", "4", "5"),
        (6, "two\nlines", "6", None),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfu,i\n1,2\n")
    assert texts(tmp_path / "a.csv", "u") == ["1"]


def test_tabs_double_colons_and_files_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("u\ti\n1\t2\n")
    assert texts(tmp_path / "a.tsv", "i") == ["2"]
    (tmp_path / "a.dat").write_text('1::"x::2\n')
    assert texts(tmp_path / "a.dat", "b", separator="::", quote=None, header=("a", "b", "c")) == ['"x']


def test_a_quote_that_never_closes_is_a_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('u,i\n"1,2\n3,4\n')
    one = reading(tmp_path / "a.csv")
    with (
        pytest.raises(TableError, match=r"a\.csv: cannot be read as csv.*`quote` \(null for none\)"),
        one.reading(),
    ):
        one.frame.collect()


def test_fields_of_json_lines_and_a_torn_line(tmp_path: Path) -> None:
    lines = ['{"u": 1, "a b": "x \\"y\\"", "l": ["p", "q|r"]}', "", '{"u": 2, ', '{"u": 3.0, "l": "s|t"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    one = reading(tmp_path / "a.jsonl")
    found = one.frame.select(
        "source_row",
        one.text("u", "").alias("u"),
        one.text("a b", "").alias("t"),
        one.words("l", "", "|").alias("l"),
        torn=one.torn,
    )
    assert found.collect().rows() == [
        (1, "1", 'x "y"', ["p", "q|r"], None),
        (3, None, None, None, '{"u": 2, '),
        (4, "3.0", None, ["s", "t"], None),
    ]
    with pytest.raises(TableError, match=r"a\.jsonl: no column 'v'.*it has: a b, l, u"):
        one.text("v", "columns.user_id")


def test_parquet_keeps_its_types_and_ids_of_floats_lose_their_point(tmp_path: Path) -> None:
    pl.DataFrame({"u": [17850.0, None, 1.5], "l": [["a", "b"], None, []]}).write_parquet(tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", "u") == ["17850", None, "1.5"]
    assert texts(tmp_path / "a.parquet", "l") == ["a, b", None, None]
    one = reading(tmp_path / "a.parquet")
    assert one.frame.select(one.words("l", "", "|")).collect().to_series().to_list() == [["a", "b"], None, []]


# --- columns


def test_a_title_may_be_made_of_columns_and_an_empty_bracket_goes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,y\nToy,1995\nPie,\n,1990\n")
    one = reading(tmp_path / "a.csv")
    titles = one.frame.select(one.filled("{n} ({y})", "columns.title")).collect().to_series()
    assert titles.to_list() == ["Toy (1995)", "Pie", None]
    with pytest.raises(TableError, match=r"no column 'z', which `columns.title` asks for"):
        one.filled("{n} {z}", "columns.title")


def test_a_list_of_profile_columns_is_a_mapping_to_themselves() -> None:
    from pipeline.data.importers.columns import UserColumns

    assert UserColumns.model_validate({"profile": ["age"]}).profile == {"age": "age"}
    assert ItemsFile(file="a").columns.item_id == "item_id"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("1577923200", 1577923200),
        ("1577923200.9", 1577923200),
        ("2020-01-02", 1577923200),
        ("2020-01-02 03:04", 1577934240),
        ("2020-01-02T03:04:05", 1577934245),
        ("2020-01-02T03:04:05Z", 1577934245),
        ("2020-01-02 03:04:05.999", 1577934245),
        ("2020-01-02T03:04:05+01:00", 1577930645),
        ("02/01/2020", None),
        ("soon", None),
        (None, None),
    ],
)
def test_a_time_as_text_is_unix_seconds_or_iso(value: str | None, seconds: int | None) -> None:
    assert times([value], dtype=pl.String) == [seconds]


def test_units_and_forms_of_time() -> None:
    assert times([1577923200999], "unix_ms") == [1577923200]
    assert times(["1577923200999999"], "unix_us") == [1577923200]
    assert times(["1/12/2010 08:26", "13/13/2010 00:00"], "%d/%m/%Y %H:%M") == [1291191960, None]
    assert times(["1/12/2010"], "%d/%m/%Y") == [1291161600]
    assert times(["2010-12-01 00:00:00 +0100"], "%Y-%m-%d %H:%M:%S %z") == [1291158000]


def test_typed_times_are_taken_as_they_are() -> None:
    assert times([datetime(2020, 1, 2, 3, 4, 5, 999_999)]) == [1577934245]
    assert times([date(2020, 1, 2), None]) == [1577923200, None]
    in_berlin = pl.Series([datetime(2020, 1, 2)]).dt.replace_time_zone("Europe/Berlin")
    assert times(in_berlin) == [1577919600]
