"""The contract of source data: what a sound row is, and where the others go.

    mapped rows + rules -> judge -> sound rows, quarantine

Every rule names the source's own column and a reason. A row that breaks three rules stands three times in
`quarantine`, once per rule, and counts once in the refused share. Texts are cleaned here, before anything
that makes prompts can see them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dataframely as dy
import polars as pl

from pipeline.data.importers.columns import (
    Events,
    InteractionsFile,
    ItemsFile,
    ReviewsFile,
    TableFile,
    UsersFile,
)
from pipeline.data.importers.tables import Reading
from pipeline.schema import PARTS, Quarantine, empty

PART_NAMES = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid"}
LATEST = 4_102_444_800  # 2100-01-01: a later time is a wrong unit
WHOLE_ROW = "(whole row)"
ARTICLES = "The|A|An|Le|La|Les|Il|Lo|El|Los|Las|Der|Die|Das|Une?|O|Os"
# What reorders or hides text: bidirectional marks, zero-width blanks, the tag block. Joiners that spell
# words (U+200C, U+200D) stay.
UNSEEN = "[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"


class Row(dy.Schema):
    """One row as mapped, before it is judged: every value may be missing."""

    source_row = dy.UInt32()
    torn = dy.String(nullable=True)


class InteractionRow(Row):
    user_id = dy.String(nullable=True)
    item_id = dy.String(nullable=True)
    at = dy.Int64(nullable=True)
    at_given = dy.String(nullable=True)
    rating = dy.Float64(nullable=True)
    rating_given = dy.String(nullable=True)
    part = dy.String(nullable=True)
    part_given = dy.String(nullable=True)


class ReviewRow(Row):
    user_id = dy.String(nullable=True)
    item_id = dy.String(nullable=True)
    at = dy.Int64(nullable=True)
    at_given = dy.String(nullable=True)
    text = dy.String(nullable=True)


class ItemRow(Row):
    item_id = dy.String(nullable=True)
    title = dy.String(nullable=True)
    categories = dy.List(dy.String(nullable=True), nullable=True)
    text = dy.String(nullable=True)


class UserRow(Row):
    user_id = dy.String(nullable=True)
    profile = dy.String(nullable=True)


@dataclass(frozen=True)
class Rule:
    """What must hold of a row. `sound` counts as true where it is null; `given` is the value at fault."""

    column: str
    reason: str
    sound: pl.Expr
    given: str

    @property
    def name(self) -> str:
        return f"{self.column}: {self.reason}"


@dataclass(frozen=True)
class Judged:
    """Sound rows with their file, refused ones with reasons, and how many there were."""

    sound: pl.DataFrame
    quarantine: pl.DataFrame
    rows: int


def judge(
    table: str, reading: Reading, rows: type[Row], mapped: dict[str, pl.Expr], rules: list[Rule]
) -> Judged:
    """Split one file's rows by its rules. One pass over the file, which is never held whole as text."""
    columns = {f"minimum {name}": reading.number(name, f"minimum.{name}") for name in reading.table.minimum}
    givens = {f"given {name}": reading.text(name, f"minimum.{name}") for name in reading.table.minimum}
    rules = [*whole_row_rules(reading), *rules, *minimum_rules(reading.table)]
    body: dict[str, object] = {name: dy.Float64(nullable=True) for name in columns}
    body |= {name: dy.String(nullable=True) for name in givens}
    body |= {rule.name: dy.rule()(lambda _, rule=rule: rule.sound) for rule in rules}
    contract: type[dy.Schema] = type("Contract", (rows,), body)
    frame = reading.frame.select("source_row", torn=reading.torn, **mapped, **columns, **givens)
    with reading.reading():
        good, failure = contract.filter(frame).collect_all(engine="streaming")
        bad = failure.details()
    refused = [broken(table, reading.name, bad, rule) for rule in rules]
    kept = [name for name in rows.column_names() if sound_column(name)]
    sound = good.select(pl.lit(reading.name).cast(pl.Categorical).alias("file"), *kept)
    return Judged(sound, pl.concat([empty(Quarantine), *refused]), good.height + bad.height)


def broken(table: str, file: str, bad: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """The quarantine rows of one rule."""
    return bad.filter(pl.col(rule.name) == "invalid").select(
        table=pl.lit(table),
        file=pl.lit(file),
        source_row=pl.col("source_row").cast(pl.UInt64),
        column=pl.lit(rule.column),
        reason=pl.lit(rule.reason),
        value=pl.col(rule.given).str.slice(0, 200),
    )


ROWS: dict[str, type[Row]] = {
    "interactions": InteractionRow,
    "items": ItemRow,
    "users": UserRow,
    "reviews": ReviewRow,
}


def together(table: str, judged: list[Judged]) -> Judged:
    """The files of one table as one, in the study's order."""
    columns = {name: kind for name, kind in ROWS[table].create_empty().schema.items() if sound_column(name)}
    none = pl.DataFrame(schema={"file": pl.Categorical, **columns})
    return Judged(
        pl.concat([none, *(one.sound for one in judged)]),
        pl.concat([empty(Quarantine), *(one.quarantine for one in judged)]),
        sum(one.rows for one in judged),
    )


def sound_column(name: str) -> bool:
    """True for columns that outlive the judgement."""
    return name != "torn" and not name.endswith("_given")


def whole_row_rules(reading: Reading) -> list[Rule]:
    reason = "not valid JSON" if reading.json else "more fields than the header"
    return [Rule(WHOLE_ROW, reason, pl.col("torn").is_null(), "torn")]


def minimum_rules(table: TableFile) -> list[Rule]:
    rules = []
    for name, least in table.minimum.items():
        number, given = pl.col(f"minimum {name}"), f"given {name}"
        rules.append(Rule(name, "not a number", number.is_not_null(), given))
        rules.append(Rule(name, f"below {least:g}", number >= least, given))
    return rules


def there(column: str, ours: str) -> Rule:
    return Rule(column, "missing", pl.col(ours).is_not_null(), ours)


def interactions(reading: Reading, table: InteractionsFile, rating_range: tuple[float, float] | None) -> Judged:
    """Judge a file of interactions: keys, time or order, rating, part."""
    columns = table.columns
    mapped = keys(reading, table) | {"rating": null(pl.Float64), "rating_given": null(pl.String)}
    mapped |= {"part": null(pl.String), "part_given": null(pl.String)}
    rules = [there(columns.user_id, "user_id"), there(columns.item_id, "item_id"), *clock_rules(table)]
    if columns.rating:
        mapped["rating"] = reading.number(columns.rating, "columns.rating")
        mapped["rating_given"] = reading.text(columns.rating, "columns.rating")
        rules += rating_rules(columns.rating, rating_range)
    if columns.part:
        mapped["part_given"] = reading.text(columns.part, "columns.part")
        mapped["part"] = mapped["part_given"].str.to_lowercase().replace(PART_NAMES)
        known = pl.col("part").is_in(PARTS).fill_null(False)
        rules.append(Rule(columns.part, "not train, valid or test", known, "part_given"))
    return judge("interactions", reading, InteractionRow, mapped, rules)


def keys(reading: Reading, table: Events) -> dict[str, pl.Expr]:
    """User, item and clock, which interactions and reviews share."""
    columns, clock = table.columns, table.columns.at or table.columns.order or ""
    setting = "columns.at" if columns.at else "columns.order"
    at = reading.time(clock, setting, table.time) if columns.at else reading.whole(clock, setting)
    return {
        "user_id": reading.text(columns.user_id, "columns.user_id"),
        "item_id": reading.text(columns.item_id, "columns.item_id"),
        "at": at,
        "at_given": reading.text(clock, setting),
    }


def clock_rules(table: Events) -> list[Rule]:
    column = table.columns.at or table.columns.order or ""
    at, given = pl.col("at"), pl.col("at_given").is_not_null()
    form = "unix seconds or ISO 8601" if table.time == "auto" else table.time
    reason = f"no time ({form})" if table.columns.at else "no whole number"
    rules = [
        Rule(column, "missing", given, "at_given"),
        Rule(column, reason, at.is_not_null() | ~given, "at_given"),
    ]
    if table.columns.at:
        reason = "outside 1970 to 2100: is `time` right?"
        rules.append(Rule(column, reason, at.is_between(0, LATEST, closed="left"), "at_given"))
    return rules


def rating_rules(column: str, rating_range: tuple[float, float] | None) -> list[Rule]:
    rating, given = pl.col("rating"), pl.col("rating_given").is_not_null()
    rules = [
        Rule(column, "missing", given, "rating_given"),
        Rule(column, "not a number", rating.is_finite().fill_null(False) | ~given, "rating_given"),
    ]
    if rating_range:
        low, high = rating_range
        inside = rating.is_between(low, high) | ~rating.is_finite()
        rules.append(Rule(column, f"outside {low:g} to {high:g}", inside, "rating_given"))
    return rules


def items(reading: Reading, table: ItemsFile, title_length: int, text_length: int) -> Judged:
    """Judge a file of items; an item without a title is sound."""
    columns = table.columns
    mapped = {
        "item_id": reading.text(columns.item_id, "columns.item_id"),
        "title": null(pl.String),
        "categories": null(pl.List(pl.String)),
        "text": null(pl.String),
    }
    if columns.title:
        mapped["title"] = clean(reading.filled(columns.title, "columns.title"), title_length)
    if columns.categories:
        words = reading.words(columns.categories, "columns.categories", table.split)
        mapped["categories"] = words.list.eval(clean(pl.element(), title_length).drop_nulls())
    if columns.text:
        mapped["text"] = clean(reading.text(columns.text, "columns.text"), text_length)
    return judge("items", reading, ItemRow, mapped, [there(columns.item_id, "item_id")])


def users(reading: Reading, table: UsersFile, length: int) -> Judged:
    """Judge a file of users; `profile` becomes `name: value` pairs."""
    columns = table.columns
    pairs = [
        pl.lit(f"{name}: ") + clean(reading.text(column, f"columns.profile.{name}"), length)
        for name, column in columns.profile.items()
    ]
    profile = pl.concat_str(pairs, separator=", ", ignore_nulls=True) if pairs else null(pl.String)
    mapped = {
        "user_id": reading.text(columns.user_id, "columns.user_id"),
        "profile": profile.replace("", None),
    }
    return judge("users", reading, UserRow, mapped, [there(columns.user_id, "user_id")])


def reviews(reading: Reading, table: ReviewsFile, length: int) -> Judged:
    """Judge a file of review texts."""
    columns = table.columns
    mapped = keys(reading, table) | {"text": clean(reading.text(columns.text, "columns.text"), length)}
    ids = [there(columns.user_id, "user_id"), there(columns.item_id, "item_id")]
    return judge(
        "reviews", reading, ReviewRow, mapped, [*ids, *clock_rules(table), there(columns.text, "text")]
    )


def null(kind: pl.DataType | type[pl.DataType]) -> pl.Expr:
    return pl.lit(None, dtype=kind)


def clean(text: pl.Expr, length: int) -> pl.Expr:
    """Text from outside as one line: control and unseen characters gone, blanks folded, at most `length`."""
    line = text.str.normalize("NFC").str.replace_all(UNSEEN, "").str.replace_all(r"[\p{Cc}\s]+", " ")
    return (
        line.str.replace_all(r" {2,}", " ")
        .str.strip_chars()
        .str.slice(0, length)
        .str.strip_chars()
        .replace("", None)
    )


def article_first(title: pl.Expr) -> pl.Expr:
    """`Matrix, The (1999)` -> `The Matrix (1999)`; also for articles of some other languages."""
    moved = title.str.replace(rf"^(.+?), ({ARTICLES})((?: \(.*)?)$", "${2} ${1}${3}")
    return moved.str.replace(r"^(.+?), (L')((?: \(.*)?)$", "${2}${1}${3}")


# --- between rows ------------------------------------------------------------------------------------------


def unique(
    table: str, frame: pl.DataFrame, keys: Sequence[str], column: str, keep: Literal["first", "last"]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per key, in the order of the files; the others go to quarantine with the row they repeat."""
    key = pl.struct(keys)
    sound = key.is_first_distinct() if keep == "first" else key.is_last_distinct()
    marked = frame.with_columns(sound.alias("sound"))
    kept, repeats = marked.filter("sound").drop("sound"), marked.filter(~pl.col("sound"))
    if repeats.is_empty():
        return kept, empty(Quarantine)
    place = kept.select(*keys, kept=pl.format("row {} of {}", "source_row", pl.col("file").cast(pl.String)))
    refused = repeats.join(place, on=keys, how="left", maintain_order="left")
    return kept, quarantined(table, refused, column, "repeats another row", pl.col("kept"))


def quarantined(table: str, refused: pl.DataFrame, column: str, reason: str, value: pl.Expr) -> pl.DataFrame:
    """Quarantine rows of frames that hold `file` and `source_row`."""
    return refused.select(
        table=pl.lit(table),
        file=pl.col("file").cast(pl.String),
        source_row=pl.col("source_row").cast(pl.UInt64),
        column=pl.lit(column),
        reason=pl.lit(reason),
        value=value.cast(pl.String),
    )


# --- what a person reads -----------------------------------------------------------------------------------


def findings(quarantine: pl.DataFrame, first_rows: int = 3) -> list[str]:
    """One line per file, column and reason, the most frequent first."""
    groups = (
        quarantine.sort("source_row")
        .group_by("file", "column", "reason")
        .agg(pl.len().alias("rows"), pl.col("source_row").head(first_rows), pl.col("value").head(first_rows))
        .sort("rows", "file", "column", "reason", descending=[True, False, False, False])
    )
    return [
        f"{file}: {column}: {reason}: {rows:,} row{'s' if rows > 1 else ''} (first: {shown(numbers, values)})"
        for file, column, reason, rows, numbers, values in groups.iter_rows()
    ]


def shown(numbers: list[int], values: list[str | None]) -> str:
    pairs = zip(numbers, values, strict=True)
    return ", ".join(f"row {n}" + (f" ({value})" if value is not None else "") for n, value in pairs)
