"""How code waits in a running node: threads block, and the pool makes up for it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.waiting import Arm, Hearing, Settling
    from actorbus.clock import Clock
    from actorbus.message import MessageId

_new_lock = threading.Lock

_SPIN: Final = 100e-6
"""Seconds: what it costs to fall asleep and to be woken on another core. Who spins for no longer
than that pays at most twice the least (Karlin, Manasse, McGeoch, Owicki 1990)."""


class ThreadWaiting:
    """Blocks the calling thread on a lock. A worker of the pool says so to the pool first."""

    def __init__(self, clock: Clock) -> None:
        # Imported with the first node: asyncio must not be a cost of importing us.
        from asyncio import _get_running_loop

        self._clock = clock
        self._spinning = False
        self._give_way: Callable[[], object] | None = getattr(os, "sched_yield", None)
        self._running_loop = _get_running_loop
        self.before_block: Callable[[], Callable[[], None] | None] = _alone
        self.hearing: Hearing | None = None
        """What comes from other nodes, where a thread that waits for it can hear it."""

    def may_block(self) -> bool:
        return self._running_loop() is None

    def spin(self, awaited: Settling) -> bool:
        give_way = self._give_way
        if give_way is None or self._spinning:
            # Two that spin take the interpreter from each other.
            return False
        self._spinning = True
        try:
            until = time.monotonic() + _SPIN
            while not awaited.settled:
                if time.monotonic() > until:
                    return False
                give_way()
            return True
        finally:
            self._spinning = False

    def wait(self, arm: Arm, until: float | None, *, answers: MessageId | None = None) -> bool:
        origin: Any = CURRENT.get()
        if origin is None or origin.cell is None:
            return self._wait(arm, until, answers)
        unblocked = self.before_block()
        try:
            return self._wait(arm, until, answers)
        finally:
            if unblocked is not None:
                unblocked()

    def _wait(self, arm: Arm, until: float | None, answers: MessageId | None) -> bool:
        if answers is not None and self.hearing is not None:
            seconds = None if until is None else until - self._clock.now()
            happened = self.hearing.wait(arm, seconds, answers)
            if happened is not None:
                return happened
        lock = _new_lock()
        lock.acquire()
        if not arm(lock.release):
            return True
        # A wait without time limit costs the kernel half as much as one with.
        return lock.acquire() if until is None else self._block(lock, until)

    def _block(self, lock: threading.Lock, until: float) -> bool:
        seconds = until - self._clock.now()
        if seconds <= 0:
            return lock.acquire(blocking=False)
        return lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


def _alone() -> None:
    return None
