"""How code waits in a running node: threads block, and the pool makes up for it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.waiting import Arm
    from actorbus.clock import Clock


class ThreadWaiting:
    """Blocks the calling thread on a lock. A worker of the pool says so to the pool first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.before_block: Callable[[], Callable[[], None] | None] = _alone

    def may_block(self) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return True
        return False

    def wait(self, arm: Arm, until: float) -> bool:
        lock = threading.Lock()
        lock.acquire()
        if not arm(lock.release):
            return True
        seconds = until - self._clock.now()
        if seconds <= 0:
            return lock.acquire(blocking=False)
        origin: Any = CURRENT.get()
        if origin is None or getattr(origin, "cell", None) is None:
            return lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        unblocked = self.before_block()
        try:
            return lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        finally:
            if unblocked is not None:
                unblocked()


def _alone() -> None:
    return None
