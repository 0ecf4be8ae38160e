"""Answers by a provider's batch interface, which takes a day and costs half: requests out, results in.

    missing requests -> requests.jsonl -> (the provider) -> results.jsonl -> the same ledger

Results are matched with the requests that were written, and recorded under the address of the request, so a
stage finds them as if it had asked itself.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.knowledge.answers import Answer, Imported, Ledger, fingerprint
from pipeline.knowledge.chat import Lost, Reply, read
from pipeline.knowledge.settings import Prices
from pipeline.store import write_atomic

URL = "/v1/chat/completions"
LONGEST = 64  # letters of a request's name, which providers limit
NAME = re.compile(r"(?P<answer>[0-9a-f]{32})-(?P<version>\d+)-(?P<sample>\d+)(-(?P<purpose>.*))?")


class Seen:
    """A JSON object read as the client's objects are: by attribute."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        self.held = held

    def __getattr__(self, name: str) -> Any:
        return seen(self.held.get(name))


def seen(value: Any) -> Any:
    if isinstance(value, dict):
        return Seen(value)
    return [seen(one) for one in value] if isinstance(value, list) else value


def request_line(request: Any, model: str, parameters: Mapping[str, Any]) -> str:
    """One request as the batch interface takes it; its name says all that addresses it beside its body.

    request: a `pipeline.knowledge.asking.Request`.
    """
    purpose = re.sub(r"[^A-Za-z0-9_.]+", "_", request.purpose)
    name = f"{request.answer}-{request.version}-{request.sample}-{purpose}"[:LONGEST]
    body = {"model": model, "messages": list(request.messages), **parameters}
    return json.dumps({"custom_id": name, "method": "POST", "url": URL, "body": body}, ensure_ascii=False)


def write(file: Path, lines: Iterable[str]) -> int:
    """Write the requests and return how many."""
    held = list(lines)
    write_atomic(file, "".join(f"{one}\n" for one in held))
    return len(held)


def take(ledger: Ledger, requests: Path, results: Path, prices: Prices) -> Imported:
    """Record the results of a batch; refused are those that are no answer, or to no request of the file."""
    asked = {one["custom_id"]: one["body"] for one in objects(requests)}
    known = {name for name, one in ledger.all().items() if one.settled}
    new = again = refused = 0
    with ledger.writer() as writer:
        for result in objects(results):
            answer = answered(result, asked.get(result.get("custom_id", "")), prices)
            if answer is None:
                refused += 1
            elif answer.answer in known:
                again += 1
            else:
                writer.append(answer)
                known.add(answer.answer)
                new += 1
    return Imported(new, again, refused)


def objects(file: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; others are empty ones."""
    for line in file.read_text().splitlines():
        try:
            held = json.loads(line)
        except json.JSONDecodeError:
            held = None
        yield held if isinstance(held, dict) else {}


def answered(result: Mapping[str, Any], body: Mapping[str, Any] | None, prices: Prices) -> Answer | None:
    """The answer of one result; None where it is none, or not of the request that its name says."""
    named = NAME.fullmatch(result.get("custom_id", ""))
    if body is None or named is None:
        return None
    parameters = {name: value for name, value in body.items() if name not in ("model", "messages")}
    version, sample = int(named["version"]), int(named["sample"])
    address = fingerprint(body["model"], body["messages"], parameters, version, sample)
    reply = reply_of(result, body)
    if reply is None or reply.status == "not_asked" or address != named["answer"]:
        return None
    return Answer(
        answer=address,
        model=body["model"],
        messages=tuple(body["messages"]),
        parameters=parameters,
        version=version,
        sample=sample,
        text=reply.text,
        status=reply.status,
        purpose=named["purpose"] or "",
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        price=prices.of(reply.tokens_in, reply.tokens_out),
        source="batch",
        at=time.time(),
    )


def reply_of(result: Mapping[str, Any], body: Mapping[str, Any]) -> Reply | None:
    try:
        return read(Seen(result).response.body, body["messages"])
    except (Lost, AttributeError):
        return None
