"""What a stage that asks a chat model calls: requests in, texts out, every answer recorded.

    requests -> neutral texts -> fingerprints -> ledger -> the rest asked, within caps -> texts, figures

Equal requests are asked once. What is recorded is not asked again, whoever recorded it: a second run with
nothing changed sends nothing, and with one item more it sends one request. What was not answered is said: each
row has a status, and the draft's metrics have coverage, refusals, truncations and duplicates.
"""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from pydantic import BaseModel

from pipeline.knowledge.answers import Answer, Ledger, Message, fingerprint
from pipeline.knowledge.batch import request_line
from pipeline.knowledge.chat import ChatError, Question, Reply, Spent, expects, likely_tokens, talk
from pipeline.knowledge.settings import ChatSettings
from pipeline.progress import meter
from pipeline.stage import Check, Draft, Input, Spec, Stage, Verdict
from pipeline.text.cleaning import TEMPLATE, clean, without_turns

log = logging.getLogger("interlingua")
USED = ("answered", "truncated")  # statuses with a text
DIFFERENT = 0.5  # share of answers that have to differ from all others


class Estimate(NamedTuple):
    """What asking would take: requests that differ, those recorded, and at most so much for the rest."""

    requests: int
    recorded: int
    tokens_in: int
    tokens_out: int
    price: float

    @property
    def asked(self) -> int:
        return self.requests - self.recorded

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.recorded} of them recorded, {self.asked} to ask: about "
            f"{self.tokens_in} tokens to read, at most {self.tokens_out} to write and {self.price:.4f} to pay"
        )


class NotConnected(ChatError):
    """There is something to ask and nobody to ask it of: a dry run, or a replay that lacks answers."""

    def __init__(self, estimate: Estimate, batch: Sequence[str]) -> None:
        super().__init__(f"no chat model is at hand: {estimate}")
        self.estimate, self.batch = estimate, batch  # the requests as a batch interface takes them


class Request(NamedTuple):
    """One row of what a stage asks."""

    answer: str  # fingerprint
    messages: tuple[Message, ...]
    purpose: str
    version: int
    sample: int


def ask_all(
    requests: pl.DataFrame, chat: ChatSettings, out: Draft, reads: type[BaseModel] | None = None
) -> pl.DataFrame:
    """Texts of all requests, in their order: (owner, text, status, answer), as in `pipeline.schema.Knowledge`.

    requests: owner, purpose, messages (list of role and content); and where they differ from 1 and 0, `version`
    of the prompt's wording and `sample`, which of several answers. reads: the form of an answer in JSON; `text`
    is then valid JSON of it. Raises ChatError where there is something to ask and no answer comes at all.
    """
    rows = list(read_requests(requests, chat, reads))
    ledger = Ledger(out.answers)
    wanted = {row.answer: row for row in rows}
    found = {name: one for name, one in ledger.find(wanted).items() if one.settled}
    missing = [row for name, row in wanted.items() if name not in found]
    estimate = priced(len(wanted), missing, chat)
    log.info("%s: %s", out.stage.name, estimate)
    before = spent(found.values())
    fresh, stopped = ask(missing, chat, out, ledger, before, estimate, reads) if missing else ({}, None)
    texts = told(rows, {**found, **fresh}, chat, reads).insert_column(0, requests["owner"])
    if fresh and not texts["answer"].count():
        why = next((one.error for one in fresh.values() if one.error), stopped)
        raise ChatError(f"the chat model gave no answer to any of {len(wanted)} requests: {why}")
    measure(out, rows, texts, {**found, **fresh}, fresh, stopped, ledger.torn)
    return texts


def read_requests(
    requests: pl.DataFrame, chat: ChatSettings, reads: type[BaseModel] | None
) -> Iterator[Request]:
    """Each row with its fingerprint; no text in it can open a turn of a conversation."""
    identity, parameters = chat.identity, addressed(chat, reads)
    for row in requests.iter_rows(named=True):
        messages = tuple(
            {"role": one["role"], "content": without_turns(one["content"])} for one in row["messages"]
        )
        version, sample = row.get("version", 1), row.get("sample", 0)
        name = fingerprint(identity, messages, parameters, version, sample)
        yield Request(name, messages, row["purpose"], version, sample)


def addressed(chat: ChatSettings, reads: type[BaseModel] | None) -> dict[str, Any]:
    """The parameters as they are sent, which an answer is addressed by."""
    return {**chat.parameters.sent(), **expects(reads)}


def priced(requests: int, missing: Sequence[Request], chat: ChatSettings) -> Estimate:
    tokens_in = sum(likely_tokens(row.messages) for row in missing)
    tokens_out = len(missing) * chat.parameters.max_tokens
    price = chat.prices.of(tokens_in, tokens_out)
    return Estimate(requests, requests - len(missing), tokens_in, tokens_out, price)


def spent(answers: Any) -> Spent:
    """What recorded answers took when they were asked; imported ones took nothing here."""
    own = [one for one in answers if one.source != "imported"]
    tokens = sum(one.tokens_in + one.tokens_out + one.lost_tokens for one in own)
    return Spent(sum(one.calls for one in own), tokens, sum(one.price for one in own))


# --- asking ------------------------------------------------------------------------------------------------


def ask(
    missing: Sequence[Request],
    chat: ChatSettings,
    out: Draft,
    ledger: Ledger,
    before: Spent,
    estimate: Estimate,
    reads: type[BaseModel] | None,
) -> tuple[dict[str, Answer], str | None]:
    """Ask what is missing. Returns the answers that came, failures among them, and why it stopped early."""
    if out.connect is None:
        parameters = addressed(chat, reads)
        raise NotConnected(estimate, [request_line(row, chat.identity, parameters) for row in missing])
    came: dict[str, Answer] = {}
    paid = 0.0
    requests = {row.answer: row for row in missing}
    questions = [Question(row.answer, row.messages, row.purpose) for row in missing]
    parameters = addressed(chat, reads)
    with (
        out.connect(chat) as endpoint,
        ledger.writer() as writer,
        meter(out.stage.name, len(missing)) as counting,
    ):

        def hear(question: Question, reply: Reply) -> None:
            nonlocal paid
            if reply.calls:
                answer = recorded(requests[question.answer], reply, chat, parameters)
                writer.append(answer)
                came[answer.answer] = answer
                paid += answer.price
            counting.advance(1, f"{paid:.4f} paid")

        stopped = talk(questions, endpoint, chat, hear, before, reads)
    if stopped:
        log.warning("%s: %s; %d of %d requests asked", out.stage.name, stopped, len(came), len(missing))
    return came, stopped


def recorded(request: Request, reply: Reply, chat: ChatSettings, parameters: Mapping[str, Any]) -> Answer:
    """A reply as the ledger keeps it."""
    return Answer(
        answer=request.answer,
        model=chat.identity,
        messages=tuple(dict(one) for one in request.messages),
        parameters=dict(parameters),
        version=request.version,
        sample=request.sample,
        text=reply.text,
        status="failed" if reply.status == "not_asked" else reply.status,
        error=reply.error,
        purpose=request.purpose,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        lost_tokens=reply.lost_in + reply.lost_out,
        calls=reply.calls,
        seconds=reply.seconds,
        price=chat.prices.of(reply.tokens_in + reply.lost_in, reply.tokens_out + reply.lost_out),
        at=time.time(),
    )


# --- what came of it ---------------------------------------------------------------------------------------


def told(
    rows: Sequence[Request], answers: Mapping[str, Answer], chat: ChatSettings, reads: type[BaseModel] | None
) -> pl.DataFrame:
    """(text, status, answer) of each row."""
    texts = {name: tidy(one, chat.longest, reads) for name, one in answers.items()}
    table = []
    for row in rows:
        answer = answers.get(row.answer)
        status = "not_asked" if answer is None else "failed" if answer.status == "invalid" else answer.status
        held = row.answer if answer is not None and answer.settled else None
        table.append((texts.get(row.answer), status, held))
    schema = {"text": pl.String, "status": pl.String, "answer": pl.String}
    return pl.DataFrame(table, schema=schema, orient="row")


def tidy(answer: Answer, longest: int, reads: type[BaseModel] | None) -> str | None:
    """An answer's text made harmless: one line, no turn of a conversation, bounded; None where it has none."""
    if answer.status not in USED or answer.text is None:
        return None
    if reads is None:
        text = clean(without_turns(answer.text), longest)
        return without_turns(text)[:longest]
    if answer.status == "truncated":
        return None  # a part of a JSON object is none
    return json.dumps(tidy_json(json.loads(answer.text), longest), ensure_ascii=False)


def tidy_json(value: Any, longest: int) -> Any:
    """JSON with every text in it made harmless."""
    if isinstance(value, str):
        return without_turns(clean(without_turns(value), longest)) if value.strip() else ""
    if isinstance(value, list):
        return [tidy_json(one, longest) for one in value]
    if isinstance(value, dict):
        return {without_turns(key): tidy_json(one, longest) for key, one in value.items()}
    return value


def measure(
    out: Draft,
    rows: Sequence[Request],
    texts: pl.DataFrame,
    answers: Mapping[str, Answer],
    fresh: Mapping[str, Answer],
    stopped: str | None,
    torn: int,
) -> None:
    """Write the figures: of the answers as metrics, of this run as measured."""
    many = max(texts.height, 1)
    shares = {
        status: texts.filter(status=status).height / many
        for status in ("refused", "truncated", "failed", "not_asked")
    }
    out.metric(
        requests=len({row.answer for row in rows}),
        coverage=round(texts["text"].count() / many, 6) if texts.height else 1.0,
        **{f"{status}_share": round(share, 6) for status, share in shares.items()},
        duplicate_share=round(duplicates(rows, texts), 6),
        answer_tokens_in=sum(one.tokens_in for one in answers.values()),
        answer_tokens_out=sum(one.tokens_out for one in answers.values()),
    )
    out.measure(
        asked=len(fresh),
        calls=sum(one.calls for one in fresh.values()),
        price=round(sum(one.price for one in fresh.values()), 6),
        stopped=stopped,
        torn_records=torn,
    )


def duplicates(rows: Sequence[Request], texts: pl.DataFrame) -> float:
    """Share of answered requests whose text is also the answer of a request that differs."""
    by_request = dict(zip((row.answer for row in rows), texts["text"], strict=True))
    counted = Counter(re.sub(r"\W+", " ", text).strip().lower() for text in by_request.values() if text)
    return sum(n for n in counted.values() if n > 1) / max(sum(counted.values()), 1)


# --- checks of every stage that asks -----------------------------------------------------------------------


def answers_cover(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """Enough of what was asked has an answer."""
    share, least = draft.metrics["coverage"], settings.chat.least_coverage
    facts = {name: draft.metrics[f"{name}_share"] for name in ("refused", "failed", "not_asked")}
    why = draft.measured.get("stopped")
    words = f"{share:.1%} answered, at least {least:.0%} wanted" + (f": {why}" if why else "")
    return Verdict(share >= least, words, {"coverage": share, **facts})


def answers_differ(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """The chat model does not say the same of everything."""
    share = draft.metrics["duplicate_share"]
    words = f"{share:.1%} of the answers are also the answer to another request"
    return Verdict(share <= DIFFERENT, words, {"duplicates": share})


def texts_open_no_turn(draft: Draft, inputs: Mapping[str, Input], settings: Any) -> Verdict:
    """No text can open or close a turn of a conversation."""
    found = [text for text in draft.read("knowledge")["text"].drop_nulls() if TEMPLATE.search(text)]
    return Verdict(not found, f"{len(found)} texts hold a chat template's token", {"texts": len(found)})


CHECKS = (
    Check(answers_cover, blocking=False),
    Check(answers_differ, blocking=False),
    Check(texts_open_no_turn),
)


def dry_run(
    stage: Stage, spec: Spec, inputs: Mapping[str, Input], folder: Path
) -> tuple[Estimate, Sequence[str]]:
    """What a stage would ask, with nothing asked or kept: its price, and its requests for a batch interface.

    folder: an empty one, for its draft.
    """
    draft = Draft(folder, stage, spec, folder / "checkpoints")
    try:
        stage.function(**inputs, settings=stage.settings.model_validate(dict(spec.settings)), out=draft)
    except NotConnected as found:
        return found.estimate, found.batch
    requests = draft.metrics.get("requests", 0)
    return Estimate(requests, requests, 0, 0, 0.0), []
