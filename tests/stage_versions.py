"""Remember the code behind every stage's version, so that a change without a new version is caught.

python -m tests.stage_versions      accept the code as it is, after raising versions where results change
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import io
import json
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.schema import Table
from pipeline.stage import Stage

FILE = Path(__file__).with_name("stage_versions.json")
MACHINERY = {
    f"pipeline.{name}" for name in ("graph", "machine", "progress", "redact", "stage", "store")
}  # see FORMAT
MACHINERY |= {"pipeline.llm.estimate"}  # says what a stage takes, never what it makes
BY_NAME = {"pipeline.schema", "pipeline.study"}  # only what is imported of them counts
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
MARKS = {tokenize.NEWLINE: "\n", tokenize.INDENT: "{", tokenize.DEDENT: "}"}
OPENS = getattr(tokenize, "FSTRING_START", None)  # since Python 3.12 an f-string is many tokens
CLOSES = getattr(tokenize, "FSTRING_END", None)


def code_of(stage: Stage) -> str:
    """Hash of the stage's module, of what it imports from pipeline, and of the files that these read.

    Docstrings, comments and layout do not count, nor does the Python that reads them. Of schemas count the
    columns, of the study's module what is imported.
    """
    modules = sorted(reach(stage.function.__module__))
    parts = [f"{name}:{bare(source(name))}" for name in modules]
    parts += [f"{name}:{described(value)}" for name, value in sorted(borrowed(modules).items())]
    parts += [f"{name}:{columns(schema)}" for name, schema in sorted(stage.tables.items())]
    parts += [f"{file.name}:{file.read_text()}" for name in modules for file in read_by(name)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def imports(text: str) -> list[tuple[str, str | None]]:
    """(module, name or None for the whole) of every import of pipeline, anywhere in a module's code."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(a.name, None) for a in node.names if a.name.startswith("pipeline.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
            found += [(str(node.module), a.name) for a in node.names]
    return found


def reach(module: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The module and every pipeline module that it imports."""
    found = {module, *seen}
    for base, part in imports(source(module)):
        for name in {base, f"{base}.{part}"} - MACHINERY - BY_NAME:
            if name not in found and name != "pipeline" and is_module(name):
                found |= reach(name, frozenset(found))
    return found


def borrowed(modules: list[str]) -> dict[str, Any]:
    """What these modules import by name from the schema and the study: `pipeline.study.Words` -> the class."""
    pairs = {pair for module in modules for pair in imports(source(module)) if pair[0] in BY_NAME and pair[1]}
    return {f"{base}.{name}": getattr(importlib.import_module(base), str(name)) for base, name in pairs}


def described(value: Any) -> str:
    """What decides of a borrowed value: a table's columns, code without docstrings, or the constant."""
    if isinstance(value, type) and issubclass(value, Table):
        return columns(value)
    return bare(inspect.getsource(value)) if callable(value) else repr(value)


def columns(schema: type[Table]) -> str:
    """Names, types and bounds of a table's columns; their descriptions do not count."""
    bounds = ("nullable", "primary_key", "min", "max", "is_in")
    return json.dumps(
        {
            name: [str(column.dtype), *(str(getattr(column, bound, None)) for bound in bounds)]
            for name, column in schema.columns().items()
        }
    )


def read_by(module: str) -> list[Path]:
    """Files beside a module, not Python, that its code names."""
    text, folder = source(module), origin(module).parent
    beside = (file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix != ".py")
    return [file for file in beside if f'"{file.name}"' in text]


@cache
def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@cache
def origin(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def source(module: str) -> str:
    return origin(module).read_text()


@cache
def bare(text: str) -> str:
    """The code's tokens without comments, docstrings and layout: the same under every Python."""
    kept = [(kind, string) for kind, string in tokens(text) if kind not in LAYOUT]
    docstrings = {place for place in range(len(kept)) if is_docstring(kept, place)}
    without = docstrings | {place + 1 for place in docstrings}  # and the ends of their lines
    return " ".join(MARKS.get(kind, text) for place, (kind, text) in enumerate(kept) if place not in without)


def tokens(text: str) -> Iterator[tuple[int, str]]:
    """(kind, text) of every token, an f-string as one."""
    lines, depth, start = text.splitlines(keepends=True), 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == OPENS:
            depth, start = depth + 1, start if depth else token.start
        if not depth:
            yield token.type, token.string
        if token.type == CLOSES:
            depth -= 1
            if not depth:
                yield tokenize.STRING, cut(lines, start, token.end)


def cut(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The text between two places (line from 1, column from 0)."""
    between = lines[start[0] - 1 : end[0]]
    between[-1] = between[-1][: end[1]]
    between[0] = between[0][start[1] :]
    return "".join(between)


def is_docstring(kept: list[tuple[int, str]], place: int) -> bool:
    """True where a string is a statement of its own."""
    before = kept[place - 1][0] if place else tokenize.NEWLINE
    after = kept[place + 1][0] if place + 1 < len(kept) else tokenize.NEWLINE
    return kept[place][0] == tokenize.STRING and before in MARKS and after == tokenize.NEWLINE


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
