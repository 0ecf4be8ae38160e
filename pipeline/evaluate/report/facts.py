"""What the report says, gathered from a study's artefacts as plain rows; nothing here knows of HTML.

    artefacts of every stage -> Facts

Artefacts are found by their stage's name and their tables, so a study without a language model, without
codes or with one seed gives shorter facts, never an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.evaluate.report.coded import NOTHING, Coded
from pipeline.evaluate.report.coded import gather as semantic_ids
from pipeline.evaluate.results import Contender, Name, Track, contenders
from pipeline.evaluate.tracks import TRACKS, of
from pipeline.schema import PARTS, Comparisons, Curve, Items, Leaderboard, Quarantine, Table, empty
from pipeline.stage import Artefact

SECTIONS = ("data", "models", "methods", "evaluate")
HOW = ("device", "dtype", "attention", "threads")  # of what is measured: what decides the last bits
BINS = 60  # bars of the timeline
FIRST_DATE = 100_000_000  # unix seconds (1973); what is below is an order, not a time
PARAMETERS = ("trainable_parameters", "parameters")  # of a stage that learns a part of its model, or all of it


class Cost(NamedTuple):
    """What a method and variant took, its own stages only and mean over seeds, unless said otherwise.

    parameters: those that were learnt, where a stage counts them.
    """

    seconds: float
    seconds_with_inputs: float
    peak_memory_mb: float
    parameters: int | None
    tokens: int | None
    device: str
    dtype: str = ""
    threads: str = ""


class Unlike(NamedTuple):
    """Something of the machine in which artefacts behind compared figures differ.

    stages: the last part of their name, as `adapter`; nothing where it is over all heavy stages.
    values: what it was -> methods whose figures rest on it.
    """

    fact: str
    stages: str
    values: Mapping[str, Sequence[Name]]


class Health(NamedTuple):
    """How well the binary codes of users or items with training rows use their room, for one seed.

    cold: codes of those without, which all have one; rows: share of training rows whose code others have too,
    None where the stage does not say.
    """

    stage: str
    seed: int
    entity: str
    codes: int
    cold: int
    rows: float | None
    bits: int
    distinct: int
    colliding: float
    largest: int
    ones: Sequence[float]

    @property
    def dead(self) -> int:
        """Bits that never change."""
        return sum(share in (0, 1) for share in self.ones)


class Checked(NamedTuple):
    """One check of a stage, over all of the stage's artefacts."""

    stage: str
    name: str
    blocking: bool
    passed: int
    artefacts: int
    found: str

    @property
    def failed(self) -> bool:
        return self.passed < self.artefacts


class Example(NamedTuple):
    """One prompt, what was scored, and what was true."""

    method: str
    variant: str
    row: int
    prompt: str
    tokens: int
    title: str | None
    label: int
    probability: float | None
    score: float | None


class Setting(NamedTuple):
    """One stage of the study as it ran: its settings and the identities of its artefacts."""

    stage: str
    section: str
    version: int
    settings: Mapping[str, Any]
    cells: Sequence[tuple[str, str]]
    seconds: float


@dataclass(frozen=True)
class Board:
    """What was found on one track: figures, paired tests, and what each of its methods is and took."""

    track: Track
    leaderboard: pl.DataFrame
    comparisons: pl.DataFrame
    kinds: Mapping[Name, str]
    costs: Mapping[Name, Cost]
    unlike: Sequence[Unlike] = ()

    @property
    def compete(self) -> bool:
        """Whether models are compared among themselves, and not only methods with them."""
        return "baseline" in self.track.asked

    @property
    def of_lists(self) -> bool:
        """Whether stored lists are ordered, by models that another track has judged already."""
        return self.track.name not in TRACKS


@dataclass(frozen=True)
class Facts:
    """All that the page shows.

    `boards` has the tracks with figures, in the order of all tracks; tables hold no rows where the study has
    nothing to show.
    """

    boards: Sequence[Board]
    curves: pl.DataFrame
    codes: Sequence[Health]
    parts: Sequence[Mapping[str, Any]]
    timeline: pl.DataFrame
    data: Mapping[str, int]
    quarantine: Sequence[Mapping[str, Any]]
    checks: Sequence[Checked]
    prompts: Sequence[Example]
    stages: Sequence[Setting]
    environment: Mapping[str, Any]
    coded: Coded = NOTHING


def gather(everything: Sequence[Artefact], prompts: int) -> Facts:
    """The facts of a study, with at most `prompts` examples of each method's variant."""
    return Facts(
        boards=[board(track, everything) for track in scored(everything)],
        curves=curves(everything),
        codes=[health for artefact in holding(everything, "codes") for health in code_health(artefact)],
        parts=parts(everything),
        timeline=timeline(everything),
        data=data(everything),
        quarantine=quarantine(table(everything, "quarantine", Quarantine)),
        checks=checks(everything),
        prompts=examples(everything, prompts),
        stages=stages(everything),
        environment=everything[0].manifest["environment"] if everything else {},
        coded=semantic_ids(holding(everything, "semantic_ids"), table(everything, "items", Items)),
    )


def scored(everything: Sequence[Artefact]) -> list[Track]:
    """Tracks with figures, in the order of all tracks; of `rerank`, each kind of list."""
    names = table(everything, "leaderboard", Leaderboard)["track"].unique().sort()
    order = list(TRACKS)
    return [of(name) for name in sorted(names, key=lambda name: order.index(name.partition("/")[0]))]


def board(track: Track, everything: Sequence[Artefact]) -> Board:
    """What was found on a track. Models order stored lists together, in a stage that says nothing of each
    one's cost: that stands with the track that they were fitted for."""
    field = contenders(track, holding(everything, track.predictions))
    paying = [one for one in field if track.name in TRACKS or one.kind != "baseline"]
    return Board(
        track,
        leaderboard=table(everything, "leaderboard", Leaderboard).filter(track=track.name),
        comparisons=table(everything, "comparisons", Comparisons).filter(track=track.name),
        kinds={one.name: one.kind for one in field},
        costs=costs(paying, everything),
        unlike=unlike(field, everything),
    )


def holding(everything: Iterable[Artefact], name: str) -> list[Artefact]:
    return [artefact for artefact in everything if artefact.has(name)]


def table(everything: Iterable[Artefact], name: str, schema: type[Table]) -> pl.DataFrame:
    """The table over all artefacts that hold it, or no rows."""
    return pl.concat(
        [empty(schema), *(a.table(name) for a in holding(everything, name))], how="vertical_relaxed"
    )


def cell(artefact: Artefact) -> str:
    """`dotted, seed 1`, or nothing for a stage of one artefact."""
    held = artefact.manifest["cell"]
    return ", ".join(
        [
            *([held["variant"]] if "variant" in held else []),
            *([f"seed {held['seed']}"] if "seed" in held else []),
        ]
    )


# ---- what it cost


def costs(field: Iterable[Contender], everything: Iterable[Artefact]) -> dict[Name, Cost]:
    made = {artefact.fingerprint: artefact for artefact in everything}
    return {one.name: cost([ancestors(artefact, made) for artefact in one.artefacts]) for one in field}


def ancestors(artefact: Artefact, made: Mapping[str, Artefact]) -> list[Artefact]:
    """The artefact and all that it was made from, each once."""
    found: dict[str, Artefact] = {}
    todo = [artefact]
    while todo:
        one = todo.pop()
        if one.fingerprint not in found:
            found[one.fingerprint] = one
            todo += [made[p["fingerprint"]] for p in one.manifest["made_from"] if p["fingerprint"] in made]
    return list(found.values())


def cost(runs: Sequence[Sequence[Artefact]]) -> Cost:
    """Cost of a method from its runs, one per seed; a run is its predictions first and then their ancestors."""
    own = [[a for a in run if belongs(a, run[0])] for run in runs]
    flat = [artefact for run in own for artefact in run]
    parameters = [a.metrics[key] for a in flat for key in PARAMETERS if key in a.metrics]
    tokens = [a.metrics["tokens_seen"] for a in flat if "tokens_seen" in a.metrics]
    computing = [a for a in flat if is_heavy(a)] or flat
    return Cost(
        seconds=sum(seconds(run) for run in own) / len(own),
        seconds_with_inputs=sum(seconds(run) for run in runs) / len(runs),
        peak_memory_mb=max(a.measured.get("peak_memory_mb", 0.0) for a in flat),
        parameters=max(parameters, default=None),
        tokens=round(sum(tokens) / len(own)) if tokens else None,
        device=values_of(computing, "device"),
        dtype=values_of(computing, "dtype"),
        threads=values_of(computing, "threads"),
    )


def belongs(artefact: Artefact, predictions: Artefact) -> bool:
    """Whether it is of the method that made the predictions: a model is one stage, a method all of its own."""
    if predictions.manifest["section"] != "methods":
        return artefact.stage == predictions.stage
    return family(artefact) == family(predictions)


def values_of(artefacts: Iterable[Artefact], fact: str) -> str:
    """What was measured of the artefacts, each value once."""
    return ", ".join(sorted({str(a.measured[fact]) for a in artefacts if fact in a.measured}))


def is_heavy(artefact: Artefact) -> bool:
    """Heavy stages say with how many threads they computed."""
    return "threads" in artefact.measured


def unlike(field: Iterable[Contender], everything: Iterable[Artefact]) -> list[Unlike]:
    """Where compared figures were not computed alike: threads over all heavy stages, the rest by stage."""
    made = {artefact.fingerprint: artefact for artefact in everything}
    held: dict[tuple[str, str], dict[str, list[Name]]] = {}
    for one in field:
        behind = {a.fingerprint: a for own in one.artefacts for a in ancestors(own, made) if is_heavy(a)}
        for artefact, fact in product(behind.values(), HOW):
            if fact in artefact.measured:
                stages = "" if fact == "threads" else artefact.stage.split("/")[-1]
                names = held.setdefault((fact, stages), {}).setdefault(str(artefact.measured[fact]), [])
                names += [] if one.name in names else [one.name]
    return [Unlike(*key, values) for key, values in held.items() if len(values) > 1]


def family(artefact: Artefact) -> str:
    """The method an artefact's stage belongs to: `binllm` of `binllm/adapter`."""
    return artefact.stage.split("/")[0]


def seconds(artefacts: Iterable[Artefact]) -> float:
    return sum(artefact.measured.get("seconds", 0.0) for artefact in artefacts)


# ---- how it learnt


def curves(everything: Iterable[Artefact]) -> pl.DataFrame:
    """Every learning curve, with its stage, variant and seed before the columns of the table."""
    blank = empty(Curve).select(
        pl.lit("").alias("stage"), pl.lit("").alias("variant"), pl.lit(0).alias("seed"), pl.all()
    )
    found = [
        a.table("curve").select(
            pl.lit(a.stage).alias("stage"),
            pl.lit(a.variant).alias("variant"),
            pl.lit(a.seed).alias("seed"),
            pl.all(),
        )
        for a in holding(everything, "curve")
    ]
    return pl.concat([blank, *found], how="vertical_relaxed")


def code_health(artefact: Artefact) -> list[Health]:
    """Health of each entity's codes in a table of codes."""
    return [
        health(artefact, str(entity), codes.filter("trained")["bits"], codes.filter(~pl.col("trained")).height)
        for (entity,), codes in artefact.table("codes")
        .sort("entity", "id")
        .partition_by("entity", as_dict=True)
        .items()
    ]


def health(artefact: Artefact, entity: str, bits: pl.Series, cold: int) -> Health:
    """Collisions and balance of codes of one width (n,); raises ValueError where widths differ."""
    flags = np.frombuffer("".join(bits).encode(), dtype=np.uint8).reshape(len(bits), -1) == ord("1")
    _, holders = np.unique(flags, axis=0, return_counts=True)
    return Health(
        artefact.stage,
        artefact.seed,
        entity,
        codes=len(bits),
        cold=cold,
        rows=artefact.metrics.get(f"{entity}_sharing_rows"),
        bits=flags.shape[1],
        distinct=len(holders),
        colliding=float(holders[holders > 1].sum() / len(bits)),
        largest=int(holders.max()),
        ones=flags.mean(axis=0).tolist(),
    )


# ---- the data and its split


def data(everything: Iterable[Artefact]) -> dict[str, int]:
    """Rows, users and items of the data set, as far as it is there."""
    tables = {"interactions": "rows", "users": "users", "items": "items", "reviews": "reviews"}
    found = {
        word: artefact.manifest["tables"][name]["rows"]
        for name, word in tables.items()
        for artefact in holding(everything, name)
    }
    return {word: rows for word, rows in found.items() if rows}


def parts(everything: Iterable[Artefact]) -> list[dict[str, Any]]:
    """One row of facts for train, valid and test."""
    found = [
        facts for artefact in holding(everything, "examples") for facts in part_facts(artefact.scan("examples"))
    ]
    return sorted(found, key=lambda facts: PARTS.index(facts["part"]))


def part_facts(examples: pl.LazyFrame) -> list[dict[str, Any]]:
    return (
        examples.group_by("part")
        .agg(
            rows=pl.len(),
            users=pl.col("user").n_unique(),
            items=pl.col("item").n_unique(),
            liked=(pl.col("label") == 1).mean(),
            cold_users=(pl.col("user_seen") == 0).mean(),
            cold_items=(pl.col("item_seen") == 0).mean(),
            history=pl.col("history").list.len().mean(),
            first=pl.col("at").min(),
            last=pl.col("at").max(),
        )
        .collect()
        .to_dicts()
    )


def timeline(everything: Iterable[Artefact]) -> pl.DataFrame:
    """Rows of each part in equal stretches of time: part, at (middle of the stretch), rows."""
    found = [artefact.scan("examples").select("part", "at") for artefact in holding(everything, "examples")]
    if not found:
        return pl.DataFrame(schema={"part": pl.String, "at": pl.Float64, "rows": pl.UInt32})
    low, high = pl.col("at").min(), pl.col("at").max() + 1
    place = ((pl.col("at") - low) * BINS / (high - low)).floor()
    middle = low + (place + 0.5) * (high - low) / BINS
    return (
        found[0].with_columns(at=middle).group_by("part", "at").agg(rows=pl.len()).sort("at", "part").collect()
    )


def quarantine(refused: pl.DataFrame) -> list[dict[str, Any]]:
    """Refused source rows by rule, the most frequent first, each with its first row and value."""
    keys = ("table", "file", "column", "reason")
    return (
        refused.sort("source_row")
        .group_by(*keys)
        .agg(rows=pl.len(), first_row=pl.col("source_row").first(), value=pl.col("value").first())
        .sort("rows", *keys, descending=[True, False, False, False, False])
        .to_dicts()
    )


# ---- trust


def checks(everything: Iterable[Artefact]) -> list[Checked]:
    """Every check of every stage, those that failed somewhere first and the blocking ones before others."""
    verdicts: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for artefact in everything:
        for name, verdict in artefact.manifest["checks"].items():
            verdicts.setdefault((artefact.stage, name), []).append((cell(artefact), verdict))
    found = [checked(stage, name, several) for (stage, name), several in verdicts.items()]
    return sorted(found, key=lambda one: (not one.failed, one.failed and not one.blocking))


def checked(stage: str, name: str, verdicts: Sequence[tuple[str, Mapping[str, Any]]]) -> Checked:
    """What a check found: of each artefact where it failed, else of the first."""
    failed = [
        f"{where}: {one['description']}".removeprefix(": ") for where, one in verdicts if not one["passed"]
    ]
    passed, first = len(verdicts) - len(failed), verdicts[0][1]
    return Checked(
        stage, name, first["blocking"], passed, len(verdicts), "; ".join(failed) or first["description"]
    )


def stages(everything: Iterable[Artefact]) -> list[Setting]:
    """Each stage of the study by section and name, its settings and its artefacts' identities."""
    by_stage: dict[str, list[Artefact]] = {}
    for artefact in everything:
        by_stage.setdefault(artefact.stage, []).append(artefact)
    found = [setting(artefacts) for artefacts in by_stage.values()]
    return sorted(found, key=lambda one: (SECTIONS.index(one.section), one.stage))


def setting(artefacts: Sequence[Artefact]) -> Setting:
    manifest = artefacts[0].manifest
    identities = [(cell(a), a.fingerprint) for a in artefacts]
    return Setting(
        manifest["stage"],
        manifest["section"],
        manifest["version"],
        manifest["settings"],
        identities,
        seconds(artefacts),
    )


# ---- what the model read


def examples(everything: Sequence[Artefact], count: int) -> list[Example]:
    """The first prompts of the test part of each method's variant (of its first seed), with their scores."""
    found: dict[tuple[str, str], list[Example]] = {}
    for artefact in holding(everything, "prompts"):
        found.setdefault((family(artefact), artefact.variant), read_examples(artefact, everything, count))
    return [example for several in found.values() for example in several]


def read_examples(artefact: Artefact, everything: Sequence[Artefact], count: int) -> list[Example]:
    wanted = artefact.scan("prompts").filter(part="test").head(count)
    for joined, key in ((scores(artefact, everything), "row"), (titles(everything), "item")):
        wanted = wanted.join(joined, on=key, how="left", maintain_order="left")
    named = wanted.select(
        pl.lit(family(artefact)).alias("method"),
        pl.lit(artefact.variant).alias("variant"),
        *Example._fields[2:],
    )
    return [Example(*row) for row in named.collect().iter_rows()]


def scores(artefact: Artefact, everything: Iterable[Artefact]) -> pl.LazyFrame:
    """Scores of the method, variant and seed that a table of prompts belongs to: row, probability, score."""
    blank = pl.LazyFrame(schema={"row": pl.UInt32, "probability": pl.Float64, "score": pl.Float64})
    own = [
        a.scan("pairs").select("row", "probability", "score")
        for a in holding(everything, "pairs")
        if (family(a), a.variant, a.seed) == (family(artefact), artefact.variant, artefact.seed)
    ]
    return pl.concat([blank, *own])


def titles(everything: Iterable[Artefact]) -> pl.LazyFrame:
    blank = pl.LazyFrame(schema={"item": pl.UInt32, "title": pl.String})
    return pl.concat([blank, *(a.scan("items").select("item", "title") for a in holding(everything, "items"))])
