"""Declarations are found in every module without a list, and need no Dagster."""

import subprocess
import sys
import types

import pytest

from assets.engine import declare
from tests import toy


def test_every_module_of_stages_is_found_and_no_machinery() -> None:
    found = set(declare.modules())
    assert {"assets.data", "assets.collab", "assets.evaluate"} <= found
    assert not [
        name for name in found if "engine" in name or name.endswith(("cli", "definitions", "schedules"))
    ]


def test_a_new_module_is_found_by_being_there(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("assets.methods.guess")
    module.scores = declare.asset(toy.scores, group="guess", kinds={"python"})
    module.unrelated = 3
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(declare, "modules", lambda: ["assets.methods.guess"])
    assert declare.discover() == [module.scores]


def test_a_key_is_the_name_by_its_parts() -> None:
    assert declare.asset(toy.scores, group="guess", kinds=()).key == ["guess", "scores"]


def test_the_graph_is_known_without_dagster_and_torch() -> None:
    script = (
        "import sys; from assets.engine import declare; declare.graph();"
        "sys.exit(1 if {'dagster', 'torch', 'transformers', 'matplotlib'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
