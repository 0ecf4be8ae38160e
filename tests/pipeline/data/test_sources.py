import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.data import sources
from pipeline.data.sources import SourceError, SourceSettings, WrongHash, fetch, files, outside, require_pin
from pipeline.stage import StageFailed, hash_file
from pipeline.study import StudyError
from tests.pipeline.data.project import Project


def zipped(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def test_one_location_may_be_written_without_a_list() -> None:
    assert SourceSettings.model_validate({"locations": "data"}).locations == ("data",)


# --- files of the project


def test_local_files_stay_where_they_are_and_are_recorded_with_their_hash(project: Project) -> None:
    project.write("shop/a.csv", "x")
    project.write("shop/deep/b.csv", "yy")
    project.write("shop/notes.md", "no")
    project.write("shop/.hidden.csv", "no")
    made = project.make("source", source={"locations": "shop", "members": ["*.csv"]})
    taken = made.json("files")["files"]
    assert taken["a.csv"] == {
        "path": "shop/a.csv",
        "held": False,
        "bytes": 1,
        "sha256": hashlib.sha256(b"x").hexdigest(),
    }
    assert list(taken) == ["a.csv", "deep/b.csv"]
    assert not (made.path / "files").exists()
    assert files(made, project.root)["deep/b.csv"] == project.root / "shop/deep/b.csv"
    assert made.metrics == {"location": "shop", "files": 2, "bytes": 3}


def test_a_single_file_is_a_source(project: Project) -> None:
    project.write("a.csv", "x")
    made = project.make("source", source={"locations": "a.csv"})
    assert files(made, project.root) == {"a.csv": project.root / "a.csv"}


def test_members_of_a_local_archive_lie_in_the_artefact(project: Project) -> None:
    zipped(project.root / "shop.zip", a_csv="x", b_csv="y", readme="no")
    made = project.make("source", source={"locations": "shop.zip", "members": ["*.csv"]})
    assert files(made, project.root) == {
        "a.csv": made.path / "files" / "a.csv",
        "b.csv": made.path / "files" / "b.csv",
    }


def test_the_first_location_that_is_there_is_taken(project: Project) -> None:
    project.write("second/a.csv", "x")
    made = project.make("source", source={"locations": ["first", "second", "https://localhost/never"]})
    assert made.json("files")["location"] == "second"


def test_where_nothing_works_every_location_says_why(project: Project) -> None:
    project.write("shop/a.csv", "x")
    with pytest.raises(StageFailed) as error:
        project.make("source", source={"locations": ["shopp", "pypi:recbole", "ftp:x"]})
    said = str(error.value)
    assert "- shopp: no such file or folder under" in said
    assert "did you mean 'shop'?" in said
    assert "- pypi:recbole: write it as pypi:name==version, with one exact version" in said
    assert "- ftp:x: ftp is no kind of source" in said


def test_a_folder_without_a_matching_file_says_so(project: Project) -> None:
    project.write("shop/a.csv", "x")
    with pytest.raises(StageFailed, match=r"shop: no file there matches \*\.parquet"):
        project.make("source", source={"locations": "shop", "members": ["*.parquet"]})


def test_an_empty_file_fails_the_check(project: Project) -> None:
    project.write("shop/a.csv", "")
    made = project.make("source", source={"locations": "shop"})
    assert made.manifest["checks"]["files_not_empty"]["passed"] is False
    assert made.manifest["checks"]["files_not_empty"]["description"] == "empty: a.csv"


def test_a_changed_local_file_is_another_source(project: Project) -> None:
    project.write("shop/a.csv", "x")
    before = project.plan("source", source={"locations": "shop"})[0].fingerprint
    assert project.plan("source", source={"locations": "shop"})[0].fingerprint == before
    project.write("shop/a.csv", "y")
    os.utime(project.root / "shop/a.csv", ns=(1, 1))
    assert project.plan("source", source={"locations": "shop"})[0].fingerprint != before


def test_a_file_of_the_same_size_and_time_is_not_read_again(project: Project, monkeypatch) -> None:
    project.write("shop/a.csv", "x")
    settings = SourceSettings(locations=("shop",))
    first = outside(settings, project.root)
    monkeypatch.setattr(sources, "hash_file", lambda _: pytest.fail("read again"))
    assert outside(settings, project.root) == first


def test_a_remote_source_has_nothing_outside(project: Project) -> None:
    assert outside(SourceSettings(locations=("pypi:a==1", "not-there")), project.root) == {}


def test_a_local_file_that_changes_or_goes_after_its_source_was_made_is_noticed(project: Project) -> None:
    file = project.write("shop/a.csv", "x")
    made = project.make("source", source={"locations": "shop"})
    project.write("shop/a.csv", "y")
    os.utime(file, ns=(1, 1))
    with pytest.raises(SourceError, match=r"a\.csv changed while the study ran; run again"):
        files(made, project.root)
    file.unlink()
    with pytest.raises(SourceError, match=r"a\.csv was there when the source was read and is gone"):
        files(made, project.root)


# --- pinned hashes


def test_a_wrong_pin_names_both_hashes_and_no_other_location_is_tried(project: Project) -> None:
    archive = zipped(project.root / "a.zip", a_csv="x")
    zipped(project.root / "b.zip", a_csv="x")
    with pytest.raises(StageFailed) as error:
        project.make("source", source={"locations": ["a.zip", "b.zip"], "sha256": "0" * 64})
    assert hash_file(archive) in str(error.value)
    assert "0" * 64 in str(error.value)
    assert "b.zip" not in str(error.value)


def test_a_right_pin_passes(project: Project) -> None:
    pin = hash_file(zipped(project.root / "a.zip", a_csv="x"))
    assert project.make("source", source={"locations": "a.zip", "sha256": pin}).metrics["files"] == 1


def test_a_download_with_the_wrong_hash_leaves_the_cache(tmp_path: Path, httpserver) -> None:
    httpserver.expect_request("/a.csv").respond_with_data("x")
    url = httpserver.url_for("/a.csv")
    with pytest.raises(WrongHash):
        fetch(url, "0" * 64, tmp_path, loopback=True)
    assert not list(tmp_path.rglob("a.csv"))
    assert fetch(url, hashlib.sha256(b"x").hexdigest(), tmp_path, loopback=True).read_text() == "x"


def test_a_download_that_nothing_pins_is_refused_with_its_hash(project: Project, monkeypatch) -> None:
    file = project.write("cache/a.csv", "x")
    monkeypatch.setattr(sources, "fetch_url", lambda *_: file)
    settings = {"locations": ["https://host/a.csv", "data"]}
    with pytest.raises(StageFailed) as error:
        project.make("source", source=settings)
    assert f"pin what you mean. As fetched now, write\n    sha256: {hash_file(file)}" in str(error.value)
    made = project.make("source", source={**settings, "sha256": hash_file(file)})
    assert made.json("files")["location"] == "https://host/a.csv"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("location", "refused"),
    [
        ("https://host/a.csv", True),
        ("hf:owner/name/a.csv", True),
        ("hf:owner/name@main/a.csv", True),
        (f"hf:datasets/owner/name@{COMMIT}/a.csv", False),
        ("pypi:toyset==1.0", False),
        ("data/a.csv", False),
    ],
)
def test_what_may_change_elsewhere_needs_a_pin(tmp_path: Path, location: str, refused: bool) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x")
    require_pin(location, file, hash_file(file))
    if refused:
        with pytest.raises(WrongHash, match=hash_file(file)):
            require_pin(location, file, None)
    else:
        require_pin(location, file, None)


# --- secrets


@pytest.mark.parametrize("address", ["https://ann:pass@host/a.csv", "https://host/a.csv?token=pass"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(project: Project, address: str) -> None:
    with pytest.raises(StudyError) as error:
        project.plan("source", source={"locations": ["data", address]})
    said = str(error.value)
    assert said.startswith("studies/")
    assert "data.source: locations.1: " in said
    assert "holds a user name, a password or a token" in said
    assert "pass" not in said.replace("a password", "")


def test_what_a_server_says_is_told_without_its_secrets() -> None:
    assert str(SourceError("it redirects to https://host/?X-Amz-Signature=abc")).endswith("Signature=***")


# --- wheels


def wheel(folder: Path) -> Path:
    """A package that must not be installed, and needs another that does not exist."""
    folder.mkdir()
    path = folder / "toyset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toyset/ratings.csv", "user,item\n")
        archive.writestr("toyset/__init__.py", "raise RuntimeError('imported')")
        about = "Metadata-Version: 2.1\nName: toyset\nVersion: 1.0\nRequires-Dist: toyset-that-is-not-there\n"
        archive.writestr("toyset-1.0.dist-info/METADATA", about)
        archive.writestr("toyset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toyset-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch) -> Path:
    """A folder of wheels that the user's pip is configured to look in, and nowhere else."""
    path = wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return path


def test_a_wheel_is_read_without_installing_it_or_what_it_needs(index: Path, project: Project) -> None:
    pin = hash_file(index)
    made = project.make("source", source={"locations": "pypi:toyset==1.0", "sha256": pin, "members": "*.csv"})
    assert files(made, project.root)["toyset/ratings.csv"].read_text() == "user,item\n"
    found = subprocess.run([sys.executable, "-m", "pip", "show", "toyset"], capture_output=True, text=True)
    assert found.returncode != 0


def test_a_wheel_is_downloaded_once(index: Path, tmp_path: Path) -> None:
    first = fetch("pypi:toyset==1.0", None, tmp_path / "cache")
    index.unlink()
    assert fetch("pypi:toyset==1.0", None, tmp_path / "cache") == first


def test_a_wheel_that_is_not_there_says_what_pip_said(index: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"pypi:toyset==2\.0: pip could not download it.*No matching distribution"
    ):
        fetch("pypi:toyset==2.0", None, tmp_path)


@pytest.mark.parametrize("name", ["toyset", "toyset>=1", "--index-url=x==1", "toyset==1 --pre", "git+x==1", ""])
def test_only_a_name_and_an_exact_version_reach_pip(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    with pytest.raises(SourceError, match="write it as pypi:name==version"):
        fetch(f"pypi:{name}", None, tmp_path)


# --- the hub


def test_a_hub_file_is_asked_for_by_repository_revision_and_kind(tmp_path: Path, monkeypatch) -> None:
    import huggingface_hub

    asked = []
    (tmp_path / "f").write_text("x")

    def download(repo, name, **facts):
        asked.append((repo, name, facts["revision"], facts["repo_type"]))
        return str(tmp_path / "f")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch("hf:owner/model@v1/deep/a.gguf", None, tmp_path).read_text() == "x"
    fetch("hf:datasets/owner/set/a.csv", None, tmp_path)
    assert asked == [("owner/model", "deep/a.gguf", "v1", "model"), ("owner/set", "a.csv", None, "dataset")]


def test_a_hub_that_does_not_answer_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*_, **__):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(
        SourceError, match=r"hf:owner/model/a: no network\. Check the name.*or add a local path"
    ):
        fetch("hf:owner/model/a", None, tmp_path)


@pytest.mark.parametrize("name", ["owner", "owner/model", "owner/model@", "/a/b"])
def test_a_hub_name_without_a_file_says_how_it_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="write it as hf:owner/name"):
        fetch(f"hf:{name}", None, tmp_path)
