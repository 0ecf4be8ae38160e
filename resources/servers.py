"""The web UI and the daemon of a project, on loopback, as child processes of one command.

code server (loads the definitions) <- webserver, daemon
"""

import ctypes
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 20
START_SECONDS = 120
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class ServerDied(RuntimeError):
    """A server ended that should go on; the message names it and its exit status."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def commands(port: int, code_port: int, workspace: Path, module: str) -> dict[str, list[str]]:
    """Command line of each server."""
    python = sys.executable
    return {
        "code server": [
            *(python, "-m", "dagster", "code-server", "start", "-m", module),
            *("-h", LOOPBACK, "-p", str(code_port), "--log-level", "warning"),
        ],
        "webserver": [
            *(python, "-m", "dagster_webserver", "-h", LOOPBACK, "-p", str(port)),
            *("-w", str(workspace), "--dagster-log-level", "warning"),
        ],
        "daemon": [python, "-m", "dagster._daemon", "run", "-w", str(workspace), "--log-level", "warning"],
    }


def write_workspace(state: Path, location: str, code_port: int) -> Path:
    """The file that tells webserver and daemon where the code server listens."""
    file = state / "workspace.yaml"
    server = {"host": LOOPBACK, "port": code_port, "location_name": location}
    state.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return file


@contextmanager
def serving(
    state: Path, port: int, environment: Mapping[str, str], location: str, module: str = "assets.definitions"
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run all three until the body ends. Raises ServerDied where one does not come up."""
    code_port = free_port()
    workspace = write_workspace(state, location, code_port)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands(port, code_port, workspace, module).items():
            running[name] = subprocess.Popen(
                command, env=dict(environment), start_new_session=True, preexec_fn=end_with_parent
            )
            if name == "code server":
                wait_for(code_port, running)
        wait_for(port, running)
        answering(port, running)
        yield running
    finally:
        stop(running)


def end_with_parent() -> None:
    """In a child just made: be asked to end when the parent is gone, even by SIGKILL. Linux only.

    The child listens to SIGTERM again where whoever started us had it ignored or held back: both are handed on.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_for(port: int, running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait until somebody listens on the port."""
    for _ in patience(running):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return


def answering(port: int, running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait until the webserver answers."""
    for _ in patience(running):
        try:
            urllib.request.urlopen(f"http://{LOOPBACK}:{port}/server_info", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            continue


def patience(running: Mapping[str, subprocess.Popen[bytes]]) -> Iterator[None]:
    """Turns of a bounded wait. Raises ServerDied at its end, and where a server died meanwhile."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        watch(running)
        yield
        time.sleep(0.2)
    raise ServerDied(f"no answer within {START_SECONDS} s")


def watch(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in running.items():
        if process.poll() is not None:
            raise ServerDied(f"the {name} ended with status {process.returncode}")


def stop(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Ask each to end, the last started first; make those end that do not listen."""
    for process in reversed(list(running.values())):
        if process.poll() is None:
            process.terminate()
    for process in running.values():
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
