"""When a consumer had handled how many messages, written where the measuring process reads it.

Stamps are of ``time.monotonic``, which all processes of a machine share.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FILE: Final = "BENCH_MARKS"
MILESTONES: Final = "BENCH_MILESTONES"
_LOOK_EVERY: Final = 0.002


class Marks:
    """The consumer's side. ``handled`` is safe from any thread."""

    def __init__(self, path: str, milestones: Iterable[int]) -> None:
        self._path = path
        self._left = sorted(milestones, reverse=True)
        self._count = 0
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls) -> Marks:
        return cls(os.environ[FILE], map(int, filter(None, os.environ[MILESTONES].split(","))))

    def ready(self) -> None:
        self._write(0)

    def handled(self, messages: int = 1) -> None:
        with self._lock:
            self._count += messages
            while self._left and self._count >= self._left[-1]:
                self._write(self._left.pop())

    def _write(self, mark: int) -> None:
        with Path(self._path).open("a") as file:
            file.write(f"{mark} {time.monotonic()}\n")


class MissingMark(Exception):
    """A consumer ended early, or did not handle everything in time."""


def wait_for(path: Path, mark: int, until: float, alive: Callable[[], bool]) -> float:
    """When the consumer reached `mark`.

    Raises:
        MissingMark: it ended, or had not at `until`.
    """
    while True:
        running = alive()
        reached = dict(line.split() for line in path.read_text().splitlines())
        if (at := reached.get(str(mark))) is not None:
            return float(at)
        if not running or time.monotonic() > until:
            why = "is still short of" if running else "ended before"
            raise MissingMark(f"the consumer {why} mark {mark}; it made {', '.join(reached)}")
        time.sleep(_LOOK_EVERY)
