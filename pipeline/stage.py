"""What a stage is, its identity, and how one runs: the same here, in a child process or on a cluster.

    Stage + settings + input fingerprints -> Spec (plain JSON) -> run(spec) -> Artefact

A stage is a function `(inputs..., settings, out) -> None` that writes to its draft `out`. Everything around
it (identity, cache, place, checks, manifest, atomic commit) is here, once.
"""

import hashlib
import importlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import dataframely as dy
import polars as pl
from pydantic import BaseModel, ConfigDict

from pipeline import pieces
from pipeline.machine import Forecast, Machine, this_machine
from pipeline.schema import Table
from pipeline.store import Artefact, Store
from pipeline.study import StudyError, written_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

FORMAT = 2  # of artefacts; raising it makes every artefact of the past a miss
LIBRARIES = ("polars", "numpy", "torch", "transformers", "peft", "dataframely", "duckdb")
Input = Artefact | list[Artefact]
Connect = Callable[[Any], AbstractContextManager[Any]]  # settings of a chat model -> it, ready in the body
TRACKS = {  # what is predicted -> its task
    "pairs": "ctr",
    "rankings": "next_item",
    "orders": "rerank",
    "cold_rankings": "cold_item",
}


class Settings(BaseModel):
    """Base of every stage's settings: frozen, and an unknown key is an error.

    foretells: what a stage with such settings takes of the machine is told, and judged, before it runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    foretells: ClassVar[bool] = False

    def unfit(self, machine: Machine) -> str:
        """Why no stage with these settings can run on the machine; empty where one can."""
        return ""

    def forecast(self, inputs: Mapping[str, Input], machine: Machine, store: Path | str) -> Forecast | None:
        """What a stage with these settings will take, by its inputs as far as they are there; None unknown."""
        return None

    def decided(self) -> dict[str, Any]:
        """As plain JSON, what decides a result: all of it, but for what a class of settings sets aside."""
        nested = {name: value.decided() for name, value in self if isinstance(value, Settings)}
        return {**self.model_dump(mode="json"), **nested}


@dataclass(frozen=True)
class Pinned:
    """An input taken from one variant of another method's stage."""

    stage: str
    variant: str


@dataclass(frozen=True)
class PerVariant:
    """An input that another stage makes for each variant: variant -> stage. Only those that the study asks for
    run."""

    stages: Mapping[str, str]


@dataclass(frozen=True)
class Every:
    """All artefacts of the stages that end in predictions of this kind; of every stage for `None`.

    section: only of stages of this section, such as models that can be asked again.
    """

    predicts: str | None = None
    section: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a check found. `facts` are numbers and short texts for the UI."""

    passed: bool
    description: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A fact that must hold of a finished draft: `run(draft, inputs, settings) -> Verdict`.

    A blocking check that fails stops everything downstream.
    """

    run: Callable[["Draft", Mapping[str, Input], Any], Verdict]
    blocking: bool = True

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def description(self) -> str:
        return (self.run.__doc__ or "").strip()


@dataclass(frozen=True)
class Stage:
    """One pure function from artefacts to one artefact, with everything known of it before it runs."""

    name: str
    function: Callable[..., None]
    settings: type[Settings]
    section: Literal["data", "models", "methods", "evaluate"]
    version: int
    inputs: Mapping[str, str | Pinned | PerVariant | Every]
    tables: Mapping[str, type[Table]]
    checks: tuple[Check, ...] = ()
    seeded: bool = False
    variants: tuple[str, ...] = ()
    default_variants: tuple[str, ...] = ()
    predicts: Literal["pairs", "rankings", "orders", "cold_rankings", "ratings", "texts"] | None = None
    serves: str | None = None
    controls: tuple[str, ...] = ()
    control_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: Literal["light", "heavy", "gpu", "chat"] = "light"
    shared: Mapping[str, str] = field(default_factory=dict)
    outside: Callable[[Any, Path], Mapping[str, Any]] | None = None
    measured: bool = False
    scorer: Callable[[Artefact, Artefact, Any], Any] | None = None

    @property
    def method(self) -> str | None:
        """The method this stage belongs to, None for stages that all share."""
        return self.name.split("/")[0] if self.section == "methods" else None

    @property
    def key(self) -> str:
        """Where a study sets it: `methods.binllm.adapter`."""
        return f"{self.section}.{self.name.replace('/', '.')}"

    @property
    def heavy(self) -> bool:
        """Whether it computes long enough for a process, a pool and a number of threads of its own."""
        return self.needs in ("heavy", "gpu")

    @property
    def track(self) -> str | None:
        """The evaluation task it is for, by its name or by what it predicts; None where several share it."""
        if self.serves:
            return self.serves
        first, slash, _ = self.name.partition("/")
        if slash and not self.method and self.section != "models":
            return first
        return TRACKS.get(self.predicts or "")

    @property
    def reference(self) -> str:
        """Where a child process finds this stage: `module:attribute`."""
        return f"{self.function.__module__}:{self.function.__name__}"

    @property
    def doc(self) -> str:
        return (self.function.__doc__ or "").strip()

    def __call__(self, **arguments: Any) -> None:
        return self.function(**arguments)


def stage(name: str, **facts: Any) -> Callable[[Callable[..., None]], Stage]:
    """Declare the function below as a stage.

    name: the asset's key, `method/part` for methods.
    settings: its `Settings` class; section: where a study sets them: `section.name.part`.
    version: raise it when the same inputs would give another result.
    inputs: parameter -> stage name, `Pinned`, `PerVariant` or `Every`; tables: name -> schema.
    seeded: one artefact per seed of the study; variants: one per variant that the study asks for.
    predicts: the kind of predictions it ends in; serves: the track of a stage on the way there, for a method
    that has stages for several tracks; controls: those of its variants that only test a claim.
    control_of: control -> the variants that it is a control of, for those that are not of every variant.
    needs: `light`; `heavy`: long on the processor, with a process and threads of its own; `gpu`: heavy, and on
    an accelerator where there is one; `chat`: an endpoint.
    shared: settings taken from elsewhere in the study unless given: field -> dotted path.
    outside: facts of the world that belong to the identity, as the hash of a local file.
    measured: holds seconds or the like, so two runs are not equal bit for bit.
    scorer: split, finished artefact, settings -> `Scores`: how the artefact answers queries that it never met
    (`pipeline.collab.fitted`).
    """

    def declare(function: Callable[..., None]) -> Stage:
        return Stage(name=name, function=function, **{"inputs": {}, "tables": {}, **facts})

    return declare


@dataclass(frozen=True)
class Source:
    """One artefact that a spec reads."""

    stage: str
    fingerprint: str


@dataclass(frozen=True)
class Spec:
    """All that is needed to make one artefact, anywhere: plain data, no objects."""

    reference: str
    stage: str
    study: str
    cell: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Source | tuple[Source, ...]]
    fingerprint: str
    store: str
    root: str
    threads: int | None = None
    outside: Mapping[str, Any] = field(default_factory=dict)
    fit: str = "refuse"

    def to_json(self) -> str:
        return json.dumps(self, default=lambda part: part.__dict__)

    @staticmethod
    def from_json(text: str) -> "Spec":
        facts = json.loads(text)
        read = {
            name: Source(**one) if isinstance(one, dict) else tuple(Source(**each) for each in one)
            for name, one in facts.pop("inputs").items()
        }
        return Spec(**facts, inputs=read)


def fingerprint(
    stage: Stage,
    settings: Mapping[str, Any],
    cell: Mapping[str, Any],
    inputs: Mapping[str, Source | tuple[Source, ...]],
    outside: Mapping[str, Any],
    threads: int | None = None,
) -> str:
    """Identity of an artefact: 32 hex digits over all that a study decides of what is in it.

    threads: those that the study asks for, of a heavy stage. What a machine decides (its device, the precision
    that `auto` comes to, its cores where no number is asked for) is measured and shown, and no part of it: an
    artefact carried to another machine is the one that was made.
    """
    sources = {
        name: one.fingerprint if isinstance(one, Source) else [each.fingerprint for each in one]
        for name, one in inputs.items()
    }
    facts = {
        "format": FORMAT,
        "stage": stage.name,
        "version": stage.version,
        "settings": settings,
        "cell": cell,
        "inputs": sources,
        "outside": outside,
        **({} if threads is None else {"threads": threads}),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def decided(stage: Stage, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a stage's settings that are part of its artefact's identity."""
    return stage.settings.model_validate(dict(settings)).decided()


class Draft:
    """The artefact being written, and what its stage may know of the run."""

    def __init__(
        self, path: Path, stage: Stage, spec: Spec, checkpoints: Path, connect: Connect | None = None
    ) -> None:
        self.path, self.stage, self.root = path, stage, Path(spec.root)
        self.study, self.cell = spec.study, spec.cell
        self.checkpoints = checkpoints  # survives a kill; gone once the artefact is there
        self.connect = connect  # how a stage that asks a chat model reaches it
        self.answers = Store(spec.store).answers
        self.metrics: dict[str, Any] = {}
        self.measured: dict[str, Any] = {}
        self.shapes: dict[str, Any] = {}

    @property
    def seed(self) -> int:
        return self.cell.get("seed", 0)

    @property
    def variant(self) -> str:
        return self.cell.get("variant", "default")

    def file(self, name: str) -> Path:
        """Where to write a file of any kind; folders on the way are made."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, name: str, frame: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]) -> None:
        """Write a declared table: a frame, or a query or frames that are never whole in memory.

        Raises dataframely's ValidationError where it breaks its schema.
        """
        schema: type[dy.Schema] = self.stage.tables[name]
        file = self.file(f"{name}.parquet")
        if isinstance(frame, pl.DataFrame):
            whole = schema.validate(frame, cast=True)
            whole.write_parquet(file, compression="zstd", statistics=True)
            rows = whole.height
        else:
            rows = pieces.write(schema, frame, file)
        self.shapes[name] = {"rows": rows, "columns": schema.column_names()}

    def read(self, name: str) -> pl.DataFrame:
        """A table written before, for checks."""
        return self.scan(name).collect()

    def scan(self, name: str) -> pl.LazyFrame:
        """A table written before, of which only what is asked for is read."""
        return pl.scan_parquet(self.file(f"{name}.parquet"), glob=False)

    def tensors(self, name: str, tensors: "Mapping[str, Tensor]") -> None:
        from safetensors.torch import save_file

        held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(held, self.file(f"{name}.safetensors"))

    def json(self, name: str, value: Any) -> None:
        self.file(f"{name}.json").write_text(json.dumps(value, indent=1, sort_keys=True))

    def metric(self, **values: float | int | str | None) -> None:
        """Numbers that the same inputs always give; they become plots in the UI."""
        self.metrics.update(values)

    def measure(self, **values: float | int | str | None) -> None:
        """Numbers true of this run only: tokens a second, device."""
        self.measured.update(values)

    def picture(self, name: str, figure: "Figure") -> None:
        """Save a figure as SVG (for the report) that is equal for equal data."""
        import matplotlib

        with matplotlib.rc_context({"svg.hashsalt": self.stage.name, "svg.fonttype": "none"}):
            figure.savefig(self.file(f"pictures/{name}.svg"), metadata={"Date": None}, bbox_inches="tight")


class StageFailed(RuntimeError):
    """A stage raised; the message names the stage and its cell, or the study's file and key at fault."""


def run(spec: Spec, connect: Connect | None = None) -> tuple[Artefact, bool]:
    """Make the spec's artefact, or find it made. Returns it and whether it was a cache hit.

    connect: how to reach a chat model, for stages that ask one. Raises StageFailed where the stage's own code
    raises, FileNotFoundError where an input is not there.
    """
    store = Store(spec.store)
    found = store.find(spec.stage, spec.fingerprint)
    if found is not None:
        return found, True
    with store.writing(spec.fingerprint) as work:
        found = store.find(spec.stage, spec.fingerprint)  # another run may have just made it
        if found is not None:
            return found, True
        return make(spec, store, work, connect), False


def make(spec: Spec, store: Store, work: Path, connect: Connect | None = None) -> Artefact:
    """Run the stage's function on a fresh draft, judge it, and commit it."""
    stage = declared(spec.reference)
    inputs = {name: load(store, source) for name, source in spec.inputs.items()}
    settings = stage.settings.model_validate(dict(spec.settings))
    draft = Draft(store.draft(work), stage, spec, work / "checkpoints", connect)
    with threads(spec.threads), watch(stage) as measured:
        try:
            draft.measure(**foretold(settings, inputs, spec))
            stage.function(**inputs, settings=settings, out=draft)
            verdicts = {check.name: judge(check, draft, inputs, settings) for check in stage.checks}
        except Exception as error:
            raise StageFailed(blame(error, stage, spec)) from error
    manifest = {
        "format": FORMAT,
        "stage": stage.name,
        "reference": stage.reference,
        "section": stage.section,
        "controls": list(stage.controls),
        "control_of": {control: list(variants) for control, variants in stage.control_of.items()},
        "version": stage.version,
        "fingerprint": spec.fingerprint,
        "cell": dict(spec.cell),
        "settings": settings.decided(),
        "made_from": [source.__dict__ for source in flat(spec.inputs)],
        "outside": dict(spec.outside),
        "files": describe_files(draft.path),
        "tables": draft.shapes,
        "metrics": draft.metrics,
        "checks": verdicts,
        "environment": environment(spec.threads),
        "measured": {**measured, **draft.measured},
    }
    return store.commit(draft.path, manifest)


def foretold(settings: Settings, inputs: Mapping[str, Input], spec: Spec) -> dict[str, Any]:
    """What the stage is expected to take, for its manifest. Raises StudyError where the machine cannot run it,
    or has less memory free than it will need and the study does not say to try."""
    if not settings.foretells:
        return {}
    machine = this_machine()
    if why := settings.unfit(machine):
        raise StudyError(why)
    forecast = settings.forecast(inputs, machine, spec.store)
    if forecast is None:
        return {}
    if spec.fit == "refuse" and (why := forecast.too_much(machine)):
        raise StudyError(why)
    return forecast.measures()


def declared(reference: str) -> Stage:
    """The stage that stands at `module:attribute`."""
    module, attribute = reference.split(":")
    return getattr(importlib.import_module(module), attribute)


def blame(error: Exception, stage: Stage, spec: Spec) -> str:
    """What went wrong and where: the key of the study for a fault of its own, else the line that raised."""
    if isinstance(error, StudyError):
        return f"{written_in(spec.study)}: {stage.key}: {error}"
    cell = ", ".join(f"{name} {value}" for name, value in spec.cell.items())
    return f"{spec.stage} ({cell or 'one cell'}) of study {spec.study}: {error} ({raised(error, stage)})"


def raised(error: Exception, stage: Stage) -> str:
    """`ValueError in pipeline.llm.tune, line 12`: the innermost line that is not a library's."""
    ours = {"pipeline", stage.function.__module__.split(".")[0]}
    frames = [(frame.f_globals.get("__name__", ""), line) for frame, line in walk_tb(error.__traceback__)]
    module, line = [frame for frame in frames if frame[0].split(".")[0] in ours][-1]
    return f"{type(error).__name__} in {module}, line {line}"


def judge(check: Check, draft: Draft, inputs: Mapping[str, Input], settings: Settings) -> dict[str, Any]:
    verdict = check.run(draft, inputs, settings)
    return {
        "passed": bool(verdict.passed),
        "blocking": check.blocking,
        "description": verdict.description,
        "facts": dict(verdict.facts),
    }


def load(store: Store, source: Source | tuple[Source, ...]) -> Input:
    if isinstance(source, Source):
        return store.get(source.stage, source.fingerprint)
    return [store.get(one.stage, one.fingerprint) for one in source]


def flat(inputs: Mapping[str, Source | tuple[Source, ...]]) -> Iterator[Source]:
    for source in inputs.values():
        yield from (source,) if isinstance(source, Source) else source


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": hash_file(f)} for f in files}


def hash_file(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def environment(threads: int | None) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "libraries": {name: installed(name) for name in LIBRARIES},
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Bound torch's threads while a heavy stage runs; a light one has no number and never imports torch."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def accelerator() -> Any:
    """torch.cuda where torch is loaded and has a device, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


@contextmanager
def watch(stage: Stage) -> Iterator[dict[str, Any]]:
    """Measure wall seconds, processor seconds, peak memory (MB, sampled) and the machine's part in the body."""
    import psutil

    process, done = psutil.Process(), threading.Event()
    peak = process.memory_info().rss

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, process.memory_info().rss)

    sampler = threading.Thread(target=sample, daemon=True)
    facts: dict[str, Any] = {"started": time.time(), "memory_before_mb": round(peak / 2**20, 1)}
    if cuda := accelerator():
        cuda.reset_peak_memory_stats()  # forget what stages before this one took
    wall, cpu = time.perf_counter(), time.process_time()
    sampler.start()
    try:
        yield facts
    finally:
        done.set()
        sampler.join()
        facts["seconds"] = round(time.perf_counter() - wall, 3)
        facts["cpu_seconds"] = round(time.process_time() - cpu, 3)
        facts["peak_memory_mb"] = round(peak / 2**20, 1)
        facts.update(computed_on(stage))


def computed_on(stage: Stage) -> dict[str, Any]:
    """Where and how the stage computed. Only a `gpu` stage uses an accelerator, only heavy ones use torch.

    A stage that holds weights in another precision says so itself (`Draft.measure`).
    """
    cuda = accelerator() if stage.needs == "gpu" else None
    facts: dict[str, Any] = {"device": cuda.get_device_name() if cuda else "cpu"}
    if cuda:
        facts["peak_gpu_memory_mb"] = round(cuda.max_memory_allocated() / 2**20, 1)
    torch = sys.modules.get("torch")
    if stage.heavy and torch is not None:
        facts |= {"threads": torch.get_num_threads(), "dtype": str(torch.get_default_dtype())[6:]}
    return facts
