"""Thousands of chat calls to an endpoint that fails one in twenty, and a SIGKILL in the middle.

    python -m benchmarks.chat                  2,000 requests
    python -m benchmarks.chat --requests 100000

The endpoint answers 5 % of the calls with 429, 500, silence past the time-out, a body that is cut off, or one
that is no completion. The asking process is killed when half of the calls are made, and started again. Then:
every request has its answer exactly once, no recorded request was asked again, and calls beyond requests and
faults are those under way at the kill. A second part plays 400 requests under each cap and compares what the
endpoint served with the cap.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.knowledge.answers import Ledger
from pipeline.knowledge.asking import ask_all
from pipeline.knowledge.chat import Endpoint
from pipeline.knowledge.settings import ChatSettings
from pipeline.stage import Draft, Settings, Spec, stage
from tests.chat_endpoint import Turn, asked, endpoint, fails, says

SHARE = 0.05  # of calls that fail
TIMEOUT = 3.0  # seconds
MOST_EXTRA = 0.02  # of the requests
READ, WRITTEN = 40, 25  # tokens that the endpoint bills


class Nothing(Settings):
    """No settings: the chat's are given by hand."""


@stage("benchmark", settings=Nothing, section="data", version=1)
def benchmark(settings: Nothing, out: Draft) -> None:
    """Stands for the stage that asks."""


class Faulty:
    """The script of an endpoint that fails one call in twenty, each kind alike."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.came: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any], number: int) -> Turn:
        good = says(f"about {asked(body)}", READ, WRITTEN)
        faults = {
            "429": fails(429, **{"retry-after": "0.02"}),
            "500": fails(500),
            "time-out": good._replace(seconds=2 * TIMEOUT),
            "torn": good._replace(cut=40),
            "malformed": Turn(b'{"choices": [{"message": {"content": 1}}]}'),
        }
        kind = self.draw.choice(list(faults)) if self.draw.random() < SHARE else "good"
        self.came[kind] += 1
        return faults.get(kind, good)


def settings_of(address: str, **more: Any) -> ChatSettings:
    pace = {"concurrency": 64, "timeout": TIMEOUT, "wait": 0.05, "tries": 8}
    return ChatSettings.model_validate(
        {"location": address, "model": "m", "pace": pace, "parameters": {"max_tokens": 32}, **more}
    )


def ask(folder: Path, address: str, requests: int, **more: Any) -> tuple[pl.DataFrame, Draft]:
    """Ask that many different requests of the endpoint, with the ledger in this folder."""

    @contextmanager
    def connect(chat: ChatSettings):
        yield Endpoint(address, "m", near=True)

    spec = Spec("", "benchmark", "", {}, {}, {}, "f", str(folder), str(folder))
    messages = [[{"role": "user", "content": f"film {i}"}] for i in range(requests)]
    frame = pl.DataFrame({"owner": range(requests), "purpose": "benchmark", "messages": messages})
    draft = Draft(folder / "draft", benchmark, spec, folder, connect)
    return ask_all(frame, settings_of(address, **more), draft), draft


def asking(folder: Path, address: str, requests: int) -> subprocess.Popen[bytes]:
    """The same in a process of its own, to be killed."""
    told = [str(folder), address, str(requests)]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.chat", "--asking", *told])


def killed_in_the_middle(requests: int, folder: Path) -> dict[str, Any]:
    """Figures of one asking that was killed at half and went on."""
    script = Faulty(seed=1)
    began = time.monotonic()
    with endpoint(script) as heard:
        first = asking(folder, heard.address, requests)
        while heard.calls < requests // 2 and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        kept = len(Ledger(folder / "answers").all())
        served = script.came["good"]
        second = asking(folder, heard.address, requests)
        if second.wait() != 0:
            raise SystemExit("the second process failed")
        records = list(Ledger(folder / "answers").records())
        again, draft = ask(folder, heard.address, requests)
        idle = draft.measured["calls"]
    settled = Counter(one.answer for one in records if one.settled)
    right = sum(text == f"about film {i}" for i, text in enumerate(again["text"]))
    faults = sum(n for kind, n in script.came.items() if kind != "good")
    return {
        "requests": requests,
        "seconds": round(time.monotonic() - began, 1),
        "right answers": right,
        "recorded twice": sum(n - 1 for n in settled.values()),
        "calls": heard.calls,
        "faults": faults,
        "kinds": dict(script.came),
        "recorded at the kill": kept,
        "served at the kill": served,
        "extra calls": heard.calls - requests - faults,
        "calls of a third run": idle,
    }


def capped(folder: Path) -> list[dict[str, Any]]:
    """What the endpoint served under each cap, beside the cap."""
    price = (READ * 1.0 + WRITTEN * 4.0) / 1e6
    rows = []
    for name, cap in (("requests", 150), ("tokens", 150 * (READ + WRITTEN)), ("money", 150 * price)):
        script = Faulty(seed=2)
        more = {"caps": {name: cap}, "prices": {"input": 1.0, "output": 4.0}}
        with endpoint(script) as heard:
            texts, _ = ask(folder / name, heard.address, 400, **more)
        billed = script.came["good"] + script.came["torn"] + script.came["time-out"] + script.came["malformed"]
        used = {"requests": heard.calls, "tokens": billed * (READ + WRITTEN), "money": billed * price}
        rows.append({"cap": name, "allowed": cap, "served": used[name], "answered": texts["text"].count()})
    return rows


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--requests", type=int, default=2000)
    given.add_argument("--asking", nargs=3, help=argparse.SUPPRESS)
    chosen = given.parse_args()
    if chosen.asking:
        folder, address, requests = chosen.asking
        ask(Path(folder), address, int(requests))
        return
    with tempfile.TemporaryDirectory(prefix="interlingua-chat-") as folder:
        found = killed_in_the_middle(chosen.requests, Path(folder) / "kill")
        caps = capped(Path(folder) / "caps")
    print(json.dumps(found, indent=1))
    for row in caps:
        print(json.dumps(row))
    good = found["right answers"] == found["requests"] and not found["recorded twice"]
    good &= found["extra calls"] <= MOST_EXTRA * found["requests"] and not found["calls of a third run"]
    good &= all(row["served"] <= row["allowed"] for row in caps)
    print("good" if good else "NOT GOOD")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
