"""Is this machine ready? One finding per line, each with what to do about it.

versions, disk, memory, device, sources, secrets, Dagster's instance -> findings
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
import yaml
from pydantic import ValidationError

from pipeline import study as studies
from pipeline.data.sources import COMMIT, SourceSettings, cache, scheme
from pipeline.llm.load import LanguageModel
from pipeline.redact import redact
from pipeline.stage import hash_file
from pipeline.study import Study
from resources.project import Project

GIB = 2**30
DISK_NEEDED = 5 * GIB
MEMORY_NEEDED = 3 * GIB
SECRET = re.compile(r"\b([A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD))\b")


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, and how to mend it where it is not well."""

    what: str
    state: Literal["good", "note", "bad"]
    found: str
    mend: str = ""


class Place(NamedTuple):
    """Where a stage of a study takes its bytes from: locations that are tried in order, and their hash."""

    stage: str
    key: str
    locations: tuple[str, ...]
    sha256: str | None


def examine(project: Project) -> Iterator[Finding]:
    """Everything that a run needs, light things first."""
    yield python()
    yield from packages(project.root / "constraints.txt")
    yield disk(project.store_root)
    yield memory()
    yield writable("store", project.store_root)
    yield writable("Dagster state", project.state)
    yield from study_files(project)
    yield from sources(project)
    yield from secrets(project)
    yield instance_file(project)
    yield device()


def python() -> Finding:
    found = platform.python_version()
    good = sys.version_info >= (3, 11)
    return Finding("python", "good" if good else "bad", found, "" if good else "install Python 3.11 or newer")


def packages(constraints: Path) -> Iterator[Finding]:
    """Versions of what is installed against the constraints, one line for all that agree."""
    if not constraints.exists():
        yield Finding("packages", "note", f"no {constraints.name} to compare with")
        return
    pinned = dict(line.split("==") for line in lines(constraints) if "==" in line)
    here = {name: have for name in pinned if (have := installed(name)) is not None}
    wrong = [name for name, have in here.items() if not same(pinned[name], have)]
    for name in wrong:
        yield Finding(
            name, "note", f"{here[name]}, tested with {pinned[name]}", f"pip install {name}=={pinned[name]}"
        )
    yield Finding("packages", "good", f"{len(here) - len(wrong)} of {len(here)} as in {constraints.name}")


def lines(file: Path) -> list[str]:
    return [line.split("#")[0].strip() for line in file.read_text().splitlines() if line.strip()]


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def same(want: str, have: str) -> bool:
    """Equal up to a local part: `2.13.0` and `2.13.0+cpu` are one version."""
    return have.split("+")[0] == want.split("+")[0]


def disk(folder: Path) -> Finding:
    free = shutil.disk_usage(existing(folder)).free
    good = free >= DISK_NEEDED
    mend = (
        ""
        if good
        else "`interlingua gc` removes superseded artefacts; or set INTERLINGUA_STORE to a larger disk"
    )
    return Finding("disk", "good" if good else "bad", f"{free / GIB:.1f} GiB free for the store", mend)


def memory() -> Finding:
    free = psutil.virtual_memory().available
    good = free >= MEMORY_NEEDED
    mend = "" if good else "close other programs, or choose a smaller language model in the study"
    return Finding("memory", "good" if good else "bad", f"{free / GIB:.1f} GiB available", mend)


def existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def writable(what: str, folder: Path) -> Finding:
    good = os.access(existing(folder), os.W_OK)
    return Finding(
        what, "good" if good else "bad", str(folder), "" if good else f"chmod u+w {existing(folder)}"
    )


def study_files(project: Project) -> Iterator[Finding]:
    for name in studies.names(project.root):
        try:
            studies.load(studies.find(project.root, name))
            yield Finding(f"study {name}", "good", "reads well")
        except studies.StudyError as error:
            yield Finding(f"study {name}", "bad", str(error), f"edit studies/{name}.yaml")


def sources(project: Project) -> Iterator[Finding]:
    """Whether the data and the language model of each study are here, or can be had, and what pins them."""
    for name in studies.names(project.root):
        try:
            study = studies.load(studies.find(project.root, name))
            found = list(places(study))
        except (studies.StudyError, ValidationError):  # `study_files` tells of the one, a run of the other
            continue
        yield from (source(f"{place.stage} of {name}", place, study, project) for place in found)


def places(study: Study) -> Iterator[Place]:
    """Of a study's data, where it names a source, and of its language model, where a method asks one."""
    if study.data.get("source"):
        data = SourceSettings.model_validate(study.data["source"])
        yield Place("source", "data.source", data.locations, data.sha256)
    if study.methods or study.models.get("language_model"):
        model = LanguageModel.model_validate(study.models.get("language_model") or {})
        yield Place("language_model", "models.language_model", (model.location,), model.sha256)


def source(what: str, place: Place, study: Study, project: Project) -> Finding:
    """The first location that is here or answers, and whether a hash pins every one."""
    stored = taken(place, study, project)
    here = stored or next((one for one in place.locations if there(one, project.root)), None)
    if here is None:
        mend = "check the path, the network, or pip's settings; or name another location in the study"
        return Finding(what, "note", redact(f"not to be had: {', '.join(place.locations)}"), mend)
    loose = [one for one in place.locations if pin(one, place.sha256) is None]
    if loose:
        mend = how_to_pin(loose[0], place, project)
        return Finding(what, "note", redact(f"{', '.join(loose)}: no hash pins it"), mend)
    kept = "; in the store" if stored else ""
    return Finding(what, "good", redact(f"{here}: {pin(here, place.sha256)}{kept}"))


def taken(place: Place, study: Study, project: Project) -> str | None:
    """The location that the study's artefact was made from; None where it has none."""
    for cell in project.store.head(study.name, place.stage) or []:
        artefact = project.store.find(place.stage, cell["fingerprint"])
        if artefact is not None:
            return artefact.metrics.get("location", place.locations[0])
    return None


def pin(location: str, sha256: str | None) -> str | None:
    """What makes sure that a location gives the same bytes again; None where nothing does."""
    if not scheme(location)[0]:
        return "on this machine, its hash is taken by every run"
    if sha256:
        return "pinned by sha256"
    return "pinned by commit" if COMMIT.search(location) else None


def how_to_pin(location: str, place: Place, project: Project) -> str:
    """What to write, with the hash itself where a wheel has been fetched already."""
    kind, rest = scheme(location)
    wheels = sorted((cache(project.root) / "pypi" / rest).glob("*.whl")) if kind == "pypi" else []
    if wheels:
        return f"add under {place.key}: sha256: {hash_file(wheels[0])}"
    return f"add a sha256 under {place.key}; where it is not the right one, the run says which is"


def there(place: str, root: Path) -> bool:
    kind, rest = scheme(place)
    if kind == "pypi":
        name = rest.split("==")[0]
        asked = [sys.executable, "-m", "pip", "index", "versions", "--quiet", name]
        return subprocess.run(asked, capture_output=True, timeout=60).returncode == 0
    if kind == "https":
        return answers(place)
    return kind == "hf" or (root / Path(place).expanduser()).exists()  # the hub is asked by the run itself


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def secrets(project: Project) -> Iterator[Finding]:
    """Environment variables that a study names: present or not, never their value."""
    for name in studies.names(project.root):
        written = yaml.safe_load(studies.find(project.root, name).read_text())
        for variable in sorted({*SECRET.findall(yaml.dump(written)), *chat_key(written)}):
            there = bool(os.environ.get(variable))
            mend = "" if there else f"export {variable}=..."
            found = "set" if there else f"not set, study {name} names it"
            yield Finding(f"secret {variable}", "good" if there else "bad", found, mend)


def chat_key(written: Any) -> list[str]:
    """The variable that a study names for its chat model's key, whatever it is called."""
    try:
        return [str(written["models"]["chat"]["key"])]
    except (KeyError, TypeError):
        return []


def instance_file(project: Project) -> Finding:
    file = project.home / "dagster.yaml"
    mend = "" if file.exists() else "set DAGSTER_HOME to a folder with dagster.yaml, or leave it unset"
    return Finding("dagster instance", "good" if file.exists() else "bad", str(file), mend)


def device() -> Finding:
    """What heavy stages will compute on; imports torch."""
    import torch

    if torch.cuda.is_available():
        return Finding(
            "device", "good", f"{torch.cuda.get_device_name()}, bf16 {torch.cuda.is_bf16_supported()}"
        )
    native = bf16_in(cpu_flags())
    found = f"CPU, {os.cpu_count()} cores, bf16 {'native' if native else 'emulated'}"
    return Finding(
        "device", "good" if native else "note", found, "" if native else "expect slow language models"
    )


def cpu_flags() -> set[str]:
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else ""
    return set(" ".join(line.split(":")[1] for line in text.splitlines() if line.startswith("flags")).split())


def bf16_in(flags: Sequence[str] | set[str]) -> bool:
    return bool({"avx512_bf16", "amx_bf16", "avx_ne_convert"} & set(flags))
