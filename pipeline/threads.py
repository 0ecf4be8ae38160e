"""Work of torch side by side: batches on threads of their own, each of which multiplies on one.

Whole batches beside each other finish sooner than one batch split inside each operation (a core that waits for
memory in one batch multiplies in the other), and a batch's sums have one order however many run at once, so
results do not depend on the number of threads.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

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


def side_by_side(work: Callable[[Job], Result], jobs: Iterable[Job], device: torch.device) -> Iterator[Result]:
    """Results of the jobs in their order; on a processor as many at once as torch may take threads."""
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    if workers == 1:
        yield from map(work, jobs)
        return
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, jobs)
