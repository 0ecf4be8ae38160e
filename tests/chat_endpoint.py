"""An OpenAI-compatible endpoint on loopback that answers as it is told to, faults included.

A script says what becomes of each call: `script(body, number) -> Turn`. One thread with its own event loop, so
it answers thousands of calls a second and can also leave one hanging, or cut it off.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """What the endpoint does with one call. cut: close the connection after so many bytes of the body."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {"content-type": "application/json"}
    seconds: float = 0.0
    cut: int | None = None


Script = Callable[[dict[str, Any], int], Turn]


def says(text: str | None, tokens_in: int = 5, tokens_out: int = 7, finish: str = "stop", **more: Any) -> Turn:
    """A good completion."""
    message = {"role": "assistant", "content": text, **more}
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
    choice = {"index": 0, "finish_reason": finish, "message": message}
    facts = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Turn(json.dumps({**facts, "usage": usage}).encode())


def fails(status: int, said: str = "no", **headers: str) -> Turn:
    body = json.dumps({"error": {"message": said}}).encode()
    return Turn(body, status, {"content-type": "application/json", **headers})


def asked(body: dict[str, Any]) -> str:
    """The last message's text."""
    return body["messages"][-1]["content"]


def echo(body: dict[str, Any], number: int) -> Turn:
    return says(f"about {asked(body)}")


@dataclass
class Heard:
    """What came to the endpoint."""

    address: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    open: int = 0
    most_open: int = 0

    @property
    def calls(self) -> int:
        return len(self.bodies)


async def receive(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes] | None:
    """Headers and body of one request; None where the caller is gone."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        headers = {name.lower(): value for name, value in pairs}
        return headers, await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def serve(script: Script, heard: Heard, reader: Any, writer: Any) -> None:
    """One connection, call after call."""
    try:
        while (came := await receive(reader)) is not None:
            headers, raw = came
            body = json.loads(raw)
            heard.bodies.append(body)
            heard.keys.add(headers.get("authorization", ""))
            heard.open += 1
            heard.most_open = max(heard.most_open, heard.open)
            turn = script(body, heard.calls)
            try:
                await asyncio.sleep(turn.seconds)
            finally:
                heard.open -= 1
            held = "".join(f"{name}: {value}\r\n" for name, value in turn.headers.items())
            head = f"HTTP/1.1 {turn.status} X\r\ncontent-length: {len(turn.body)}\r\n{held}\r\n"
            writer.write(head.encode() + turn.body[: turn.cut])
            await writer.drain()
            if turn.cut is not None:
                break
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


@contextmanager
def endpoint(script: Script = echo) -> Iterator[Heard]:
    """Run until the body ends."""
    heard, loop, ready = Heard(), asyncio.new_event_loop(), threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(
            lambda r, w: serve(script, heard, r, w), "127.0.0.1", 0, backlog=512
        )
        heard.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await stopped.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)

    stopped = asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield heard
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(5)
