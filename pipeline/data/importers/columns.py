"""How a study says where things stand in its tables: files, their form, and the mapping of columns."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.stage import Settings
from pipeline.study import nearest

UNITS = {"unix_s": 1, "unix_ms": 1_000, "unix_us": 1_000_000}


def as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


def as_mapping(value: Any) -> Any:
    return {name: name for name in value} if isinstance(value, (list, tuple)) else value


class EventColumns(Settings):
    user_id: str = Field("user_id", description="the user")
    item_id: str = Field("item_id", description="the item")
    at: str | None = Field(None, description="when; see `time`")
    order: str | None = Field(None, description="whole number that orders rows, where there is no time")

    @model_validator(mode="after")
    def one_clock(self) -> "EventColumns":
        if (self.at is None) == (self.order is None):
            raise ValueError("give one of `at` (a time) and `order` (a number, where there is no time)")
        return self


class InteractionColumns(EventColumns):
    rating: str | None = Field(None, description="a rating, or a label of 0 and 1")
    part: str | None = Field(None, description="train, valid or test, where the source publishes its own split")


class ItemColumns(Settings):
    item_id: str = Field("item_id", description="the item")
    title: str | None = Field(None, description="its title: a column, or a form like '{name} ({year})'")
    categories: str | None = Field(None, description="genres or categories: a list, or text; see `split`")
    text: str | None = Field(None, description="a longer description")


class UserColumns(Settings):
    user_id: str = Field("user_id", description="the user")
    profile: Annotated[dict[str, str], BeforeValidator(as_mapping)] = Field(
        default_factory=dict, description="what is known of the user: name -> column, or a list of columns"
    )


class ReviewColumns(EventColumns):
    text: str = Field("text", description="what the user wrote")


class TableFile(Settings):
    """What all tables share: which file, how it is written, which of its rows count."""

    file: str = Field(description="name in the source; * stands for several files of the same columns")
    format: Literal["csv", "parquet", "jsonl"] | None = Field(
        None, description="by the file's ending if absent"
    )
    separator: str | None = Field(None, description="between fields of a CSV; tab for .tsv, else a comma")
    quote: str | None = Field('"', max_length=1, description="around fields of a CSV; null where there is none")
    encoding: str = Field("utf-8", description="of a CSV or JSON lines, e.g. latin-1")
    header: tuple[str, ...] | None = Field(None, description="column names, where the CSV has no first line")
    constants: dict[str, str | int | float] = Field(
        default_factory=dict, description="columns that the file lacks, e.g. part: train"
    )
    keep: dict[str, tuple[str | int | float, ...]] = Field(
        default_factory=dict, description="column -> values; other rows are left out and are no fault"
    )
    minimum: dict[str, float] = Field(
        default_factory=dict, description="column -> smallest sound value; rows below are refused"
    )


class EventFile(TableFile):
    """A table of things that users did to items at some time."""

    time: str = Field(
        "auto",
        description="auto (dates and times as typed, whole numbers as unix seconds, text as ISO 8601), unix_s, "
        "unix_ms, unix_us, or a form like %d/%m/%Y %H:%M; times without a zone are UTC",
    )

    @field_validator("time")
    @classmethod
    def known(cls, value: str) -> str:
        if value not in ("auto", *UNITS) and "%" not in value:
            raise ValueError(f"{value!r} is no time format{nearest(value, ('auto', *UNITS))}, or a form with %")
        return value


class InteractionsFile(EventFile):
    columns: InteractionColumns


class ReviewsFile(EventFile):
    columns: ReviewColumns


Events = InteractionsFile | ReviewsFile


class ItemsFile(TableFile):
    columns: ItemColumns = ItemColumns()  # type: ignore[call-arg]
    split: str = Field("|", min_length=1, description="between categories where they are text")


class UsersFile(TableFile):
    columns: UserColumns = UserColumns()  # type: ignore[call-arg]
