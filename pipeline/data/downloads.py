"""Files over https: resumed where they broke off, bounded, kept in a cache."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.data.archives import LIMIT, SourceError, copy, too_large

ATTEMPTS = 4  # of one download; each goes on where the last one broke off
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Answer:
    """What a server says about the bytes that it is going to send."""

    resumed: bool
    total: int | None
    tag: str


def fetch_url(url: str, cache: Path, limit: int = LIMIT) -> Path:
    """Download into the cache, going on where an earlier attempt broke off. Kept until it is deleted."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name or "download"
    folder = cache / "https" / hashlib.sha256(url.encode()).hexdigest()[:16]
    with locked(folder):
        file = folder / name
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            download(url, file, limit)
        return file


def download(url: str, file: Path, limit: int) -> None:
    part = file.with_name(file.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            receive(url, part, limit)
            part.replace(file)
            tag_file(part).unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is not a beginning of what is there now
                part.unlink(missing_ok=True)
            elif error.code < 500 or attempt == ATTEMPTS:
                raise SourceError(f"{url}: the server answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                have = part.stat().st_size if part.exists() else 0
                raise SourceError(
                    f"{url}: {error or type(error).__name__}. {have:,} bytes are kept; run again to go on, "
                    "or add a local path to `locations`"
                ) from error
    raise SourceError(f"{url}: the server refuses every range of the file")


def receive(url: str, part: Path, limit: int) -> None:
    """Append what is missing to `part`, or start it again where the server's file is another one."""
    have = part.stat().st_size if part.exists() else 0
    tag = tag_file(part).read_text() if have and tag_file(part).exists() else ""
    headers = {"Range": f"bytes={have}-", "If-Range": tag} if tag else {}
    request = urllib.request.Request(url, headers={"User-Agent": "interlingua", **headers})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
            raise SourceError(f"{url}: it redirects to {response.url}, which is not https")
        answer = understand(response)
        if answer.total is not None and answer.total > limit:
            raise SourceError(too_large(url, answer.total, limit))
        tag_file(part).write_text(answer.tag)
        with part.open("ab" if answer.resumed else "wb") as sink:
            written = copy(response, sink, limit - (have if answer.resumed else 0), url)
    size = written + (have if answer.resumed else 0)
    if answer.total is not None and size != answer.total:
        raise ConnectionError(f"the connection broke off after {size:,} of {answer.total:,} bytes")


def understand(response: Any) -> Answer:
    etag = response.headers.get("ETag", "")
    tag = response.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
    resumed = response.status == 206
    length = response.headers.get("Content-Range", "").rpartition("/")[2] if resumed else None
    length = length or response.headers.get("Content-Length", "")
    return Answer(resumed, int(length) if length.isdigit() else None, tag)


def tag_file(part: Path) -> Path:
    """Beside a partial file: the server's name for the version it is a part of."""
    return part.with_name(part.name + ".tag")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time fetches a thing; the others wait and find it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        yield
