"""Own data end to end: hand-written files with every kind of fault, and what becomes of their rows."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipeline.data.dataset import DatasetSettings, numbered, references_hold
from pipeline.graph import Graph
from pipeline.stage import StageFailed
from pipeline.study import Study, StudyError
from tests.pipeline.data.project import STAGES, Project

EVENTS = {
    "file": "events.csv",
    "columns": {"user_id": "who", "item_id": "what", "at": "when", "rating": "stars"},
}
GOOD = "who,what,when,stars\nann,tea,100,5\nbob,tea,90,1\nann,jam,110,3\n"


def made(project: Project, **dataset):
    return project.make("dataset", source={"locations": "shop"}, dataset={"interactions": EVENTS, **dataset})


def events(project: Project, text: str, **dataset):
    project.write("shop/events.csv", text)
    return made(project, **dataset)


def refused(artefact) -> list[tuple]:
    rows = artefact.table("quarantine").select("source_row", "column", "reason", "value")
    return sorted(rows.iter_rows(), key=lambda row: (row[0], row[1], row[2]))


# --- sound rows


def test_sound_rows_become_numbers_in_the_order_of_time(project: Project) -> None:
    artefact = events(project, GOOD)
    assert artefact.table("interactions").rows() == [
        (0, 1, 1, 1.0, 90, None),
        (1, 0, 1, 5.0, 100, None),
        (2, 0, 0, 3.0, 110, None),
    ]
    assert artefact.table("users").rows() == [(0, "ann", None), (1, "bob", None)]
    assert artefact.table("items").rows() == [(0, "jam", "jam", None, None), (1, "tea", "tea", None, None)]
    assert artefact.table("quarantine").is_empty()
    assert artefact.metrics["interactions"] == 3
    assert artefact.metrics["clock"] == "time"


def test_rows_of_one_time_keep_the_order_of_the_file(project: Project) -> None:
    artefact = events(project, "who,what,when,stars\nb,z,1,1\na,y,1,1\nb,x,1,1\n")
    items = artefact.table("items")["item_id"]
    assert [items[i] for i in artefact.table("interactions")["item"]] == ["z", "y", "x"]


def test_whole_number_ids_are_numbered_as_numbers_and_others_as_text() -> None:
    assert numbered("item", pl.Series(["10", "9", "100"]))["item_id"].to_list() == ["9", "10", "100"]
    assert numbered("item", pl.Series(["10", "9", "a"]))["item_id"].to_list() == ["10", "9", "a"]
    assert numbered("item", pl.Series(["1", "01"]), pl.Series(["1"]))["item_id"].to_list() == ["01", "1"]


def test_the_same_files_make_the_same_bits(project: Project, tmp_path: Path) -> None:
    first = events(project, GOOD).manifest["files"]
    other = Project(tmp_path / "other")
    assert events(other, GOOD).manifest["files"] == first


def test_items_and_users_bring_titles_categories_texts_and_profiles(project: Project) -> None:
    project.write("shop/items.csv", "id,name,year,tags,about\ntea,Tea, The,,\n")
    project.write(
        "shop/items.csv", 'id,name,year,tags,about\ntea,"Tea, The",1999,hot|leaf,A drink\npie,Pie,,,\n'
    )
    project.write("shop/users.csv", "who,age,town\nann,30,Ulm\nbob,,\neve,20,\n")
    columns = {"item_id": "id", "title": "{name} ({year})", "categories": "tags", "text": "about"}
    artefact = events(
        project,
        GOOD,
        items={"file": "items.csv", "columns": columns},
        users={"file": "users.csv", "columns": {"user_id": "who", "profile": ["age", "town"]}},
        leading_article=True,
    )
    assert artefact.table("items").rows() == [
        (0, "jam", "jam", None, None),
        (1, "pie", "Pie", None, None),
        (2, "tea", "The Tea (1999)", ["hot", "leaf"], "A drink"),
    ]
    assert artefact.table("users")["profile"].to_list() == ["age: 30, town: Ulm", None, "age: 20"]
    assert artefact.metrics["items_not_listed"] == 1
    assert artefact.metrics["items_without_title"] == 0
    assert (artefact.metrics["items"], artefact.metrics["active_items"]) == (3, 2)


def test_an_item_without_a_title_is_called_by_its_id_and_counted(project: Project) -> None:
    project.write("shop/items.csv", "id,name\ntea,\njam,  \n")
    artefact = events(project, GOOD, items={"file": "items.csv", "columns": {"item_id": "id", "title": "name"}})
    assert artefact.table("items")["title"].to_list() == ["jam", "tea"]
    assert artefact.metrics["items_without_title"] == 2


def test_several_files_with_constants_make_a_published_split(project: Project) -> None:
    project.write("shop/first.csv", "who,what,when\na,x,1\n")
    project.write("shop/last.csv", "who,what,when\na,y,2\n")
    columns = {"user_id": "who", "item_id": "what", "at": "when", "part": "part"}
    tables = [
        {"file": "first.csv", "columns": columns, "constants": {"part": "Training"}},
        {"file": "last.csv", "columns": columns, "constants": {"part": "test"}},
    ]
    artefact = made(project, interactions=tables)
    assert artefact.table("interactions")["part"].to_list() == ["train", "test"]


def test_a_star_in_the_name_reads_all_files_that_match(project: Project) -> None:
    project.write("shop/2020/a.csv", GOOD)
    project.write("shop/2021/b.csv", "who,what,when,stars\ncat,tea,1,9\n")
    artefact = made(
        project, interactions={**EVENTS, "file": "*.csv"}, rating_range=[1, 5], max_quarantine_share=1
    )
    assert artefact.metrics["interactions"] == 3
    assert artefact.table("quarantine").select("file", "source_row").rows() == [("2021/b.csv", 1)]


def test_an_order_stands_in_for_time(project: Project) -> None:
    project.write("shop/events.csv", "who,what,place\na,x,2\na,y,0\na,z,1.5\n")
    table = {"file": "events.csv", "columns": {"user_id": "who", "item_id": "what", "order": "place"}}
    artefact = made(project, interactions=table, max_quarantine_share=1)
    assert artefact.table("interactions")["at"].to_list() == [0, 2]
    assert artefact.metrics["clock"] == "order"
    assert refused(artefact) == [(3, "place", "no whole number", "1.5")]


def test_rows_that_are_not_kept_are_no_fault(project: Project) -> None:
    text = "who,what,when,stars,kind\na,x,1,5,buy\na,y,2,5,view\na,z,3,5,buy\n"
    artefact = events(project, text, interactions={**EVENTS, "keep": {"kind": ["buy"]}})
    assert artefact.table("interactions")["at"].to_list() == [1, 3]
    assert artefact.table("quarantine").is_empty()
    assert artefact.metrics["interactions_read"] == 2


@pytest.mark.parametrize(("repeats", "times"), [("all", [1, 2, 3]), ("first", [1, 3]), ("last", [2, 3])])
def test_repeats_at_other_times_stay_or_are_left_out(project: Project, repeats: str, times: list[int]) -> None:
    artefact = events(project, "who,what,when,stars\na,x,1,5\na,x,2,5\na,y,3,5\n", repeats=repeats)
    assert artefact.table("interactions")["at"].to_list() == times
    assert artefact.table("quarantine").is_empty()
    assert artefact.metrics["interactions_left_out"] == 3 - len(times)


def test_reviews_follow_their_users_and_items(project: Project) -> None:
    project.write(
        "shop/reviews.csv", "who,what,when,says\nann,tea,5,Good\x07 stuff\neve,tea,6,hm\nann,jam,7,\n"
    )
    columns = {"user_id": "who", "item_id": "what", "at": "when", "text": "says"}
    artefact = events(
        project, GOOD, reviews={"file": "reviews.csv", "columns": columns}, max_quarantine_share=1
    )
    assert artefact.table("reviews").rows() == [(0, 1, 5, "Good stuff")]
    assert refused(artefact) == [
        (2, "user and item", "no such user or item", "eve, tea"),
        (3, "says", "missing", None),
    ]


# --- refused rows

FAULTS = """who,what,when,stars
ann,tea,100,5
,tea,101,5
ann,  ,102,5
ann,tea,,5
ann,tea,yesterday,5
ann,tea,1700000000000,5
ann,tea,106,
ann,tea,107,great
ann,tea,108,6
ann,tea,109,NaN
ann,tea,110,5,surplus
bob,tea
ann,tea,100,4
"""


def test_every_kind_of_fault_is_refused_with_row_column_reason_and_value(project: Project) -> None:
    artefact = events(project, FAULTS, rating_range=[1, 5], max_quarantine_share=1)
    assert refused(artefact) == [
        (2, "who", "missing", None),
        (3, "what", "missing", None),
        (4, "when", "missing", None),
        (5, "when", "no time (unix seconds or ISO 8601)", "yesterday"),
        (6, "when", "outside 1970 to 2100: is `time` right?", "1700000000000"),
        (7, "stars", "missing", None),
        (8, "stars", "not a number", "great"),
        (9, "stars", "outside 1 to 5", "6"),
        (10, "stars", "not a number", "NaN"),
        (11, "(whole row)", "more fields than the header", "surplus"),
        (12, "stars", "missing", None),
        (12, "when", "missing", None),
        (13, "who, what, when", "repeats another row", "row 1 of events.csv"),
    ]
    assert artefact.table("interactions").select("at", "rating").rows() == [(100, 5.0)]
    assert artefact.metrics["interactions_read"] == 13
    assert artefact.metrics["refused_rows"] == 12


def test_of_duplicates_the_last_or_all_may_stay(project: Project) -> None:
    text = "who,what,when,stars\na,x,1,5\na,x,1,4\n"
    last = events(project, text, duplicates="last", max_quarantine_share=1)
    assert last.table("interactions")["rating"].to_list() == [4.0]
    assert refused(last) == [(1, "who, what, when", "repeats another row", "row 2 of events.csv")]
    both = made(project, duplicates="all")
    assert both.table("interactions")["rating"].to_list() == [5.0, 4.0]
    assert refused(both) == []


def test_a_value_below_the_minimum_is_refused(project: Project) -> None:
    text = "who,what,when,stars,pieces\na,x,1,5,2\na,y,2,5,-1\na,z,3,5,none\na,w,4,5,\n"
    artefact = events(project, text, interactions={**EVENTS, "minimum": {"pieces": 1}}, max_quarantine_share=1)
    assert artefact.table("interactions")["at"].to_list() == [1]
    assert refused(artefact) == [
        (2, "pieces", "below 1", "-1"),
        (3, "pieces", "not a number", "none"),
        (4, "pieces", "not a number", None),
    ]


def test_an_item_listed_twice_keeps_its_first_row(project: Project) -> None:
    project.write("shop/items.csv", "id,name\ntea,Tea\ntea,Other\n,None\n")
    table = {"file": "items.csv", "columns": {"item_id": "id", "title": "name"}}
    artefact = events(project, GOOD, items=table, max_quarantine_share=1)
    assert dict(artefact.table("items").select("item_id", "title").iter_rows())["tea"] == "Tea"
    assert refused(artefact) == [
        (2, "id", "repeats another row", "row 1 of items.csv"),
        (3, "id", "missing", None),
    ]


def test_items_that_are_not_listed_may_be_refused(project: Project) -> None:
    project.write("shop/items.csv", "id,name\ntea,Tea\n")
    table = {"file": "items.csv", "columns": {"item_id": "id", "title": "name"}}
    artefact = events(project, GOOD, items=table, unknown_items="refuse", max_quarantine_share=1)
    assert refused(artefact) == [(3, "what", "no such item in items", "jam")]
    assert artefact.table("items")["item_id"].to_list() == ["tea"]


def test_an_unknown_part_is_refused(project: Project) -> None:
    columns = {**EVENTS["columns"], "part": "part"}
    text = "who,what,when,stars,part\na,x,1,5,train\na,y,2,5,holdout\na,z,3,5,\n"
    artefact = events(project, text, interactions={**EVENTS, "columns": columns}, max_quarantine_share=1)
    assert refused(artefact) == [
        (2, "part", "not train, valid or test", "holdout"),
        (3, "part", "not train, valid or test", None),
    ]


# --- checks


def test_too_large_a_share_of_refused_rows_fails_the_check_with_file_column_counts_and_rows(
    project: Project,
) -> None:
    verdict = events(project, FAULTS, rating_range=[1, 5]).manifest["checks"]["quarantine_share"]
    assert verdict["passed"] is False
    assert verdict["blocking"] is True
    assert verdict["facts"] == {"interactions_refused_share": round(12 / 13, 6)}
    lines = verdict["description"].splitlines()
    assert lines[0] == "92.3% of the rows of interactions are refused:"
    assert lines[1] == "  events.csv: stars: missing: 2 rows (first: row 7, row 12)"
    assert "  events.csv: when: no time (unix seconds or ISO 8601): 1 row (first: row 5 (yesterday))" in lines
    assert lines[-1].startswith("max_quarantine_share allows 5.0%.")


def test_a_share_of_refused_rows_that_is_allowed_passes(project: Project) -> None:
    artefact = events(project, FAULTS, rating_range=[1, 5], max_quarantine_share=0.93)
    assert artefact.manifest["checks"]["quarantine_share"]["passed"] is True


class Planted:
    """A draft that holds what a broken stage would have written."""

    def __init__(self, **tables: pl.DataFrame) -> None:
        self.tables = tables

    def read(self, name: str) -> pl.DataFrame:
        return self.tables[name]


def test_an_interaction_with_an_item_that_is_not_listed_fails_the_check() -> None:
    numbers = {"dtype": pl.UInt32}
    users = pl.DataFrame({"user": pl.Series([0, 1], **numbers)})
    rows = pl.DataFrame({"user": pl.Series([0, 1], **numbers), "item": pl.Series([0, 7], **numbers)})
    one, gap = (pl.DataFrame({"item": pl.Series(items, **numbers)}) for items in ([0, 1], [0, 7]))
    settings = DatasetSettings.model_validate({"importer": "movielens_100k"})
    lost = references_hold(Planted(users=users, items=one, interactions=rows), {}, settings)
    assert (lost.passed, lost.description) == (False, "1 interactions have a item that is not listed")
    holes = references_hold(Planted(users=users, items=gap, interactions=rows), {}, settings)
    assert (holes.passed, holes.description) == (False, "items are not numbered from 0 without a gap")


# --- what is wrong with a whole file


def failure(project: Project, **dataset) -> str:
    with pytest.raises(StageFailed) as error:
        made(project, **dataset)
    return str(error.value)


def test_a_missing_column_is_named_with_its_file_setting_and_the_nearest(project: Project) -> None:
    project.write("shop/events.csv", GOOD.replace("who", "CustomerID"))
    table = {**EVENTS, "columns": {**EVENTS["columns"], "user_id": "CustomerId"}}
    said = failure(project, interactions=table)
    assert "events.csv: no column 'CustomerId', which `columns.user_id` asks for; nearest: 'CustomerID'" in said
    assert said.endswith("it has: CustomerID, what, when, stars")


def test_a_missing_file_names_the_nearest(project: Project) -> None:
    project.write("shop/events.csv", GOOD)
    said = failure(project, interactions={**EVENTS, "file": "event.csv"})
    assert "the source has no file 'event.csv'; did you mean 'events.csv'?" in said


def test_a_file_that_is_not_parquet_says_so(project: Project) -> None:
    project.write("shop/events.parquet", GOOD)
    said = failure(project, interactions={**EVENTS, "file": "events.parquet"})
    assert "events.parquet: cannot be read as parquet" in said
    assert "Is it a Parquet file?" in said


def test_a_csv_of_another_encoding_says_what_to_try(project: Project) -> None:
    project.write("shop/events.csv", GOOD.replace("jam", "caf\u00e9").encode("latin-1"))
    assert "Is its `separator`, `encoding` (latin-1?)" in failure(project)
    artefact = made(project, interactions={**EVENTS, "encoding": "latin-1"})
    assert artefact.table("items")["title"].to_list() == ["caf\u00e9", "tea"]


def test_a_file_without_one_sound_row_says_why(project: Project) -> None:
    project.write("shop/events.csv", "who,what,when,stars\na,x,never,5\n")
    said = failure(project)
    assert "no sound interaction is left of 1 rows" in said
    assert "events.csv: when: no time (unix seconds or ISO 8601): 1 row (first: row 1 (never))" in said


def test_a_file_of_a_header_alone_says_so(project: Project) -> None:
    project.write("shop/events.csv", "who,what,when,stars\n")
    assert "no sound interaction is left of 0 rows" in failure(project)


# --- settings


def study_error(dataset: dict) -> str:
    study = Study(name="s", title="t", data={"source": {"locations": "x"}, "dataset": dataset})
    with pytest.raises(StudyError) as error:
        Graph(list(STAGES.values())).check(study)
    return str(error.value)


def test_settings_that_cannot_be_are_refused_before_anything_runs() -> None:
    assert "needs `interactions`" in study_error({})
    columns = {"user_id": "u", "item_id": "i"}
    assert "give one of `at` (a time) and `order`" in study_error(
        {"interactions": {"file": "a.csv", "columns": columns}}
    )
    both = {"file": "a.csv", "columns": {**columns, "at": "t", "order": "o"}}
    assert "give one of `at` (a time) and `order`" in study_error({"interactions": both})
    form = {"file": "a.csv", "columns": {**columns, "at": "t"}, "time": "unix_sec"}
    assert "'unix_sec' is no time format; did you mean 'unix_s'?" in study_error({"interactions": form})
    mixed = [
        {"file": "a.csv", "columns": {**columns, "at": "t"}},
        {"file": "b.csv", "columns": {**columns, "order": "o"}},
    ]
    assert "all files of interactions and reviews need a time" in study_error({"interactions": mixed})


def test_a_published_set_brings_its_files_and_the_study_goes_first() -> None:
    usual = DatasetSettings.model_validate({"importer": "movielens_1m"})
    assert usual.interactions[0].file == "ratings.dat"
    assert usual.rating_range == (1, 5)
    assert usual.leading_article is True
    other = DatasetSettings.model_validate({"importer": "movielens_1m", "leading_article": False})
    assert other.leading_article is False
    assert DatasetSettings.model_validate(json.loads(usual.model_dump_json())) == usual


# --- MovieLens as published


def test_movielens_1m_as_grouplens_writes_it(project: Project) -> None:
    project.write("shop/ml-1m/ratings.dat", "1::2::5::978300760\n1::1::3::978300761\n")
    movies = "1::Toy Story (1995)::Animation|Comedy\n2::Cit\u00e9, La (1995)::Drama\n"
    project.write("shop/ml-1m/movies.dat", movies.encode("latin-1"))
    project.write("shop/ml-1m/users.dat", "1::F::25::10::48067\n")
    artefact = project.make("dataset", source={"locations": "shop"}, dataset={"importer": "movielens_1m"})
    assert artefact.table("interactions").select("item", "rating", "at").rows() == [
        (1, 5.0, 978300760),
        (0, 3.0, 978300761),
    ]
    assert artefact.table("items").select("title", "categories").rows() == [
        ("Toy Story (1995)", ["Animation", "Comedy"]),
        ("La Cit\u00e9 (1995)", ["Drama"]),
    ]
    assert artefact.table("users")["profile"].to_list() == ["gender: F, age group: 25"]


def test_movielens_100k_as_recbole_writes_it(project: Project) -> None:
    project.write(
        "shop/ml-100k.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n",
    )
    project.write(
        "shop/ml-100k.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        '242\t"Kolya", The\t1996\tComedy War\n',
    )
    project.write(
        "shop/ml-100k.user",
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n196\t49\tM\twriter\t5\n",
    )
    artefact = project.make("dataset", source={"locations": "shop"}, dataset={"importer": "movielens_100k"})
    assert artefact.table("items").rows() == [(0, "242", 'The "Kolya" (1996)', ["Comedy", "War"], None)]
    assert artefact.table("users").rows() == [(0, "196", "age: 49, gender: M, occupation: writer")]
    assert artefact.table("interactions").rows() == [(0, 0, 0, 3.0, 881250949, None)]
