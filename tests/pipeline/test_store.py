"""The store: whole artefacts or none, one writer at a time, nothing needed ever collected."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import store as stores
from pipeline.store import MANIFEST, Store, write_atomic


def manifest(fingerprint: str = "f1", stage: str = "s", **facts) -> dict:
    base = {
        "stage": stage,
        "fingerprint": fingerprint,
        "cell": {},
        "made_from": [],
        "metrics": {},
        "measured": {},
    }
    return {**base, "files": {"a.json": {"bytes": 2, "sha256": ""}}, **facts}


def write(store: Store, fingerprint: str = "f1", **facts):
    with store.writing(fingerprint) as work:
        draft = store.draft(work)
        (draft / "a.json").write_text("{}")
        return store.commit(draft, manifest(fingerprint, **facts))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_was_committed_is_found(store: Store) -> None:
    write(store)
    found = store.find("s", "f1")
    assert found is not None
    assert found.json("a") == {}
    assert found.fingerprint == "f1"
    assert [a.fingerprint for a in store.all()] == ["f1"]


def test_an_unknown_fingerprint_is_none_and_get_names_it(store: Store) -> None:
    assert store.find("s", "nope") is None
    with pytest.raises(FileNotFoundError, match="nope"):
        store.get("s", "nope")


def test_a_folder_without_manifest_is_not_an_artefact(store: Store) -> None:
    place = store.place("s", "f1")
    place.mkdir(parents=True)
    (place / "a.json").write_text("{}")
    assert store.find("s", "f1") is None


@pytest.mark.parametrize("fault", ["gone", "shorter", "longer"])
def test_a_folder_with_a_damaged_file_is_refused_and_written_again(store: Store, fault: str) -> None:
    file = write(store).file("a.json")
    file.unlink() if fault == "gone" else file.write_text({"shorter": "{", "longer": "{}  "}[fault])
    assert store.find("s", "f1") is None
    write(store)
    assert store.find("s", "f1") is not None


def test_drafts_of_a_killed_run_are_cleared_and_checkpoints_kept(store: Store) -> None:
    with store.writing("f1") as work:
        left = store.draft(work)
        (work / "checkpoints" / "step").write_text("3")
    with store.writing("f1") as work:
        assert not left.exists()
        assert (work / "checkpoints" / "step").read_text() == "3"


def test_commit_drops_the_work_folder(store: Store) -> None:
    write(store)
    assert not (store.root / "work" / "f1").exists()


def test_everything_is_on_disk_before_an_artefact_is_in_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename, synced, synced_folder = os.rename, stores.sync, stores.sync_folder

    def moved(source: Path, target: Path) -> None:
        done.append("moved")
        rename(source, target)

    def file(path: Path) -> None:
        done.append(path.name.split(".")[0] or "manifest")
        synced(path)

    def folder(path: Path) -> None:
        done.append("draft/" if path.name.startswith("draft-") else f"{path.name}/")
        synced_folder(path)

    monkeypatch.setattr(stores.os, "rename", moved)
    monkeypatch.setattr(stores, "sync", file)
    monkeypatch.setattr(stores, "sync_folder", folder)
    with store.writing("f1") as work:
        draft = store.draft(work)
        (draft / "deep" / "deeper").mkdir(parents=True)
        (draft / "a.json").write_text("{}")
        (draft / "deep" / "deeper" / "b.json").write_text("{}")
        store.commit(draft, manifest("f1", stage="method/part"))
    before, after = done[: done.index("moved")], done[done.index("moved") + 1 :]
    assert {"a", "b", "deep/", "deeper/", "manifest", "draft/"} <= set(before)
    assert before.index("manifest") > max(before.index(name) for name in ("a", "b", "deep/", "deeper/"))
    assert before[-3:] == ["store/", "artefacts/", "method/"]  # each new folder in the one that holds it
    assert after == ["part/"]


def test_the_second_writer_waits_for_the_first(store: Store) -> None:
    order = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with store.writing("f1"):
            inside.set()
            leave.wait(5)
            order.append("first")

    def second() -> None:
        with Store(store.root).writing("f1"):
            order.append("second")

    one, two = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    inside.wait(5)
    assert not store.idle("f1")
    two.start()
    leave.set()
    one.join(5)
    two.join(5)
    assert order == ["first", "second"]
    assert store.idle("f1")


def test_a_killed_writer_frees_its_lock(store: Store) -> None:
    code = (
        "import os, signal; from pipeline.store import Store\n"
        f"with Store({str(store.root)!r}).writing('f1') as work:\n"
        "    Store.draft(Store('x'), work); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert store.idle("f1")
    assert write(store).fingerprint == "f1"


def test_write_atomic_leaves_old_or_new_and_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "x.json"
    write_atomic(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(file, "broken \ud800")
    assert file.read_text() == "old"
    assert [f.name for f in file.parent.iterdir()] == ["x.json"]


def test_heads_name_what_a_study_stands_for(store: Store) -> None:
    write(store)
    cells = [{"cell": {}, "fingerprint": "f1"}]
    store.set_head("toy", "m/s", cells)
    assert store.head("toy", "m/s") == cells
    assert store.head("toy", "other") is None
    assert store.heads()["toy"]["m/s"] == []  # the head's stage is m/s, the artefact's is s
    store.set_head("toy", "s", cells)
    assert [a.fingerprint for a in store.heads()["toy"]["s"]] == ["f1"]


def test_garbage_is_what_no_head_needs(store: Store) -> None:
    write(store, "parent")
    write(store, "child", made_from=[{"stage": "s", "fingerprint": "parent"}])
    write(store, "old")
    store.set_head("toy", "s", [{"cell": {}, "fingerprint": "child"}])
    with store.writing("stopped"):
        assert [f.name for f in store.garbage(0)] == ["old"]  # somebody is at the other
    assert sorted(f.name for f in store.garbage(0)) == ["old", "stopped"]


def test_what_a_run_may_still_need_is_no_garbage(store: Store) -> None:
    write(store, "made_just_now")
    with store.writing("interrupted"):
        pass
    assert store.garbage() == []
    (store.root / "work" / "made_just_now").mkdir(parents=True)  # left by a kill after the rename
    assert [f.name for f in store.garbage()] == ["made_just_now"]


def test_the_manifest_is_plain_json(store: Store) -> None:
    file = write(store).file(MANIFEST)
    assert json.loads(file.read_text())["fingerprint"] == "f1"
