"""What waits to be published: bounded, emptied in bursts."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actorbus.bus.transports.pubsub.wire import Frame
    from actorbus.message import Message

BURST: Final = 512
"""Frames of one publish."""


class Outgoing(NamedTuple):
    channel: str
    frame: Frame
    size: int
    message: Message[Any] | None = None
    """Whoever is to be told if it gets lost."""
    barrier: bool = False
    """Word of who is where: nothing overtakes it, and it overtakes nothing."""


class Outbox:
    """Any thread puts, one takes. Frames without a message are few, and never refused."""

    def __init__(self, capacity: int, limit: int) -> None:
        self._capacity = capacity
        self._limit = limit
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._none = threading.Condition(self._lock)
        self._queue: deque[Outgoing] = deque()
        self._bytes = 0
        self._in_hand = 0
        self._waiters: list[Callable[[], object]] = []
        self._closed = False

    def put(self, outgoing: Outgoing) -> bool:
        """False if there is no room."""
        with self._lock:
            if outgoing.message is not None and self._is_full():
                return False
            self._queue.append(outgoing)
            self._bytes += outgoing.size
            if len(self._queue) == 1:
                self._some.notify()
        return True

    def take(self, timeout: float) -> list[Outgoing]:
        """What waits, at most a few publishes of it; call ``done`` when it is out."""
        with self._lock:
            if not self._queue and not self._closed:
                self._some.wait(timeout)
            taken: list[Outgoing] = []
            size = 0
            while self._queue and len(taken) < 4 * BURST and size <= self._limit:
                taken.append(self._queue.popleft())
                size += taken[-1].size
            self._bytes -= size
            self._in_hand = len(taken)
            waiters: list[Callable[[], object]] = []
            if not self._is_full():
                waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()
        return taken

    def done(self) -> None:
        with self._lock:
            self._in_hand = 0
            if not self._queue:
                self._none.notify_all()

    @property
    def waiting(self) -> int:
        """Frames that are not out."""
        return len(self._queue) + self._in_hand

    def flush(self, timeout: float) -> int:
        """Wait until all is out; how many are not."""
        with self._lock:
            self._none.wait_for(lambda: not self.waiting, timeout)
            return self.waiting

    def when_room(self, waiter: Callable[[], object]) -> bool:
        with self._lock:
            if not self._is_full():
                return False
            self._waiters.append(waiter)
            return True

    def forget(self, waiter: Callable[[], object]) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def close(self) -> list[Outgoing]:
        """What was never taken."""
        with self._lock:
            self._closed = True
            left = list(self._queue)
            self._queue.clear()
            self._bytes = 0
            self._some.notify_all()
            self._none.notify_all()
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()
        return left

    def _is_full(self) -> bool:
        return len(self._queue) >= self._capacity or self._bytes >= self._limit


def batches(burst: Sequence[Outgoing], limit: int) -> Iterator[list[Outgoing]]:
    """What goes out as one publish each: by channel, at most ``BURST`` frames or `limit` bytes."""
    open_: dict[str, tuple[list[Outgoing], int]] = {}
    for one in burst:
        if one.barrier:
            yield from (batch for batch, _ in open_.values())
            open_ = {}
            yield [one]
            continue
        batch, size = open_.get(one.channel, ([], 0))
        if batch and (len(batch) >= BURST or size + one.size > limit):
            yield batch
            batch, size = [], 0
        batch.append(one)
        open_[one.channel] = (batch, size + one.size)
    yield from (batch for batch, _ in open_.values())
