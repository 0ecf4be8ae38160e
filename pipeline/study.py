"""A study: one YAML file that says which data, models, methods, seeds and budget.

    studies/quickstart.yaml -> Study -> (with the graph) every stage's settings

The file is strict: an unknown key is an error that names the nearest known key, and so is a key written twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.redact import redact

Track = Literal["ctr", "next_item", "rerank", "cold_item"]


class StudyError(ValueError):
    """A study that cannot be run as written; the message says where and what to write instead.

    Addresses in it are shown without their secrets, wherever the message goes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class Words(BaseModel):
    """The words of the domain that prompts are made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: str = Field(default="item", description="one item: movie, book, product")
    items: str = Field(default="items", description="several: movies, books, products")
    used: str = Field(default="used", description="what a user did with an item: watched, read, bought")
    enjoy: str = Field(default="like", description="what a user may do with a good item: enjoy, like")


class Budget(BaseModel):
    """Where heavy stages run and how much of the machine they may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Literal["here", "process"] = Field(
        default="here",
        description="here: in the run's own process; process: each heavy stage in a child process",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="torch threads of a heavy stage; all cores where absent. Part of its identity: the last "
        "bits depend on it",
    )
    fit: Literal["refuse", "try"] = Field(
        default="refuse",
        description="a stage whose estimate exceeds the free memory is refused before it loads anything; try: "
        "it starts all the same",
    )


class Study(BaseModel):
    """The file as written. The sections of settings are checked by `pipeline.graph`, which knows the stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="the file's name without its ending")
    title: str = Field(description="one line for reports")
    words: Words = Words()
    tracks: tuple[Track, ...] = Field(
        default=("ctr",), min_length=1, description="evaluation tasks to run: ctr, next_item, rerank, cold_item"
    )
    leave_out: tuple[str, ...] = Field(
        default=(), description="stages of collaborative models not to run, such as next_item/lightgcn"
    )
    also: tuple[str, ...] = Field(
        default=(),
        description="stages of models to run though no method reads them, such as semantic_ids/rqvae",
    )
    data: dict[str, Any] = Field(default_factory=dict, description="source, dataset and splits")
    models: dict[str, Any] = Field(default_factory=dict, description="language model and collaborative models")
    methods: dict[str, Any] = Field(
        default_factory=dict, description="methods to run; an absent method is not run"
    )
    evaluate: dict[str, Any] = Field(default_factory=dict, description="metrics, intervals, report")
    seeds: tuple[int, ...] = Field(
        default=(1,), min_length=1, description="every seeded stage runs once per seed"
    )
    budget: Budget = Budget()

    @field_validator("tracks")
    @classmethod
    def lists_need_models(cls, tracks: tuple[Track, ...]) -> tuple[Track, ...]:
        if "rerank" in tracks and "next_item" not in tracks:
            raise ValueError("rerank orders its lists by the models of next_item: name that track too")
        return tracks

    @field_validator("tracks", "leave_out", "also")
    @classmethod
    def names_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if again := repeated(names):
            raise ValueError(f"{again[0]!r} is there twice")
        return names

    @field_validator("seeds")
    @classmethod
    def seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if again := repeated(seeds):
            raise ValueError(f"{again[0]} is there twice; a run repeated with one seed says nothing new")
        return seeds

    @property
    def file(self) -> str:
        """The file that a person edits, from the project's root."""
        return written_in(self.name)


def load(file: Path) -> Study:
    """Read a study file. Raises StudyError with the file and the key at fault."""
    text = file.read_text()
    try:
        twice = list(written_twice(yaml.compose(text, Loader=yaml.SafeLoader), set()))
        written = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise StudyError(f"{file}: not valid YAML: {error}") from error
    if twice:
        raise StudyError("\n".join(f"{file}, {one}" for one in twice))
    if not isinstance(written, dict):
        raise StudyError(f"{file}: a study is a mapping of keys, this is a {type(written).__name__}")
    try:
        return Study(name=file.stem, **without_empty(written))
    except ValidationError as error:
        raise StudyError(explain(error, str(file), Study)) from error


def written_twice(node: yaml.Node | None, seen: set[int]) -> Iterator[str]:
    """Keys that stand twice in one mapping, of which a parser would silently keep the last.

    A key that `<<` brings from elsewhere may be written again: that is what a merge is for. seen: nodes
    looked at before, as an alias is the node that it stands for.
    """
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    first: dict[tuple[str, str], yaml.Node] = {}
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, part) for part in node.value]
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode):
            before = first.setdefault((key.tag, key.value), key)
            if before is not key:
                yield f"line {line(key)}: the key {key.value!r} stands twice, first in line {line(before)}"
        yield from written_twice(value, seen)


def line(node: yaml.Node) -> int:
    """Where it stands in its file, from 1."""
    return node.start_mark.line + 1


def without_empty(written: dict[str, Any]) -> dict[str, Any]:
    """Drop keys with nothing under them: `methods:` alone means the default."""
    return {key: value for key, value in written.items() if value is not None}


def written_in(name: str) -> str:
    """The file of a study, from the project's root."""
    return f"studies/{name}.yaml"


def repeated(values: Sequence[Any]) -> list[Any]:
    """Values that stand further on in the list than for the first time."""
    return [value for place, value in enumerate(values) if value in values[:place]]


def find(root: Path, name: str) -> Path:
    """The file of a study by name. Raises StudyError that names the nearest one there is."""
    file = root / written_in(name)
    if not file.exists():
        raise StudyError(f"no study {name!r} in {file.parent}{nearest(name, names(root))}")
    return file


def names(root: Path) -> list[str]:
    """Names of the studies in a project, `.example` files left out."""
    files = sorted((root / "studies").glob("*.yaml"))
    return [f.stem for f in files if not f.stem.endswith(".example")]


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or the list of what is known."""
    known = sorted(known)
    close = get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"


def explain(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Pydantic's findings as lines a person can act on."""
    lines = []
    for found in error.errors():
        path = ".".join(str(part) for part in found["loc"])
        if found["type"] == "extra_forbidden":
            lines.append(
                f"{where}: unknown key {path!r}{nearest(str(found['loc'][-1]), fields(model, found['loc']))}"
            )
        else:
            lines.append(f"{where}: {path}: {found['msg']} (given: {found['input']!r})")
    return "\n".join(lines)


def fields(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Known keys beside the one at the end of `path`."""
    for part in path[:-1]:
        known = model.model_fields.get(str(part))
        if known is None or not (
            isinstance(known.annotation, type) and issubclass(known.annotation, BaseModel)
        ):
            return []
        model = known.annotation
    return [name for name in model.model_fields if name != "name"]
