"""The tables that cross stages say what they hold."""

import dataframely as dy
import pytest

from pipeline import schema

TABLES = [t for t in vars(schema).values() if isinstance(t, type) and issubclass(t, schema.Table)][1:]


def undescribed(table: type[schema.Table]) -> list[str]:
    return [name for name, column in table.columns().items() if not column.description]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_every_table_has_a_grain_and_every_column_a_meaning(table: type[schema.Table]) -> None:
    assert table.grain
    assert undescribed(table) == []


def test_a_column_without_a_meaning_is_noticed() -> None:
    class Planted(schema.Table):
        known = dy.Int64(description="a number")
        bare = dy.Int64()

    assert undescribed(Planted) == ["bare"]
