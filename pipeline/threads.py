"""Work of torch side by side: batches on threads of their own, each of which multiplies on one.

Whole batches beside each other finish sooner than one batch split inside each operation (a core that waits for
memory in one batch multiplies in the other), and a batch's sums have one order however many run at once, so
results do not depend on the number of threads.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Protocol, TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Mapper(Protocol):
    """`map`: results of a function of jobs, in their order."""

    def __call__(self, work: Callable[[Job], Result], jobs: Iterable[Job], /) -> Iterator[Result]: ...


@contextmanager
def workers(most: int) -> Iterator[Mapper]:
    """A `map` that does as many jobs at once as torch may take threads, at most so many, each on one thread."""
    count = min(torch.get_num_threads(), most)
    with one_thread():
        yield map if count == 1 else standing(count, os.getpid()).map


@cache
def standing(count: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process that stay. Each new thread would have a heap of its own, cold, and what is freed
    in it serves no other: with new ones at every step tuning held several times what it used."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def side_by_side(work: Callable[[Job], Result], jobs: Iterable[Job], device: torch.device) -> Iterator[Result]:
    """Results of the jobs in their order; on a processor as many at once as torch may take threads."""
    if device.type != "cpu":
        yield from map(work, jobs)
        return
    with workers(torch.get_num_threads()) as at_once:
        yield from at_once(work, jobs)
