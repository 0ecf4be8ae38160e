"""Raw files to the tables that everything starts from: interactions, items, users, reviews, quarantine.

    source -> importer (files, columns) -> contract (sound rows, refused rows) -> dense ids -> tables

Dense ids number the source's ids in order (as numbers where all are whole numbers, else as text). They are an
encoding of the whole set, not statistics fitted on it: nothing of the test part can be read off a number, and
adding a row of a known user and item changes none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import BeforeValidator, Field, model_validator

from pipeline.data import contract, sources
from pipeline.data.contract import Judged
from pipeline.data.importers import movielens
from pipeline.data.importers.columns import InteractionsFile, ItemsFile, ReviewsFile, UsersFile, as_list
from pipeline.data.importers.tables import TableError, read
from pipeline.schema import Interactions, Items, Quarantine, Reviews, Users, empty
from pipeline.stage import Check, Draft, Settings, Verdict, stage
from pipeline.store import Artefact

Files = BeforeValidator(as_list)


class DatasetSettings(Settings):
    importer: Literal["movielens_100k", "movielens_1m", "tables"] = Field(
        "tables", description="how the source is written; `tables` is your own data"
    )
    interactions: Annotated[tuple[InteractionsFile, ...], Files] = Field(
        (), description="one file or several, with their columns"
    )
    items: Annotated[tuple[ItemsFile, ...], Files] = Field((), description="titles and categories, if any")
    users: Annotated[tuple[UsersFile, ...], Files] = Field((), description="profiles, if any")
    reviews: Annotated[tuple[ReviewsFile, ...], Files] = Field((), description="review texts, if any")
    rating_range: tuple[float, float] | None = Field(None, description="ratings outside are refused")
    duplicates: Literal["first", "last", "all"] = Field(
        "first", description="which row stays of several of one user and item at one time; others are refused"
    )
    repeats: Literal["all", "first", "last"] = Field(
        "all", description="which rows stay of one user and item at several times; others are left out"
    )
    unknown_items: Literal["keep", "refuse"] = Field(
        "keep", description="interactions with an item that `items` does not list; kept, its id is its title"
    )
    max_quarantine_share: float = Field(
        0.05, ge=0, le=1, description="a table with a larger share of refused rows stops the study"
    )
    title_length: int = Field(300, ge=1, description="titles are cut after so many characters")
    text_length: int = Field(4000, ge=1, description="descriptions and reviews are cut after it")
    leading_article: bool = Field(
        False, description="`Matrix, The` becomes `The Matrix`; MovieLens has it on unless the study says false"
    )

    @model_validator(mode="before")
    @classmethod
    def published_set(cls, written: Any) -> Any:
        """A published set brings its files and columns; what the study writes goes first."""
        if not isinstance(written, dict):
            return written
        return {**movielens.TABLES.get(written.get("importer", ""), {}), **written}

    @model_validator(mode="after")
    def one_clock(self) -> "DatasetSettings":
        if not self.interactions:
            raise ValueError("the importer `tables` needs `interactions`: a file and its columns")
        if len({table.columns.at is None for table in (*self.interactions, *self.reviews)}) > 1:
            raise ValueError("all files of interactions and reviews need a time (`at`), or all an `order`")
        return self


def quarantine_share(draft: Draft, inputs: Mapping[str, Any], settings: DatasetSettings) -> Verdict:
    """No table lost more of its rows to the contract than the study allows."""
    quarantine = draft.read("quarantine")
    said, shares = [], {}
    for table, rows in draft.metrics.items():
        name = table.removesuffix("_read")
        if name == table or not rows:
            continue
        broken = quarantine.filter(pl.col("table") == name)
        shares[name] = broken.select("file", "source_row").n_unique() / rows
        if shares[name] > settings.max_quarantine_share:
            said.append(f"{shares[name]:.1%} of the rows of {name} are refused:")
            said += [f"  {line}" for line in contract.findings(broken)]
    if said:
        allowed = settings.max_quarantine_share
        said.append(
            f"max_quarantine_share allows {allowed:.1%}. Mend the files, or say what is meant in "
            "data.dataset (columns, time, keep, minimum, duplicates, max_quarantine_share)"
        )
    return Verdict(not said, "\n".join(said), {f"{k}_refused_share": round(v, 6) for k, v in shares.items()})


def references_hold(draft: Draft, inputs: Mapping[str, Any], settings: DatasetSettings) -> Verdict:
    """Users and items are numbered 0, 1, 2, ... and every interaction's user and item is among them."""
    rows = draft.read("interactions")
    said = []
    for name in ("user", "item"):
        numbers = draft.read(f"{name}s")[name].sort()
        if not (numbers == pl.int_range(numbers.len(), dtype=pl.UInt32, eager=True)).all():
            said.append(f"{name}s are not numbered from 0 without a gap")
        lost = rows.filter(~pl.col(name).is_in(numbers.implode()))
        if lost.height:
            said.append(f"{lost.height:,} interactions have a {name} that is not listed")
    return Verdict(not said, "; ".join(said), {"interactions": rows.height})


@stage(
    "dataset",
    settings=DatasetSettings,
    section="data",
    version=1,
    inputs={"source": "source"},
    tables={
        "interactions": Interactions,
        "items": Items,
        "users": Users,
        "reviews": Reviews,
        "quarantine": Quarantine,
    },
    checks=(Check(quarantine_share), Check(references_hold)),
)
def dataset(source: Artefact, settings: DatasetSettings, out: Draft) -> None:
    """Interactions, items, users and reviews, each row judged by the contract; refused rows with reasons."""
    tables, facts = build(settings, sources.files(source, out.root))
    for name, frame in tables.items():
        out.table(name, frame)
    out.metric(**facts)


def build(
    settings: DatasetSettings, files: Mapping[str, Path]
) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """All tables and their metrics. Raises TableError for a file that is not as the settings say."""
    judged = judge_files(settings, files)
    items, twice_items = contract.unique(
        "items", judged["items"].sound, ["item_id"], named(settings.items), "first"
    )
    users, twice_users = contract.unique(
        "users", judged["users"].sound, ["user_id"], named(settings.users), "first"
    )
    events, unknown = known_items(judged["interactions"].sound, items, settings)
    user_ids = numbered("user", events["user_id"], users["user_id"])
    item_ids = numbered("item", events["item_id"], items["item_id"])
    coded = encode(events, user_ids, item_ids)
    coded, twice = unrepeated(coded, settings)
    rows = in_order(coded, settings.repeats)
    texts, strangers = reviews_of(judged["reviews"].sound, user_ids, item_ids)
    refused = [one.quarantine for one in judged.values()]
    refused += [twice_items, twice_users, unknown, twice, strangers]
    if rows.is_empty():
        why = "\n".join(contract.findings(pl.concat(refused)))
        raise TableError(f"no sound interaction is left of {judged['interactions'].rows:,} rows\n{why}")
    listed = listed_items(item_ids, items, settings)
    tables = {
        "interactions": rows,
        "items": listed,
        "users": user_ids.join(
            users.select("user_id", "profile"), on="user_id", how="left", maintain_order="left"
        ),
        "reviews": texts,
        "quarantine": pl.concat(refused).sort("table", "file", "source_row", "column", "reason"),
    }
    facts = {
        **{f"{name}_read": one.rows for name, one in judged.items()},
        **counts(tables),
        "clock": "order" if settings.interactions[0].columns.order else "time",
        "interactions_left_out": coded.height - rows.height,
        "items_not_listed": item_ids.join(items, on="item_id", how="anti").height if settings.items else 0,
        "items_without_title": items["title"].null_count(),
    }
    return tables, facts


def judge_files(settings: DatasetSettings, files: Mapping[str, Path]) -> dict[str, Judged]:
    """Every file of every table, judged by the contract."""
    title, text = settings.title_length, settings.text_length
    of_table = {
        "interactions": lambda reading: contract.interactions(reading, reading.table, settings.rating_range),
        "items": lambda reading: contract.items(reading, reading.table, title, text),
        "users": lambda reading: contract.users(reading, reading.table, title),
        "reviews": lambda reading: contract.reviews(reading, reading.table, text),
    }
    return {
        name: contract.together(name, [judge(reading) for reading in read(getattr(settings, name), files)])
        for name, judge in of_table.items()
    }


def named(tables: Sequence[ItemsFile] | Sequence[UsersFile]) -> str:
    """The source's name for the key of a table, for messages."""
    columns = tables[0].columns if tables else None
    return getattr(columns, "item_id", None) or getattr(columns, "user_id", "")


def known_items(
    events: pl.DataFrame, items: pl.DataFrame, settings: DatasetSettings
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Interactions with a listed item, and the others as quarantine where the study refuses them."""
    if settings.unknown_items == "keep" or not settings.items:
        return events, empty(Quarantine)
    lost = events.join(items, on="item_id", how="anti", maintain_order="left")
    column = settings.interactions[0].columns.item_id
    refused = contract.quarantined("interactions", lost, column, "no such item in items", pl.col("item_id"))
    return events.join(items, on="item_id", how="semi", maintain_order="left"), refused


def numbered(name: str, *ids: pl.Series) -> pl.DataFrame:
    """Dense numbers of ids: in the order of numbers where all ids are whole numbers, else of text."""
    every = pl.concat(ids).unique().alias(f"{name}_id")
    number = every.cast(pl.Int64, strict=False)
    order = [number, every] if number.null_count() == 0 else [every]
    return every.to_frame().sort(*order).with_row_index(name)


def encode(events: pl.DataFrame, user_ids: pl.DataFrame, item_ids: pl.DataFrame) -> pl.DataFrame:
    """Dense user and item in place of the source's ids, same order; rows of unknown ids are dropped."""
    with_user = events.join(user_ids, on="user_id", how="inner", maintain_order="left").drop("user_id")
    return with_user.join(item_ids, on="item_id", how="inner", maintain_order="left").drop("item_id")


def unrepeated(coded: pl.DataFrame, settings: DatasetSettings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per user, item and time, unless the study keeps all."""
    if settings.duplicates == "all":
        return coded, empty(Quarantine)
    columns = settings.interactions[0].columns
    named = ", ".join([columns.user_id, columns.item_id, columns.at or columns.order or ""])
    return contract.unique("interactions", coded, ["user", "item", "at"], named, settings.duplicates)


def in_order(coded: pl.DataFrame, repeats: Literal["all", "first", "last"]) -> pl.DataFrame:
    """Rows by (at, place in the files), numbered."""
    rows = coded.sort("at", maintain_order=True)
    if repeats != "all":
        rows = rows.unique(["user", "item"], keep=repeats, maintain_order=True)
    return rows.drop("file", "source_row").with_row_index("row")


def reviews_of(
    reviews: pl.DataFrame, user_ids: pl.DataFrame, item_ids: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Reviews with dense ids by (at, place in the files); those of strangers go to quarantine."""
    known = encode(reviews, user_ids, item_ids)
    lost = reviews.join(known.select("file", "source_row"), on=["file", "source_row"], how="anti")
    ids = pl.format("{}, {}", "user_id", "item_id")
    refused = contract.quarantined("reviews", lost, "user and item", "no such user or item", ids)
    return known.sort("at", maintain_order=True).drop("file", "source_row"), refused


def listed_items(item_ids: pl.DataFrame, items: pl.DataFrame, settings: DatasetSettings) -> pl.DataFrame:
    """Every item once, titled: by its id where the source has no title."""
    title = pl.col("title")
    found = item_ids.join(items.drop("file", "source_row"), on="item_id", how="left", maintain_order="left")
    if settings.leading_article:
        title = contract.article_first(title)
    return found.with_columns(pl.coalesce(title, contract.clean(pl.col("item_id"), settings.title_length)))


def counts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Sizes, for the UI and the report."""
    rows, refused = tables["interactions"], tables["quarantine"]
    users, items = rows["user"].n_unique(), rows["item"].n_unique()
    return {
        "interactions": rows.height,
        "users": tables["users"].height,
        "items": tables["items"].height,
        "active_users": users,
        "active_items": items,
        "density": round(rows.height / (users * items), 6),
        "reviews": tables["reviews"].height,
        "refused_rows": refused.select("table", "file", "source_row").n_unique(),
        "rated": rows["rating"].null_count() == 0,
        "first_at": rows["at"].min(),
        "last_at": rows["at"].max(),
    }
