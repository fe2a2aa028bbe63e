"""Time: one reading of the monotonic clock, and timers.

*Node time* is the monotonic clock plus an offset taken once, so it reads like seconds since
the epoch and never jumps when somebody sets the wall clock. Everything in a node is on it:
messages, deadlines, timers, heartbeats.
"""

from __future__ import annotations

import heapq
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPACT_ABOVE: Final = 1_000


class Timer(Protocol):
    """Something that will be called once."""

    def cancel(self) -> None:
        """Never call it, if it was not called yet. Idempotent."""


class Clock(Protocol):
    """Node time and timers. ``monotonic() + offset`` is ``now()`` without the call."""

    monotonic: Callable[[], float]
    offset: float

    def now(self) -> float:
        """Node time, in seconds."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once at node time `when`, or at once if that has passed.

        Callbacks run one at a time on the clock's own thread and must not block. One that
        raises goes to ``on_error`` and hurts no other.
        """

    def close(self) -> None:
        """Drop every timer. Idempotent."""


class _Entry:
    """One timer of ``SystemClock``; a cancelled one stays in the heap until it is reached."""

    __slots__ = ("_clock", "callback", "order", "when")

    def __init__(
        self, clock: SystemClock, when: float, order: int, callback: Callable[[], object]
    ) -> None:
        self._clock = clock
        self.when = when
        self.order = order
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: _Entry) -> bool:
        return (self.when, self.order) < (other.when, other.order)

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._clock._forget()


class SystemClock:
    """The real clock. Its timer thread starts with the first timer."""

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        self.monotonic: Callable[[], float] = time.monotonic
        self.offset: float = time.time() - time.monotonic()
        self.on_error = on_error or _report
        self._changed = threading.Condition()
        self._heap: list[_Entry] = []
        self._cancelled = 0
        self._order = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def now(self) -> float:
        return self.monotonic() + self.offset

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        entry = _Entry(self, when, next(self._order), callback)
        with self._changed:
            if self._closed:
                entry.callback = None
                return entry
            heapq.heappush(self._heap, entry)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="actorbus-timers", daemon=True
                )
                self._thread.start()
            elif self._heap[0] is entry:
                self._changed.notify()
        return entry

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _forget(self) -> None:
        with self._changed:
            self._cancelled += 1
            if self._cancelled > _COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry.callback is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _run(self) -> None:
        while True:
            with self._changed:
                entry = self._next_due()
                if entry is None:
                    return
                callback, entry.callback = entry.callback, None
            if callback is None:
                continue
            try:
                callback()
            except BaseException as error:  # noqa: BLE001 - a timer must not end the others
                self.on_error(error)

    def _next_due(self) -> _Entry | None:
        """Wait for the next timer; None once the clock is closed. The lock is held."""
        while not self._closed:
            if not self._heap:
                self._changed.wait()
                continue
            first = self._heap[0]
            if first.callback is None:
                heapq.heappop(self._heap)
                self._cancelled = max(0, self._cancelled - 1)
                continue
            wait = first.when - self.now()
            if wait <= 0:
                return heapq.heappop(self._heap)
            self._changed.wait(min(wait, threading.TIMEOUT_MAX))
        return None


def _report(error: BaseException) -> None:
    threading.excepthook(
        threading.ExceptHookArgs(
            (type(error), error, error.__traceback__, threading.current_thread())
        )
    )
