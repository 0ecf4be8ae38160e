"""The doctor: what is well, what is not, how to mend it, and never a secret's value."""

from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from resources import doctor
from resources.project import Project

LOCAL = "on this machine, its hash is taken by every run"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "studies").mkdir()
    (tmp_path / "dagster.yaml").write_text("")
    return Project.here({"INTERLINGUA_ROOT": str(tmp_path)})


def study(project: Project, name: str, text: str) -> None:
    (project.root / "studies" / f"{name}.yaml").write_text(text)


def test_a_good_project_has_nothing_bad(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_NEEDED", 0)
    monkeypatch.setattr(doctor, "MEMORY_NEEDED", 0)
    study(project, "toy", "title: Toy\n")
    findings = list(doctor.examine(project))
    assert [f.what for f in findings if f.state == "bad"] == []
    assert {"python", "disk", "memory", "store", "study toy", "device"} <= {f.what for f in findings}


def test_a_small_disk_and_a_small_memory_are_told_with_a_way_out(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(doctor.GIB))
    assert doctor.disk(project.store_root).state == "bad"
    assert "interlingua gc" in doctor.disk(project.store_root).mend
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: namedtuple("m", "available")(doctor.GIB))
    assert doctor.memory().state == "bad"
    assert "1.0 GiB available" in doctor.memory().found


def test_versions_are_compared_up_to_their_local_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("torch==2.13.0\npolars==2.1.0  # tested\nmissing==1.0\n")
    there = {"torch": "2.13.0+cpu", "polars": "2.0.0", "missing": None}
    monkeypatch.setattr(doctor, "installed", there.get)
    findings = {f.what: f for f in doctor.packages(constraints)}
    assert findings["polars"].found == "2.0.0, tested with 2.1.0"
    assert findings["polars"].mend == "pip install polars==2.1.0"
    assert not {"torch", "missing"} & set(findings)  # an extra that is not installed is not missed
    assert findings["packages"].found == "1 of 2 as in constraints.txt"


def test_a_broken_study_is_named_with_the_key_at_fault(project: Project) -> None:
    study(project, "bad", "titel: typo\n")
    [finding] = doctor.study_files(project)
    assert finding.state == "bad"
    assert "did you mean 'title'?" in finding.found


def test_a_secret_that_a_study_names_is_asked_for_and_never_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(project, "chat", "title: Chat\nmodels: {chat: {key: OPENAI_API_KEY}}\n")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    [missing] = doctor.secrets(project)
    assert (missing.state, missing.mend) == ("bad", "export OPENAI_API_KEY=...")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    [there] = doctor.secrets(project)
    assert there.state == "good"
    assert "very-secret" not in repr(there)


@pytest.mark.parametrize(
    "text", ["models: {chat: {key: MY_ENDPOINT}}\n", "models: {chat: embedded}\n", "seeds: [1]\n"]
)
def test_the_variable_of_a_chat_models_key_is_asked_for_whatever_its_name(project: Project, text: str) -> None:
    study(project, "chat", f"title: Chat\n{text}")
    named = [finding.what for finding in doctor.secrets(project)]
    assert named == (["secret MY_ENDPOINT"] if "MY_ENDPOINT" in text else [])


def test_a_source_that_is_not_here_is_noted_until_it_is_here_or_in_the_store(project: Project) -> None:
    study(project, "own", "title: Own\ndata: {source: {locations: [nowhere, ratings]}}\n")
    [missing] = doctor.sources(project)
    assert (missing.state, missing.found) == ("note", "not to be had: nowhere, ratings")
    (project.root / "ratings").mkdir()
    [there] = doctor.sources(project)
    assert (there.state, there.found) == ("good", f"ratings: {LOCAL}")
    (project.root / "ratings").rmdir()
    project.store.set_head("own", "source", [{"cell": {}, "fingerprint": "f" * 32}])
    [gone] = doctor.sources(project)
    assert gone.found == "not to be had: nowhere, ratings"
    store(project, "own", "source", location="ratings")
    [stored] = doctor.sources(project)
    assert (stored.state, stored.found) == ("good", f"ratings: {LOCAL}; in the store")


def store(project: Project, study: str, stage: str, **metrics: str) -> None:
    """An artefact of the study's that was taken from somewhere."""
    draft = project.store.draft(project.store_root / "work" / "w")
    facts = {"stage": stage, "fingerprint": "f" * 32, "files": {}, "cell": {}, "metrics": metrics}
    project.store.commit(draft, facts)
    project.store.set_head(study, stage, [{"cell": {}, "fingerprint": "f" * 32}])


HASH = "0" * 64
COMMIT = "1" * 40


@pytest.mark.parametrize(
    ("written", "state", "found", "mend"),
    [
        (f"{{locations: 'pypi:a==1', sha256: '{HASH}'}}", "good", "pypi:a==1: pinned by sha256", ""),
        ("{locations: 'pypi:a==1'}", "note", "pypi:a==1: no hash pins it", "add a sha256 under data.source"),
        ("{locations: 'https://h/a.zip'}", "note", "https://h/a.zip: no hash pins it", "add a sha256"),
        (f"{{locations: 'hf:o/n@{COMMIT}/a.csv'}}", "good", f"hf:o/n@{COMMIT}/a.csv: pinned by commit", ""),
        ("{locations: 'hf:o/n@main/a.csv'}", "note", "hf:o/n@main/a.csv: no hash pins it", "add a sha256"),
        ("{locations: [studies, 'pypi:a==1']}", "note", "pypi:a==1: no hash pins it", "add a sha256"),
    ],
)
def test_a_source_that_no_hash_pins_is_noted_with_what_to_write(
    project: Project, monkeypatch: pytest.MonkeyPatch, written: str, state: str, found: str, mend: str
) -> None:
    monkeypatch.setattr(doctor, "there", lambda *_: True)
    study(project, "own", f"title: Own\ndata: {{source: {written}}}\n")
    [finding] = doctor.sources(project)
    assert (finding.what, finding.state, finding.found) == ("source of own", state, found)
    assert finding.mend.startswith(mend)
    assert bool(finding.mend) == bool(mend)


def test_a_wheel_that_was_fetched_is_pinned_by_its_own_hash(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "there", lambda *_: True)
    study(project, "own", "title: Own\ndata: {source: {locations: 'pypi:a==1'}}\n")
    wheel = doctor.cache(project.root) / "pypi" / "a==1" / "a-1.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"bytes")
    [finding] = doctor.sources(project)
    assert finding.mend == f"add under data.source: sha256: {sha256(b'bytes').hexdigest()}"


def test_every_study_that_asks_a_language_model_has_it_listed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "there", lambda *_: True)
    study(project, "default", "title: A\nmethods: {tallrec: {}}\n")
    study(project, "other", "title: B\nmodels: {language_model: {location: 'pypi:b==2'}}\n")
    study(project, "none", "title: C\n")
    study(project, "wrong", "title: D\ndata: {source: {locations: []}}\n")
    default, other = doctor.sources(project)
    assert (default.what, default.state) == ("language_model of default", "good")
    assert (other.what, other.state) == ("language_model of other", "note")
    assert other.mend.startswith("add a sha256 under models.language_model")


def test_an_address_is_asked_whether_it_answers(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/data.zip", method="HEAD").respond_with_data("")
    assert doctor.answers(httpserver.url_for("/data.zip"))
    assert not doctor.answers(httpserver.url_for("/nothing.zip"))


def test_a_wheel_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        asked.append(command)
        return namedtuple("done", "returncode")(1)

    monkeypatch.setattr(doctor.subprocess, "run", run)
    assert not doctor.there("pypi:recbole==1.2.1", tmp_path)
    assert asked[0][1:4] == ["-m", "pip", "index"]
    assert asked[0][-1] == "recbole"


def test_an_instance_without_its_file_is_bad(project: Project) -> None:
    assert doctor.instance_file(project).state == "good"
    (project.home / "dagster.yaml").unlink()
    assert doctor.instance_file(project).state == "bad"


def test_a_folder_that_will_be_made_is_judged_by_what_is_there(tmp_path: Path) -> None:
    assert doctor.writable("store", tmp_path / "a" / "b").state == "good"
    assert doctor.existing(tmp_path / "a" / "b") == tmp_path


@pytest.mark.parametrize(
    ("flags", "native"), [({"avx512_bf16", "sse"}, True), ({"avx2"}, False), (set(), False)]
)
def test_bf16_is_read_from_the_processor_flags(flags: set[str], native: bool) -> None:
    assert doctor.bf16_in(flags) is native
