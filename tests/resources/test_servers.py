"""Servers of the UI: their commands, and what is said when one dies."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from resources import servers

PARENT = """
import subprocess, sys, time
from resources.servers import end_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=end_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""


def sleeper(seconds: float = 60) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])


def test_everything_listens_on_loopback(tmp_path: Path) -> None:
    commands = servers.commands(3000, 4000, tmp_path / "workspace.yaml", "assets.definitions")
    assert set(commands) == {"code server", "webserver", "daemon"}
    for name in ("code server", "webserver"):
        assert commands[name][commands[name].index("-h") + 1] == "127.0.0.1"
    assert not [command for command in commands.values() if command[2:4] == ["dagster", "dev"]]  # superseded


def test_the_workspace_leads_to_the_code_server(tmp_path: Path) -> None:
    file = servers.write_workspace(tmp_path / "state", "interlingua", 4321)
    assert yaml.safe_load(file.read_text()) == {
        "load_from": [{"grpc_server": {"host": "127.0.0.1", "port": 4321, "location_name": "interlingua"}}]
    }


def test_a_port_in_use_is_seen_and_a_free_one_is_free() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        assert servers.taken(holder.getsockname()[1])
    assert not servers.taken(servers.free_port())


def test_a_server_that_dies_is_named_with_its_status() -> None:
    dead = subprocess.Popen([sys.executable, "-c", "raise SystemExit(4)"])
    dead.wait()
    with pytest.raises(servers.ServerDied, match="the webserver ended with status 4"):
        servers.watch({"webserver": dead})


def test_waiting_for_a_server_that_dies_ends() -> None:
    with sleeper(0.2) as process, pytest.raises(servers.ServerDied, match="the daemon ended"):
        servers.wait_for(servers.free_port(), {"daemon": process})


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "START_SECONDS", 0.5)
    with pytest.raises(servers.ServerDied, match="no answer"):
        servers.wait_for(servers.free_port(), {})


def test_waiting_ends_once_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        servers.wait_for(listener.getsockname()[1], {})


def test_stopping_ends_all_even_one_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "STOP_SECONDS", 1)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    stubborn = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    stubborn.stdout.readline()
    running = {"a": sleeper(), "b": stubborn}
    servers.stop(running)
    assert all(process.poll() is not None for process in running.values())
    stubborn.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="children outlive a killed parent elsewhere")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_a_parent_that_was_killed(how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, preexec_fn=servers.end_with_parent
    )
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(how)
    parent.communicate(timeout=20)
    gone, alive = psutil.wait_procs([child], timeout=20)
    assert (len(gone), alive) == (1, [])


@pytest.mark.skipif(sys.platform != "linux", reason="children outlive a killed parent elsewhere")
@pytest.mark.parametrize("deaf", ["signal(SIGTERM, SIG_IGN)", "pthread_sigmask(SIG_BLOCK, {SIGTERM})"])
def test_a_server_ends_with_a_parent_that_does_not_listen_itself(deaf: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from signal import *; {deaf}\n{PARENT}"], stdout=subprocess.PIPE, text=True
    )
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate(timeout=20)
    gone, alive = psutil.wait_procs([child], timeout=20)
    assert (len(gone), alive) == (1, [])


def test_nothing_is_left_running_when_a_server_does_not_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def commands(*_: object) -> dict[str, list[str]]:
        return {"code server": [sys.executable, "-c", "raise SystemExit(5)"]}

    start = subprocess.Popen
    monkeypatch.setattr(servers, "commands", commands)
    monkeypatch.setattr(
        servers.subprocess, "Popen", lambda *a, **k: started.append(start(*a, **k)) or started[-1]
    )
    with (
        pytest.raises(servers.ServerDied, match="code server ended with status 5"),
        servers.serving(tmp_path, servers.free_port(), {}, "interlingua"),
    ):
        pass
    assert [process.poll() for process in started] == [5]
