"""The shape of the code, held by a test: imports point one way, every method has its three files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "sklearn",
    "scipy",
    "matplotlib",
    "faiss",
    "sentence_transformers",
    "implicit",
)


def imports(file: Path) -> Iterator[str]:
    """Full names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def methods() -> list[str]:
    return [f.stem for f in files("pipeline/methods") if f.stem != "__init__"]


def offenders(folder: str, banned: tuple[str, ...]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files(folder)
        for name in imports(file)
        if any(name == ban or name.startswith(f"{ban}.") for ban in banned)
    ]


def test_the_library_knows_neither_dagster_nor_the_layers_above() -> None:
    assert offenders("pipeline", ("dagster", "dagster_pipes", "assets", "resources", "warehouse")) == []


def test_shared_folders_know_no_method() -> None:
    for folder in ("data", "text", "collab", "codes", "llm", "evaluate"):
        assert offenders(f"pipeline/{folder}", ("pipeline.methods",)) == []


def test_resources_know_no_asset() -> None:
    assert offenders("resources", ("assets",)) == []


@pytest.mark.parametrize("method", methods())
def test_methods_do_not_import_each_other(method: str) -> None:
    others = tuple(f"pipeline.methods.{other}" for other in methods() if other != method)
    named = [name for name in imports(ROOT / f"pipeline/methods/{method}.py") if name in others]
    assert named == []


@pytest.mark.parametrize("method", methods())
def test_every_method_has_its_asset_and_its_test(method: str) -> None:
    assert (ROOT / f"assets/methods/{method}.py").exists()
    assert (ROOT / f"tests/pipeline/methods/test_{method}.py").exists()


def test_an_import_upwards_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/x.py").write_text("def f():\n    from dagster import asset\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert offenders("pipeline", ("dagster",))


def test_declaring_all_stages_imports_nothing_heavy() -> None:
    code = (
        "import sys; from assets.engine.declare import graph\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], len(graph().order))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.startswith("[] ")
    assert int(shown.stdout.split()[-1]) >= 15
