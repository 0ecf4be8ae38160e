"""The graph of stages, and what a study makes of it: settings, cells, fingerprints, what is stale and why.

    stages + study -> plan: one Spec per stage and cell, in order -> status against the store

A cell is one artefact of a stage: one seed, one variant, or the single one. Identities follow from settings
alone, so the whole plan is known before anything runs, and no data is read for it.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pipeline.stage import Every, PerVariant, Pinned, Source, Spec, Stage, decided, fingerprint
from pipeline.store import Artefact, Store
from pipeline.study import Study, StudyError, explain, nearest, repeated

SECTIONS = ("data", "models", "methods", "evaluate")
Cell = Mapping[str, Any]
NAMED = 3  # changed inputs that a reason names


@dataclass(frozen=True)
class Planned:
    """One artefact that a study wants."""

    stage: Stage
    spec: Spec

    @property
    def cell(self) -> Cell:
        return self.spec.cell


@dataclass(frozen=True)
class Status:
    """Where one planned artefact stands, and why."""

    planned: Planned
    state: Literal["fresh", "stale", "missing"]
    why: str


class Graph:
    """All stages by name. Raises StudyError for an input that no stage makes."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages = {stage.name: stage for stage in stages}
        sorter = TopologicalSorter({name: self.parents(stage) for name, stage in sorted(self.stages.items())})
        self.order = [self.stages[name] for name in sorter.static_order()]

    def parents(self, stage: Stage, variants: Collection[str] | None = None) -> list[str]:
        """Names of the stages that this one reads; for some of its variants only where they are given."""
        found: list[str] = []
        for source in stage.inputs.values():
            found += self.sources(stage, source, variants)
        return list(dict.fromkeys(found))

    def sources(
        self,
        stage: Stage,
        source: str | Pinned | PerVariant | Every,
        variants: Collection[str] | None = None,
    ) -> list[str]:
        if isinstance(source, PerVariant):
            named = [name for v, name in source.stages.items() if variants is None or v in variants]
            return [one for name in named for one in self.sources(stage, name)]
        if isinstance(source, Every):
            return sorted(
                name
                for name, other in self.stages.items()
                if other is not stage
                and source.section in (None, other.section)
                and (other.predicts == source.predicts if source.predicts else not reads_all(other))
            )
        name = source.stage if isinstance(source, Pinned) else source
        if name not in self.stages:
            raise StudyError(
                f"stage {stage.name} reads {name!r}, which no stage makes{nearest(name, self.stages)}"
            )
        return [name]

    def children(self, names: Iterable[str]) -> set[str]:
        """The named stages and all that depends on them."""
        found = set(names)
        for stage in self.order:
            if found & set(self.parents(stage)):
                found.add(stage.name)
        return found

    def wanted(self, study: Study) -> set[str]:
        """Stages that this study needs: those of its tracks, methods that it names, and all that these read."""
        asked = {stage.name for stage in self.order if self.asked(stage, study)}
        for stage in reversed(self.order):
            if stage.name in asked and not any(isinstance(s, Every) for s in stage.inputs.values()):
                asked |= set(self.parents(stage, self.variants(stage, study)))
        return asked

    def asked(self, stage: Stage, study: Study) -> bool:
        """Whether a study asks for the stage itself, and not only for what is made of it."""
        if stage.track is not None and stage.track not in study.tracks:
            return False
        if stage.method:
            return stage.method in study.methods
        if stage.section != "models" or stage.name in study.also:
            return True
        return bool(stage.predicts) and stage.name not in study.leave_out

    def check(self, study: Study) -> None:
        """Raise StudyError for any model, section key or setting that no stage knows."""
        self.check_named(study)
        for section in SECTIONS:
            self.check_keys(getattr(study, section), self.tree(section), f"{study.file}: {section}")
        for method in study.methods:
            self.check_variants(method, study)
        for stage in self.order:
            self.settings(stage, study)

    def check_named(self, study: Study) -> None:
        """Raise StudyError where the study leaves out, or also runs, what is no such stage."""
        models = [stage for stage in self.order if stage.section == "models"]
        scored = [stage.name for stage in models if stage.predicts]
        for key, named, known in (
            ("leave_out", study.leave_out, scored),
            ("also", study.also, [stage.name for stage in models if not stage.predicts]),
        ):
            for name in named:
                if known and name not in known:
                    raise StudyError(f"{study.file}: {key}: unknown {name!r}{nearest(name, known)}")

    def tree(self, section: str) -> dict[str, Any]:
        """The keys a section may hold: names of stages, by their parts, and settings that stages share."""
        known: dict[str, Any] = {}
        for stage in self.order:
            shared = [path.partition(".") for path in stage.shared.values()]
            known |= {key: None for head, dot, key in shared if head == section and dot}
            if stage.section != section:
                continue
            *folders, last = stage.name.split("/")
            level = known
            for folder in folders:
                level = level.setdefault(folder, {"variants": None} if section == "methods" else {})
            level[last] = None
        return known

    def check_keys(self, written: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
        for key, value in written.items():
            if key not in known:
                raise StudyError(f"{where}: unknown key {key!r}{nearest(key, known)}")
            if not isinstance(value, Mapping | None) and not (key == "variants" and isinstance(value, list)):
                raise StudyError(f"{where}.{key}: keys and values go here, not {value!r}")
            if isinstance(value, Mapping) and known[key] is not None:
                self.check_keys(value, known[key], f"{where}.{key}")

    def settings(self, stage: Stage, study: Study) -> dict[str, Any]:
        """The stage's settings in this study, defaults filled in, as plain JSON."""
        written: Any = getattr(study, stage.section)
        for part in stage.name.split("/"):
            written = (written or {}).get(part)
        shared = {field: dig(study, path) for field, path in stage.shared.items()}
        try:
            return stage.settings.model_validate({**shared, **(written or {})}).model_dump(mode="json")
        except ValidationError as error:
            raise StudyError(explain(error, f"{study.file}: {stage.key}", stage.settings)) from error

    def variants(self, stage: Stage, study: Study) -> tuple[str, ...]:
        """The variants that the study asks for, the stage's own choice where it names none."""
        written = (study.methods.get(stage.method or "") or {}).get("variants")
        if written is None:
            return tuple(stage.default_variants or stage.variants)
        return tuple(variant for pattern in written for variant in matching(pattern, stage.variants))

    def check_variants(self, method: str, study: Study) -> None:
        """Raise StudyError where a method's list of variants is empty, names one twice, or an unknown one."""
        written = (study.methods.get(method) or {}).get("variants")
        if written is None:
            return
        where = f"{study.file}: methods.{method}.variants"
        several = [set(stage.variants) for stage in self.order if stage.method == method and stage.variants]
        known = set.intersection(*several) if several else set()
        if not known:
            raise StudyError(f"{where}: {method} has no variants: leave the key out")
        if not written:
            raise StudyError(
                f"{where}: the list is empty: leave the key out for the default, or name some of "
                f"{', '.join(sorted(known))}; to switch the method off, leave out methods.{method}"
            )
        for variant in written:
            if not matching(variant, known):
                raise StudyError(f"{where}: unknown variant {variant!r}{nearest(variant, known)}")
        if again := repeated([one for variant in written for one in matching(variant, sorted(known))]):
            raise StudyError(f"{where}: {again[0]!r} is there twice")

    def cells(self, stage: Stage, study: Study) -> list[Cell]:
        """One cell per variant and seed that the stage has."""
        if stage.name not in self.wanted(study):
            return []
        variants = [{"variant": v} for v in self.variants(stage, study)] if stage.variants else [{}]
        seeds = [{"seed": s} for s in study.seeds] if stage.seeded else [{}]
        return [{**variant, **seed} for variant in variants for seed in seeds]

    def plan(self, study: Study, store: Store, root: Path) -> list[Planned]:
        """Every artefact of the study, parents before children."""
        self.check(study)
        made: dict[str, list[Planned]] = {}
        for stage in self.order:
            cells = self.cells(stage, study)
            settings = self.settings(stage, study)
            outside = self.outside(stage, study, settings, root) if cells else {}
            made[stage.name] = [self.cell(stage, study, c, settings, outside, made, store, root) for c in cells]
        return [planned for stage in self.order for planned in made[stage.name]]

    def outside(self, stage: Stage, study: Study, settings: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
        """Facts of the world that decide the stage's result. Raises StudyError where they cannot be had."""
        if stage.outside is None:
            return {}
        try:
            return stage.outside(stage.settings.model_validate(settings), root)
        except StudyError as error:
            raise StudyError(f"{study.file}: {stage.key}: {error}") from error

    def threads(self, stage: Stage, study: Study) -> int | None:
        """The threads that the study asks for, of a heavy stage; None for all cores and for light stages."""
        return study.budget.threads if stage.heavy else None

    def cell(
        self,
        stage: Stage,
        study: Study,
        cell: Cell,
        settings: Mapping[str, Any],
        outside: Mapping[str, Any],
        made: Mapping[str, list[Planned]],
        store: Store,
        root: Path,
    ) -> Planned:
        inputs = {name: self.resolve(stage, source, cell, study, made) for name, source in stage.inputs.items()}
        threads = self.threads(stage, study)
        spec = Spec(
            reference=stage.reference,
            stage=stage.name,
            study=study.name,
            cell=cell,
            settings=settings,
            inputs=inputs,
            fingerprint=fingerprint(stage, decided(stage, settings), cell, inputs, outside, threads),
            store=str(store.root),
            root=str(root),
            threads=threads,
            outside=outside,
            fit=study.budget.fit,
        )
        return Planned(stage, spec)

    def resolve(
        self,
        stage: Stage,
        source: str | Pinned | PerVariant | Every,
        cell: Cell,
        study: Study,
        made: Mapping[str, list[Planned]],
    ) -> Source | tuple[Source, ...]:
        """The artefacts behind one input of a cell: same seed, and same variant inside one method."""
        if isinstance(source, PerVariant):
            source = source.stages[cell["variant"]]
        found = [planned for name in self.sources(stage, source) for planned in made[name]]
        if isinstance(source, Every):
            return tuple(Source(p.stage.name, p.spec.fingerprint) for p in found)
        parent = self.stages[self.sources(stage, source)[0]]
        fixed = {"seed": cell["seed"]} if parent.seeded and "seed" in cell else {}
        if isinstance(source, Pinned):
            fixed["variant"] = source.variant
        elif parent.variants and "variant" in cell and parent.method == stage.method:
            fixed["variant"] = cell["variant"]
        found = [p for p in found if all(p.cell.get(axis) == value for axis, value in fixed.items())]
        if not found:
            raise StudyError(
                f"{study.file}: {stage.name} starts from {parent.name}"
                + (f", variant {fixed['variant']!r}" if "variant" in fixed else "")
                + f": add it under methods.{parent.method}"
            )
        sources = tuple(Source(p.stage.name, p.spec.fingerprint) for p in found)
        single = (not parent.seeded or "seed" in fixed) and (not parent.variants or "variant" in fixed)
        return sources[0] if single else sources

    def status(self, study: Study, store: Store, root: Path) -> list[Status]:
        """Fresh, stale or missing, for every planned artefact, with the reason."""
        return [judge(planned, store) for planned in self.plan(study, store, root)]


def matching(written: Any, known: Iterable[str]) -> list[str]:
    """The variants that an entry of a study's list names: one, or with `*` all of that form, in their order."""
    return [variant for variant in known if fnmatchcase(variant, str(written))]


def reads_all(stage: Stage) -> bool:
    return any(isinstance(source, Every) and source.predicts is None for source in stage.inputs.values())


def dig(study: Study, path: str) -> Any:
    value: Any = study.model_dump(mode="json")
    for part in path.split("."):
        value = (value or {}).get(part)
    return value


def judge(planned: Planned, store: Store) -> Status:
    spec = planned.spec
    head = store.head(spec.study, spec.stage)
    recorded = [one["fingerprint"] for one in head or [] if one["cell"] == dict(spec.cell)]
    if spec.fingerprint in recorded and store.find(spec.stage, spec.fingerprint):
        return Status(planned, "fresh", "")
    if not recorded:
        return Status(planned, "missing", "never made for this study")
    if recorded[0] == spec.fingerprint:
        return Status(planned, "missing", "its files are gone")
    old = store.find(spec.stage, recorded[0])
    return Status(planned, "stale", difference(planned, old) if old else "the old artefact is gone")


def difference(planned: Planned, old: Artefact) -> str:
    """In words, what changed since the old artefact."""
    was, now = old.manifest, planned.spec
    reasons = []
    if was["version"] != planned.stage.version:
        reasons.append(f"version {was['version']} -> {planned.stage.version}")
    settings = decided(planned.stage, now.settings)
    for key in sorted({*was["settings"], *settings}):
        before, after = was["settings"].get(key), settings.get(key)
        if before != after:
            reasons.append(f"{key} {json.dumps(before)} -> {json.dumps(after)}")
    if was["environment"]["threads"] != now.threads and planned.stage.heavy:
        reasons.append(f"threads {was['environment']['threads']} -> {now.threads}")
    before, after = was.get("outside", {}), now.outside
    reasons += [f"{key} changed" for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    known = {source["fingerprint"] for source in was["made_from"]}
    changed = {
        source.stage
        for sources in now.inputs.values()
        for source in ((sources,) if isinstance(sources, Source) else sources)
        if source.fingerprint not in known
    }
    reasons += several_changed(sorted(changed))
    return "; ".join(reasons) or "made under other rules of identity"


def several_changed(names: Sequence[str]) -> list[str]:
    """Up to NAMED inputs by name, and how many more."""
    more = len(names) - NAMED
    rest = [f"{more} more inputs changed"] if more > 0 else []
    return [f"{name} changed" for name in names[:NAMED]] + rest


def identity(planned: Iterable[Planned]) -> str:
    """Data version of an asset: the fingerprint of its only cell, or a hash over its cells."""
    prints = [p.spec.fingerprint for p in planned]
    return prints[0] if len(prints) == 1 else hashlib.sha256(json.dumps(prints).encode()).hexdigest()[:32]
