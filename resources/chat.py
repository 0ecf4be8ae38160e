"""The chat model of a study, reached: a server of our own on loopback, or an endpoint elsewhere with its key.

    models.chat -> embedded: weights -> child process that serves them -> endpoint, until the body ends
                -> an address: the key from the environment -> endpoint

The only place where a key is read. It is in memory while a stage asks, and goes nowhere but to the endpoint.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.data.sources import cache, fetch
from pipeline.knowledge.chat import ChatError, Endpoint
from pipeline.knowledge.settings import ChatSettings
from pipeline.llm.load import only_member
from pipeline.stage import Connect, hash_file
from resources.servers import LOOPBACK, free_port

COMMAND = (sys.executable, "-m", "resources.chat_server")
SLOTS_PER_CORE = 4  # two cores wrote 119 tokens/s on one slot and 232 over 8
# Threads wait for each other at full speed, so one core is left to others: on two cores that others used too,
# one thread wrote 43 tokens/s and two wrote 7.
SPARE_CORES = 1
START_SECONDS = 120.0
STOP_SECONDS = 10.0
SAID = 400  # characters of a dead server's last words


class Serving(NamedTuple):
    """What a server is told, over its standard input: a key does not belong into a command line."""

    weights: str
    port: int
    key: str
    slots: int
    context: int  # tokens of one slot
    threads: int


def reach(root: Path, environment: Mapping[str, str] = os.environ) -> Connect:
    """How stages of a project reach the chat model that their settings name."""

    @contextmanager
    def connect(chat: ChatSettings) -> Iterator[Endpoint]:
        if chat.embedded:
            with served(bring(chat, root), chat) as endpoint:
                yield endpoint
        else:
            yield Endpoint(chat.location, chat.model or "", key_of(chat, environment))

    return connect


def key_of(chat: ChatSettings, environment: Mapping[str, str]) -> str:
    """The endpoint's key. Raises ChatError that names the variable which lacks."""
    if chat.key is None:
        return "none"  # servers of one's own ask for none, and the client wants some text
    key = environment.get(chat.key, "").strip()
    if not key:
        raise ChatError(
            f"models.chat.key names the variable {chat.key}, which is not set: export {chat.key}=..."
        )
    return key


# --- the embedded model ------------------------------------------------------------------------------------


def bring(chat: ChatSettings, root: Path) -> Path:
    """The weights as a .gguf file of this machine, unpacked once."""
    settings = chat.weights
    path = fetch(settings.location, settings.sha256, cache(root), root)
    if path.suffix == ".gguf":
        return path
    kept = root / ".cache" / "chat" / f"{settings.member_sha256 or settings.sha256}.gguf"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as unpacked:
            os.replace(only_member(path, settings, Path(unpacked)), kept)
    if settings.member_sha256 and hash_file(kept) != settings.member_sha256:
        shutil.move(kept, kept.with_suffix(".broken"))
        raise ChatError(f"{kept.name} in .cache/chat is not the pinned file; it was put aside, so run again")
    return kept


@contextmanager
def served(weights: Path, chat: ChatSettings, cores: int | None = None) -> Iterator[Endpoint]:
    """Serve the weights on loopback until the body ends. Raises ChatError where the server does not come up."""
    cores = cores or len(os.sched_getaffinity(0))
    slots = max(1, min(chat.pace.concurrency, SLOTS_PER_CORE * cores))
    told = Serving(
        str(weights), free_port(), secrets.token_hex(16), slots, chat.context, max(1, cores - SPARE_CORES)
    )
    with tempfile.TemporaryFile() as said:
        server = start(told, said)
        try:
            wait_for(server, told, said)
            address = f"http://{LOOPBACK}:{told.port}/v1"
            yield Endpoint(address, weights.stem, told.key, near=True, slots=slots)
        finally:
            stop(server)


def start(told: Serving, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """The server's process. It ends when its standard input is closed, so also when we are killed."""
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    server = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment, start_new_session=True
    )
    assert server.stdin is not None
    server.stdin.write(json.dumps(told._asdict()).encode() + b"\n")
    server.stdin.flush()
    return server


def wait_for(server: subprocess.Popen[bytes], told: Serving, said: IO[bytes]) -> None:
    """Wait until the model is loaded and answers."""
    until = time.monotonic() + START_SECONDS
    while not healthy(told):
        if server.poll() is not None or time.monotonic() > until:
            said.seek(0)
            words = " ".join(said.read().decode(errors="replace").replace(told.key, "***").split())
            raise ChatError(f"the embedded chat model did not start: {words[-SAID:] or 'it said nothing'}")
        time.sleep(0.1)


def healthy(told: Serving) -> bool:
    request = urllib.request.Request(
        f"http://{LOOPBACK}:{told.port}/health", headers={"Authorization": f"Bearer {told.key}"}
    )
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to loopback
    try:
        with straight.open(request, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """Close its standard input, at which it ends; make it end where it does not."""
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
