import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.data.archives import SourceError, is_archive, members


def zipped(path: Path, *files: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def tarred(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_only_matching_members_are_taken_under_their_own_paths(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", ("set/a.csv", b"1"), ("set/deep/b.csv", b"22"), ("readme", b"no"))
    taken = members(archive, "*.csv", tmp_path / "into")
    assert [f.relative_to(tmp_path / "into").as_posix() for f in taken] == ["set/a.csv", "set/deep/b.csv"]
    assert [f.read_bytes() for f in taken] == [b"1", b"22"]
    assert not (tmp_path / "into" / "readme").exists()


def test_a_tar_written_with_leading_dots_has_plain_names(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", ("./a.csv", b"1"))
    assert members(archive, "a.csv", tmp_path / "into") == [tmp_path / "into" / "a.csv"]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../evil.csv", "a/../../evil.csv", "/evil.csv", "..\\evil.csv", "C:/evil.csv", "C:\\evil.csv"]
)
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(tmp_path: Path, pack, name: str) -> None:
    archive = pack(tmp_path / "a", (name, b"x"))
    with pytest.raises(SourceError, match=r"leads out of the folder; nothing was taken"):
        members(archive, "*", tmp_path / "in" / "into")
    assert [f.name for f in tmp_path.rglob("*")] == ["a"]


def test_one_bad_name_among_good_ones_stops_all(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("good.csv", b"1"), ("../evil.csv", b"2"))
    with pytest.raises(SourceError, match="evil"):
        members(archive, "*", tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("passwords")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(SourceError, match="'passwords' is a link or device"):
        members(tmp_path / "a.tar", "*", tmp_path / "into")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("passwords")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(SourceError, match="'passwords' is a link or device"):
        members(tmp_path / "a.zip", "*", tmp_path / "into")


def test_more_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("a", b"x" * 600), ("b", b"x" * 600))
    with pytest.raises(SourceError, match=r"1,200 bytes or more, over the limit of 1,000.*max_gigabytes"):
        members(archive, "*", tmp_path / "into", limit=1000)
    assert len(members(archive, "*", tmp_path / "into", limit=1200)) == 2


def test_an_archive_that_lies_about_its_sizes_is_stopped(tmp_path: Path, monkeypatch) -> None:
    archive = zipped(tmp_path / "a.zip", ("a", b"x" * 5000))
    monkeypatch.setattr("pipeline.data.archives.refuse_unsafe", lambda *_: None)
    with pytest.raises(SourceError, match="over the limit of 1,000"):
        members(archive, "*", tmp_path / "into", limit=1000)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.data.archives.MOST_MEMBERS", 2)
    archive = zipped(tmp_path / "a.zip", ("a", b""), ("b", b""), ("c", b""))
    with pytest.raises(SourceError, match="3 members, over the limit of 2"):
        members(archive, "*", tmp_path / "into")


def test_no_match_names_the_nearest_member(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("set/ratings.csv", b""), ("set/readme", b""))
    with pytest.raises(
        SourceError, match=r"no member matches 'set/rating.csv'; did you mean 'set/ratings.csv'"
    ):
        members(archive, "set/rating.csv", tmp_path / "into")


def test_what_is_no_archive_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not an archive")
    assert not is_archive(tmp_path / "a.zip")
    with pytest.raises(SourceError, match=r"a.zip: no zip or tar archive that can be read"):
        members(tmp_path / "a.zip", "*", tmp_path / "into")
