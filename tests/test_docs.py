"""Every command and query in the README and in docs/ is run, on a small project of a test's own."""

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.warehouse import query

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVERS = ("interlingua ui",)  # started by the test of the UI
STUDY = """
title: Ratings of a test
words: {item: book, items: books, used: read, enjoy: like}
leave_out: [ctr/din, ctr/lightgcn, ctr/sasrec, ctr/deepfm, ctr/dcnv2, ctr/fibinet, ctr/autoint]
data:
  source: {locations: [ratings]}
  dataset:
    interactions: {file: ratings.csv, columns: {user_id: user, item_id: book, rating: stars, at: time}}
    items: {file: books.csv, columns: {item_id: book, title: name}}
  ctr: {split: {like_at_least: 4}}
models: {mf: {penalties: [3]}, binary_codes: {penalties: [5], epochs: 3}}
evaluate: {ctr: {leaderboard: {resamples: 100}}}
"""


def blocks(page: Path, language: str) -> Iterator[str]:
    """The fenced blocks of one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def commands() -> list[str]:
    """Every `interlingua` line of every shell block, once, without comments."""
    found = {}
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.split("  #")[0].split(" > ")[0].strip()
                if words.startswith("interlingua ") and not words.startswith(SERVERS):
                    found[words] = None
    return list(found)


def queries() -> list:
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, "sql"))
    ]


def ratings(folder: Path) -> None:
    """A hundred readers of forty books, some books better than others."""
    draw = random.Random(1)
    folder.mkdir(parents=True)
    rows = ["user,book,stars,time"]
    for time in range(4000):
        book = draw.randrange(40)
        rows.append(
            f"u{draw.randrange(100)},b{book},{min(5, draw.randint(1, 4) + book % 3)},{1_000_000 + time * 60}"
        )
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    (folder / "books.csv").write_text("book,name\n" + "".join(f"b{i},Book number {i}\n" for i in range(40)))


def make_project(root: Path, study: str = STUDY) -> dict[str, str]:
    """A project with two small studies; the environment to run it in."""
    shutil.copy(ROOT / "dagster.yaml", root)
    (root / "studies").mkdir(exist_ok=True)
    ratings(root / "ratings")
    for name in ("quickstart", "my-study"):
        (root / "studies" / f"{name}.yaml").write_text(study)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("INTERLINGUA", "DAGSTER"))}
    return {**kept, "INTERLINGUA_ROOT": str(root)}


def interlingua(words: str, environment: dict[str, str], cwd: Path) -> str:
    """Run a command as a user would; its output. Fails with the output where it fails."""
    command = [sys.executable, "-m", "assets.cli", *shlex.split(words)[1:]]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("project")
    environment = make_project(root)
    for name in ("quickstart", "my-study"):
        interlingua(f"interlingua run {name}", environment, ROOT)
    return root, environment


@pytest.mark.parametrize("words", commands())
def test_a_command_of_the_docs_works(words: str, project: tuple[Path, dict[str, str]]) -> None:
    interlingua(words, project[1], ROOT)


@pytest.mark.parametrize("sql", queries())
def test_a_query_of_the_docs_works(sql: str, project: tuple[Path, dict[str, str]]) -> None:
    frame = query(project[0] / "warehouse" / "interlingua.duckdb", sql)
    assert frame.width > 0


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_page_on_adding_a_method_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "adding-a-method.md").read_text()
    for folder in ("pipeline", "assets", "resources", "warehouse", "tests"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.duckdb*", "__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    written = re.findall(
        r"^## \d\. [^`\n]*`([^`]+\.py)`\n(?:(?!```|## )[^\n]*\n)*```python\n(.*?)^```", page, re.M | re.S
    )
    assert len(written) == 6
    for name, code in written:
        (tmp_path / name).write_text(code)
    environment = {
        **make_project(tmp_path, STUDY + "methods: {history_mean: {}}\n"),
        "PYTHONPATH": str(tmp_path),
    }
    tests = [
        "tests/pipeline/methods/test_history_mean.py",
        "tests/pipeline/methods/test_both_lists.py",
        "tests/test_architecture.py",
        "tests/test_stage_versions.py",
    ]
    steps = [
        [sys.executable, "-m", "tests.stage_versions"],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
    ]
    for step in steps:
        done = subprocess.run(step, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
    assert "history_mean" in interlingua("interlingua run my-study", environment, tmp_path)
    before = set((ROOT / "tests/assets/graph.txt").read_text().splitlines())
    after = set(interlingua("interlingua graph", environment, tmp_path).splitlines())
    assert "history_mean/predictions <- ctr/split" in after - before
    assert "both_lists/prompts <- ctr/split, dataset, language_model" in after - before
