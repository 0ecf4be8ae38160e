"""The ledger of answers: what a chat model was asked and what it said, recorded once, for all studies.

    request -> fingerprint -> found in a segment, or asked and appended to this writer's own segment

    store/answers/segments/<time>-<process>-<random>.jsonl    one answer a line, its fingerprint first

An answer is addressed by what decides it: model, messages, parameters, prompt version and sample; never by a
key or the address of an endpoint. Lines are only ever appended, each by one write, so a SIGKILL loses no line
that was written; a torn one (power cut, full disk) is skipped and counted. Every writer has a segment of its
own, and readers merge them: several processes need no lock. A power cut loses at most SYNC_SECONDS.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.store import make_folder, sync, sync_folder

SYNC_SECONDS = 1.0  # an answer is on the disk itself at most so long after it came
HEAD = b'{"answer":"'  # how every line begins
DIGITS = 32  # of a fingerprint
FORMATS = (".jsonl", ".parquet")
Message = Mapping[str, str]  # role and content
Status = Literal["answered", "refused", "truncated", "invalid", "failed"]


class Answer(BaseModel):
    """One request and what came of it."""

    model_config = ConfigDict(frozen=True)

    answer: str  # fingerprint of the request
    model: str
    messages: tuple[dict[str, str], ...]
    parameters: dict[str, Any]
    version: int = 1  # of the prompt
    sample: int = 0  # which of several answers to one request
    text: str | None  # as it came; it is cleaned where it is used
    status: Status
    error: str | None = None
    purpose: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    lost_tokens: int = 0  # that calls without an answer may have taken, at most
    calls: int = 1  # of the endpoint, failed ones and a repair too
    seconds: float = 0.0  # from the first call to the answer
    price: float = 0.0  # at most: lost tokens count
    source: Literal["live", "batch", "imported"] = "live"
    at: float = 0.0  # unix seconds

    @property
    def settled(self) -> bool:
        """Whether asking again would only repeat it."""
        return self.status != "failed"

    @property
    def genuine(self) -> bool:
        """Whether the fingerprint is that of the request."""
        return self.answer == fingerprint(self.model, self.messages, self.parameters, self.version, self.sample)


def fingerprint(
    model: str,
    messages: Sequence[Message],
    parameters: Mapping[str, Any],
    version: int = 1,
    sample: int = 0,
) -> str:
    """Address of an answer: 32 hex digits over all that decides it.

    model: its identity, such as a name with a version, or the hash of its weights; messages: role and content,
    first to last; parameters: as sent; version: of the prompt's wording; sample: which of several answers.
    """
    facts = {
        "model": model,
        "messages": [{"role": one["role"], "content": one["content"]} for one in messages],
        "parameters": dict(parameters),
        "version": version,
        "sample": sample,
    }
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


@dataclass
class Writer:
    """One process's own segment, made by its first answer."""

    folder: Path
    synced: float = field(default_factory=time.monotonic)
    handle: int | None = None

    def append(self, answer: Answer) -> None:
        """Write one answer in one piece; it survives the death of this process from here on."""
        if self.handle is None:
            self.handle = self.open()
        left = memoryview(line(answer))
        while left:
            left = left[os.write(self.handle, left) :]
        if time.monotonic() - self.synced >= SYNC_SECONDS:
            os.fsync(self.handle)
            self.synced = time.monotonic()

    def open(self) -> int:
        make_folder(self.folder)
        name = f"{time.time_ns() // 1_000_000:013d}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        handle = os.open(self.folder / name, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o644)
        sync_folder(self.folder)
        return handle

    def close(self) -> None:
        if self.handle is not None:
            os.fsync(self.handle)
            os.close(self.handle)
            self.handle = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Imported:
    """What an import did, in answers."""

    new: int
    known: int
    refused: int  # lines that are no answer, or whose fingerprint is not their request's


class Ledger:
    """All recorded answers of a store. Safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.segments = folder / "segments"
        self.torn = 0  # lines that the last reading skipped

    def writer(self) -> Writer:
        return Writer(self.segments)

    def lines(self) -> Iterator[bytes]:
        """Every whole line; the others are counted."""
        self.torn = 0
        for segment in sorted(self.segments.glob("*.jsonl")):
            with segment.open("rb") as handle:
                for one in handle:
                    if one.startswith(HEAD) and one.endswith(b"}\n"):
                        yield one
                    else:
                        self.torn += bool(one.strip())

    def find(self, wanted: Collection[str]) -> dict[str, Answer]:
        """Fingerprint -> answer, of those wanted that are recorded; only these lines are parsed."""
        asked = {one.encode() for one in wanted}
        start, end = len(HEAD), len(HEAD) + DIGITS
        return self.best(one for one in self.lines() if one[start:end] in asked)

    def all(self) -> dict[str, Answer]:
        """Every recorded answer by fingerprint, in the order of the fingerprints."""
        return dict(sorted(self.best(self.lines()).items()))

    def best(self, lines: Iterable[bytes]) -> dict[str, Answer]:
        """Of several records of one request the first that is settled, else the last."""
        found: dict[str, Answer] = {}
        for one in lines:
            answer = parse(one)
            if answer is None:
                self.torn += 1
                continue
            before = found.get(answer.answer)
            if before is None or rank(answer) < rank(before):
                found[answer.answer] = answer
        return found

    def records(self) -> Iterator[Answer]:
        """Every record, of a request that failed and was asked again each."""
        for one in self.lines():
            answer = parse(one)
            if answer is None:
                self.torn += 1
            else:
                yield answer


def line(answer: Answer) -> bytes:
    return answer.model_dump_json().encode() + b"\n"


def parse(one: bytes) -> Answer | None:
    """The answer of a line, None where it is none."""
    try:
        return Answer.model_validate_json(one)
    except ValidationError:
        return None


def rank(answer: Answer) -> tuple[bool, float]:
    """Settled before failed; of the settled the first, of the failed the last."""
    return not answer.settled, answer.at if answer.settled else -answer.at


# --- one file for others -----------------------------------------------------------------------------------


def export(ledger: Ledger, file: Path) -> int:
    """Write every settled answer into one file, .jsonl or .parquet, and return how many. Raises ValueError.

    Equal ledgers give equal files, whatever their segments.
    """
    kept = [answer for answer in ledger.all().values() if answer.settled]
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    require_format(file)
    try:
        if file.suffix == ".parquet":
            frame(kept).write_parquet(beside, compression="zstd")
        else:
            beside.write_bytes(b"".join(line(answer) for answer in kept))
        sync(beside)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
    return len(kept)


def read_export(file: Path) -> Iterator[Answer | None]:
    """The answers of an exported file, None for each line that is none. Raises ValueError."""
    require_format(file)
    if file.suffix == ".parquet":
        for row in pl.read_parquet(file, glob=False).iter_rows(named=True):
            held = {name: json.loads(row[name]) for name in ("messages", "parameters")}
            yield parse(json.dumps({**row, **held}).encode())
        return
    with file.open("rb") as handle:
        for one in handle:
            yield parse(one)


def take(ledger: Ledger, file: Path) -> Imported:
    """Add the answers of an exported file that are not recorded yet. Raises ValueError for another format."""
    known = {one.answer for one in ledger.all().values() if one.settled}
    new = again = refused = 0
    with ledger.writer() as writer:
        for answer in read_export(file):
            if answer is None or not answer.genuine or not answer.settled:
                refused += 1
            elif answer.answer in known:
                again += 1
            else:
                writer.append(answer.model_copy(update={"source": "imported"}))
                known.add(answer.answer)
                new += 1
    return Imported(new, again, refused)


def require_format(file: Path) -> None:
    if file.suffix not in FORMATS:
        raise ValueError(f"{file.name}: answers are kept as {' or '.join(FORMATS)}")


COLUMNS = {
    "answer": pl.String,
    "model": pl.String,
    "messages": pl.String,
    "parameters": pl.String,
    "version": pl.Int64,
    "sample": pl.Int64,
    "text": pl.String,
    "status": pl.String,
    "error": pl.String,
    "purpose": pl.String,
    "tokens_in": pl.Int64,
    "tokens_out": pl.Int64,
    "lost_tokens": pl.Int64,
    "calls": pl.Int64,
    "seconds": pl.Float64,
    "price": pl.Float64,
    "source": pl.String,
    "at": pl.Float64,
}


def frame(answers: Iterable[Answer]) -> pl.DataFrame:
    """Answers as a table; messages and parameters as JSON texts."""
    rows = [one.model_dump() for one in answers]
    for row in rows:
        row["messages"] = json.dumps(row["messages"], ensure_ascii=False)
        row["parameters"] = json.dumps(row["parameters"], sort_keys=True)
    return pl.DataFrame(rows, schema=COLUMNS)


def costs(ledger: Ledger) -> pl.DataFrame:
    """What each purpose took of each model: requests, what came of them, calls, tokens, seconds, price."""
    counts = [
        (pl.col("status") == status).sum().alias(status) for status in ("answered", "refused", "truncated")
    ]
    failed = pl.col("status").is_in(["invalid", "failed"]).sum().alias("failed")
    sums = [
        pl.col(name).sum() for name in ("calls", "tokens_in", "tokens_out", "lost_tokens", "seconds", "price")
    ]
    whole = frame(ledger.records())
    kinds = pl.col("answer").n_unique().alias("requests")
    return whole.group_by("model", "purpose").agg(kinds, *counts, failed, *sums).sort("model", "purpose")
