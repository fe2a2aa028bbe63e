"""The thread on which a node's watch callbacks run, one at a time and in order."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from actorbus.telemetry import TimerFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.telemetry import Telemetry


class WatchThread:
    """Started by the first callback. What is posted is small and bounded by those who post."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def post(self, callback: Callable[[], None]) -> None:
        """Run `callback` after everything posted before it."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="actorbus-watch", daemon=True
                )
                self._thread.start()
        self._queue.put(callback)

    def close(self, timeout: float) -> None:
        """Run what was posted, then end. Idempotent."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while (callback := self._queue.get()) is not None:
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - one watcher must not silence the others
                if self._telemetry.active:
                    self._telemetry.emit(TimerFailed(error))
