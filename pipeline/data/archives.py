"""Taking files out of zip and tar archives (wheels too) without trusting what the archive says of itself."""

import fnmatch
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.study import StudyError, nearest

CHUNK = 1 << 20
LIMIT = 64 * 2**30  # bytes of one download or one archive's members, unless a caller says otherwise
MOST_MEMBERS = 100_000


class SourceError(StudyError):
    """Bytes that could not be had; the message says from where, why, and what to do."""


@dataclass(frozen=True)
class Member:
    """One entry of a zip or tar archive that holds bytes."""

    name: str
    size: int
    plain: bool
    entry: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(path: Path) -> bool:
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def members(path: Path, pattern: str | tuple[str, ...], into: Path, limit: int = LIMIT) -> list[Path]:
    """Extract the members that match, under their own paths, into a folder. Returns them, sorted.

    Raises SourceError for names that lead outside the folder, links, devices, too many bytes, no match.
    """
    patterns = (pattern,) if isinstance(pattern, str) else pattern
    with opened(path) as archive:
        entries = list(entries_of(archive))
        chosen = [m for m in entries if matches(m.name, patterns)]
        if not chosen:
            names = [m.name for m in entries]
            raise SourceError(f"{path.name}: no member matches {pattern!r}{nearest(str(pattern), names[:200])}")
        refuse_unsafe(path, chosen, limit)
        for member in chosen:
            target = into / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with read_member(archive, member) as source, target.open("wb") as sink:
                limit -= copy(source, sink, limit, f"{path.name}: {member.name}")
    return sorted(into / member.name for member in chosen)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    try:
        archive = zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path)  # noqa: SIM115
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{path.name}: no zip or tar archive that can be read ({error})") from error
    with archive:
        yield archive


def entries_of(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    if isinstance(archive, zipfile.ZipFile):
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir():
                yield Member(info.filename, info.file_size, kind in (0, stat.S_IFREG), info)
        return
    for entry in archive:
        if not entry.isdir():
            yield Member(entry.name.removeprefix("./"), entry.size, entry.isreg(), entry)


def read_member(archive: zipfile.ZipFile | tarfile.TarFile, member: Member) -> IO[bytes]:
    if isinstance(archive, zipfile.ZipFile) and isinstance(member.entry, zipfile.ZipInfo):
        return archive.open(member.entry)
    source = archive.extractfile(member.entry)  # type: ignore[union-attr, arg-type]
    assert source is not None, "only plain files are read"
    return source


def refuse_unsafe(path: Path, chosen: list[Member], limit: int) -> None:
    if len(chosen) > MOST_MEMBERS:
        raise SourceError(f"{path.name}: {len(chosen):,} members, over the limit of {MOST_MEMBERS:,}")
    for member in chosen:
        if escapes(member.name):
            raise SourceError(f"{path.name}: member {member.name!r} leads out of the folder; nothing was taken")
        if not member.plain:
            raise SourceError(f"{path.name}: member {member.name!r} is a link or device; nothing was taken")
    total = sum(member.size for member in chosen)
    if total > limit:
        raise SourceError(too_large(f"{path.name} unpacked", total, limit))


def escapes(name: str) -> bool:
    """True for names that are absolute, climb upwards, or mean something to another system."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name


def copy(source: IO[bytes], sink: IO[bytes], limit: int, what: str) -> int:
    """Copy and count bytes. Raises SourceError past the limit, whatever size was promised."""
    written = 0
    while chunk := source.read(CHUNK):
        written += len(chunk)
        if written > limit:
            raise SourceError(too_large(what, written, limit))
        sink.write(chunk)
    return written


def too_large(what: str, size: int, limit: int) -> str:
    return f"{what}: {size:,} bytes or more, over the limit of {limit:,}. Raise `max_gigabytes` if it is meant"
