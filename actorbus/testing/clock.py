"""A clock that tests turn by hand."""

from __future__ import annotations

import heapq
import threading
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.clock import Timer


class _ManualTimer:
    __slots__ = ("callback", "order", "when")

    def __init__(self, when: float, order: int, callback: Callable[[], object]) -> None:
        self.when = when
        self.order = order
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: _ManualTimer) -> bool:
        return (self.when, self.order) < (other.when, other.order)

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Node time that stands still until ``advance``. Timers run on the thread that turns it.

    A callback that raises does so out of ``advance``.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._seconds = 0.0
        self.monotonic: Callable[[], float] = lambda: self._seconds
        self.offset = start
        self._heap: list[_ManualTimer] = []
        self._order = count()
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._seconds + self.offset

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        timer = _ManualTimer(when, next(self._order), callback)
        with self._lock:
            heapq.heappush(self._heap, timer)
        return timer

    def next_due(self) -> float | None:
        """Node time of the next timer; None if there is none."""
        with self._lock:
            while self._heap and self._heap[0].callback is None:
                heapq.heappop(self._heap)
            return self._heap[0].when if self._heap else None

    def advance(self, seconds: float) -> None:
        """Turn the clock on by `seconds`, calling each timer at its own time on the way."""
        target = self._seconds + seconds
        while (due := self.next_due()) is not None and due - self.offset <= target:
            with self._lock:
                timer = heapq.heappop(self._heap)
            self._seconds = max(self._seconds, timer.when - self.offset)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._seconds = target

    def close(self) -> None:
        with self._lock:
            self._heap.clear()
