"""Progress of long work: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger("interlingua")
SECONDS_BETWEEN_LINES = 20.0


class Meter:
    """Counts work done; `advance(n)` after each piece, `note` shows beside the bar."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self.started = self.last_line = time.monotonic()

    def advance(self, n: int = 1, note: str | None = None) -> None:
        self.done += n
        self.note = self.note if note is None else note
        now = time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (now - self.started) / max(self.done, 1) * max(self.total - self.done, 0)
            log.info("%s: %d of %d, about %.0f s left %s", self.label, self.done, self.total, left, self.note)


class Bar(Meter):
    """A meter drawn with rich, for a person at a terminal."""

    def __init__(self, label: str, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(label, total)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), transient=True)
        self.task = self.bar.add_task(label, total=total, note="")
        self.bar.start()

    def advance(self, n: int = 1, note: str | None = None) -> None:
        self.done += n
        self.note = self.note if note is None else note
        self.bar.update(self.task, advance=n, note=self.note)


@contextmanager
def meter(label: str, total: int) -> Iterator[Meter]:
    """Open a meter for `total` pieces of work; a terminal gets a bar that clears itself."""
    if not sys.stderr.isatty():
        yield Meter(label, total)
        return
    bar = Bar(label, total)
    try:
        yield bar
    finally:
        bar.bar.stop()


def track(things: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield each thing and count it."""
    with meter(label, total) as counting:
        for thing in things:
            yield thing
            counting.advance()
