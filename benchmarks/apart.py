"""A function in a process of its own, and the most memory that the process held."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


def apart(work: Callable[..., Result], *given: Any) -> tuple[Result, float]:
    """What work(*given) returns, and its process's peak memory in MB, libraries and arguments included."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(watched, work, *given).result()


def watched(work: Callable[..., Result], *given: Any) -> tuple[Result, float]:
    result = work(*given)
    return result, peak_memory()


def peak_memory() -> float:
    """MB that this process held at most. Not getrusage's figure, which begins with the parent's."""
    facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(facts["VmHWM"].split()[0]) / 1024
