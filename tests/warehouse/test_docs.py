"""Every SQL recipe of the page on the warehouse runs, and the page tells of every mart."""

import re

import pytest

from resources.warehouse import SQL, query
from tests.warehouse.synthetic import ROOT

PAGE = (ROOT / "docs/warehouse.md").read_text()
RECIPES = re.findall(r"```sql\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_recipe_runs(catalogue, number):
    found = query(catalogue, RECIPES[number])
    assert found.width > 0
    if "item_vectors" not in RECIPES[number]:  # the synthetic study learns no vectors
        assert found.height > 0


def test_there_are_recipes():
    assert len(RECIPES) > 12


def test_every_mart_is_told_of():
    assert [file.stem for file in (SQL / "marts").glob("*.sql") if f"`{file.stem}`" not in PAGE] == []
