"""The store: artefacts by fingerprint, written once, never changed.

    store/artefacts/<stage>/<fingerprint>/   tables, tensors, JSON, pictures, and manifest.json
    store/heads/<study>/<stage>.json         which artefacts a study's asset stands for now
    store/work/<fingerprint>/checkpoints/    where an interrupted stage goes on from
    store/work/<fingerprint>/draft-*/        an artefact being written
    store/locks/<fingerprint>.lock           held while an artefact is being written
    store/answers/                           what chat models answered (`pipeline.knowledge`)

An artefact exists when its manifest does: the draft is written beside, synced to disk, given its manifest
last and moved into place by one rename. So a kill at any moment leaves an old state or a new one. The lock
makes a second run wait for the first and then find its work done; the operating system frees it when
its holder dies.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from filelock import FileLock

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Artefact:
    """A finished folder and its manifest; everything is read on demand."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def stage(self) -> str:
        return self.manifest["stage"]

    @property
    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    @property
    def variant(self) -> str:
        return self.manifest["cell"].get("variant", "default")

    @property
    def seed(self) -> int:
        return self.manifest["cell"].get("seed", 0)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.manifest["settings"]

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.manifest["metrics"]

    @property
    def measured(self) -> Mapping[str, Any]:
        """Seconds, memory, device: true of one run, not part of what the artefact is."""
        return self.manifest["measured"]

    def has(self, name: str) -> bool:
        return self.file(f"{name}.parquet").exists()

    def file(self, name: str) -> Path:
        return self.path / name

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.file(f"{name}.parquet"), glob=False)

    def scan(self, name: str) -> pl.LazyFrame:
        return pl.scan_parquet(self.file(f"{name}.parquet"), glob=False)

    def tensors(self, name: str) -> "dict[str, Tensor]":
        from safetensors.torch import load_file

        return load_file(self.file(f"{name}.safetensors"))

    def json(self, name: str) -> Any:
        return json.loads(self.file(f"{name}.json").read_text())


class Store:
    """Artefacts in a folder. Safe for several processes of one machine at once."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()

    @property
    def answers(self) -> Path:
        """Folder of the recorded answers of chat models."""
        return self.root / "answers"

    def place(self, stage: str, fingerprint: str) -> Path:
        return self.root / "artefacts" / stage / fingerprint

    def find(self, stage: str, fingerprint: str) -> Artefact | None:
        """The artefact, or None where it is not there, whole, under this fingerprint."""
        path = self.place(stage, fingerprint)
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
        whole = all((path / name).is_file() and (path / name).stat().st_size == n for name, n in sizes.items())
        return Artefact(path, manifest) if whole else None

    def get(self, stage: str, fingerprint: str) -> Artefact:
        """As `find`, but raises FileNotFoundError."""
        artefact = self.find(stage, fingerprint)
        if artefact is None:
            raise FileNotFoundError(f"no whole artefact of {stage} under {fingerprint} in {self.root}")
        return artefact

    def all(self) -> Iterator[Artefact]:
        """Every whole artefact."""
        base = self.root / "artefacts"
        for manifest in sorted(base.glob(f"**/{MANIFEST}")):
            folder = manifest.parent
            artefact = self.find(str(folder.parent.relative_to(base)), folder.name)
            if artefact is not None:
                yield artefact

    @contextmanager
    def writing(self, fingerprint: str) -> Iterator[Path]:
        """Hold the artefact's lock and yield its work folder, cleared of drafts that a killed run left."""
        work = self.root / "work" / fingerprint
        lock = self.root / "locks" / f"{fingerprint}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            for left in work.glob("draft-*"):
                shutil.rmtree(left)
            (work / "checkpoints").mkdir(parents=True, exist_ok=True)
            yield work

    def draft(self, work: Path) -> Path:
        """A fresh folder to write an artefact in, on the same file system as its place."""
        folder = work / f"draft-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder

    def commit(self, draft: Path, manifest: Mapping[str, Any]) -> Artefact:
        """Sync the draft, write its manifest last, rename it into place, drop its checkpoints."""
        for path in draft.rglob("*"):
            sync_folder(path) if path.is_dir() else sync(path)
        write_atomic(draft / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))  # syncs the draft too
        final = self.place(manifest["stage"], manifest["fingerprint"])
        make_folder(final.parent)
        if final.exists():  # a broken folder: `find` refused it, so it may go
            shutil.rmtree(final)
        os.rename(draft, final)
        sync_folder(final.parent)
        shutil.rmtree(draft.parent)
        return Artefact(final, manifest)

    def head_file(self, study: str, stage: str) -> Path:
        return self.root / "heads" / study / f"{stage.replace('/', '.')}.json"

    def set_head(self, study: str, stage: str, cells: Sequence[Mapping[str, Any]]) -> None:
        """Record which artefacts (`cell`, `fingerprint`) the study's asset stands for."""
        write_atomic(
            self.head_file(study, stage), json.dumps({"stage": stage, "cells": list(cells)}, sort_keys=True)
        )

    def head(self, study: str, stage: str) -> list[dict[str, Any]] | None:
        """The cells recorded for the study's asset, or None where it was never materialised."""
        try:
            return json.loads(self.head_file(study, stage).read_text())["cells"]
        except FileNotFoundError:
            return None

    def heads(self) -> dict[str, dict[str, list[Artefact]]]:
        """Study -> stage -> artefacts, of everything materialised and still there."""
        found: dict[str, dict[str, list[Artefact]]] = {}
        for file in sorted((self.root / "heads").glob("*/*.json")):
            head = json.loads(file.read_text())
            artefacts = [self.find(head["stage"], cell["fingerprint"]) for cell in head["cells"]]
            found.setdefault(file.parent.name, {})[head["stage"]] = [a for a in artefacts if a is not None]
        return found

    def garbage(self, idle_seconds: float = DAY) -> list[Path]:
        """Folders that no head needs: superseded artefacts, and work that nothing will go on from.

        An artefact is kept while a head names it or another kept artefact was made from it. What was touched
        within `idle_seconds` is kept too: a run sets its heads at the end, and an interrupted training
        goes on from its checkpoints.
        """
        before = time.time() - idle_seconds
        kept: set[str] = set()
        todo = [a for stages in self.heads().values() for artefacts in stages.values() for a in artefacts]
        while todo:
            artefact = todo.pop()
            if artefact.fingerprint in kept:
                continue
            kept.add(artefact.fingerprint)
            parents = [self.find(p["stage"], p["fingerprint"]) for p in artefact.manifest["made_from"]]
            todo += [p for p in parents if p is not None]
        found = list(self.all())
        old = [a.path for a in found if a.fingerprint not in kept and touched(a.path) <= before]
        made = {a.fingerprint for a in found}
        work = [f for f in (self.root / "work").glob("*") if f.name in made or touched(f) <= before]
        return old + [f for f in work if self.idle(f.name)]

    def idle(self, fingerprint: str) -> bool:
        """True where nobody is writing this artefact now."""
        lock = FileLock(self.root / "locks" / f"{fingerprint}.lock", timeout=0)
        try:
            with lock:
                return True
        except TimeoutError:
            return False


def touched(folder: Path) -> float:
    """When anything in a folder was last written, in seconds since 1970."""
    return max(f.stat().st_mtime for f in (folder, *folder.rglob("*")))


def write_atomic(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old text or the new, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        beside.write_text(text)
        sync(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each named on disk in the one that holds it."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
