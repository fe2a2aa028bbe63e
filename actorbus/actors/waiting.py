"""How code waits in a running node: threads block, and the pool makes up for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.waiting import Arm
    from actorbus.clock import Clock

_new_lock = threading.Lock


class ThreadWaiting:
    """Blocks the calling thread on a lock. A worker of the pool says so to the pool first."""

    def __init__(self, clock: Clock) -> None:
        # Imported with the first node: asyncio must not be a cost of importing us.
        from asyncio import _get_running_loop

        self._clock = clock
        self._running_loop = _get_running_loop
        self.before_block: Callable[[], Callable[[], None] | None] = _alone

    def may_block(self) -> bool:
        return self._running_loop() is None

    def wait(self, arm: Arm, until: float | None) -> bool:
        lock = _new_lock()
        lock.acquire()
        if not arm(lock.release):
            return True
        origin: Any = CURRENT.get()
        if origin is None or origin.cell is None:
            # A wait without time limit costs the kernel half as much as one with.
            return lock.acquire() if until is None else self._block(lock, until)
        unblocked = self.before_block()
        try:
            return lock.acquire() if until is None else self._block(lock, until)
        finally:
            if unblocked is not None:
                unblocked()

    def _block(self, lock: threading.Lock, until: float) -> bool:
        seconds = until - self._clock.now()
        if seconds <= 0:
            return lock.acquire(blocking=False)
        return lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


def _alone() -> None:
    return None
