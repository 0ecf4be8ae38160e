"""Remember the code behind every stage's version, so that a change without a new version is caught.

python -m tests.stage_versions      accept the code as it is, after raising versions where results change
"""

import ast
import hashlib
import importlib.util
import json
from pathlib import Path

from pipeline.stage import Stage

FILE = Path(__file__).with_name("stage_versions.json")
MACHINERY = {f"pipeline.{name}" for name in ("graph", "progress", "schema", "stage", "store", "study")}


def code_of(stage: Stage) -> str:
    """Hash of the stage's module, of what it imports from pipeline, and of its tables' columns.

    Docstrings, comments and layout do not count; the machinery that runs stages has its own FORMAT.
    """
    parts = [f"{name}:{bare(name)}" for name in sorted(reach(stage.function.__module__))]
    parts += [f"{name}:{list(schema.columns())}" for name, schema in sorted(stage.tables.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def reach(module: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The module and every pipeline module that it imports, anywhere in its code."""
    found = {module, *seen}
    for node in ast.walk(ast.parse(source(module))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            if name.startswith("pipeline.") and name not in found | MACHINERY and is_module(name):
                found |= reach(name, frozenset(found))
    return found


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


def bare(module: str) -> str:
    """The module's syntax tree without docstrings."""
    tree = ast.parse(source(module))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]
    return ast.dump(tree)


def is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def changed(stages: list[Stage], remembered: dict[str, dict]) -> list[str]:
    """What to do about each stage whose code is not the one remembered under its version."""
    found = []
    for stage in stages:
        old = remembered.get(stage.name)
        if old == {"version": stage.version, "code": code_of(stage)}:
            continue
        if old and old["version"] == stage.version:
            found.append(
                f"{stage.name}: its code changed; raise its version if results can differ, then accept"
            )
        else:
            found.append(f"{stage.name}: version {stage.version} is new; accept it")
    return found + [f"{name}: is gone; accept" for name in remembered if name not in {s.name for s in stages}]


def accept(stages: list[Stage]) -> None:
    now = {stage.name: {"version": stage.version, "code": code_of(stage)} for stage in stages}
    FILE.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    from assets.engine.declare import graph

    accept(graph().order)
