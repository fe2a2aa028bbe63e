"""The ring: where records of history wait in memory, between senders and the one writer.

Senders only append, after one look at how much room there is. When the ring is full, they wait
until it is half empty: letting them in one by one would have them fight the writer for Python's
lock at every record. ``pressure.py`` says who does what when the database fails.

Pauses are node time. Waiting for room counts real seconds: it waits for a disk, perhaps on the
very thread that turns the clock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from actorbus.persistence.batches import Ticket, Waiting
from actorbus.persistence.pressure import CROWDED, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.clock import Clock
    from actorbus.persistence.rows import Outcome

T = TypeVar("T")


class Window(NamedTuple):
    """All that waited at one time, and the marks of who waits until it is written."""

    sent: Sequence[Waiting]
    endings: Sequence[Outcome]
    marks: Sequence[threading.Event]


class Ring:
    """Records that wait, at most `limit`. Safe from any thread; one writer takes them out.

    `spills`: the writer has a disk to put them on. `strict`: tickets are among them.
    """

    def __init__(self, limit: int, *, clock: Clock, spills: bool, strict: bool) -> None:
        self.sent: deque[Waiting] = deque()
        self.endings: deque[Outcome] = deque()
        self.limit = limit
        self.room = limit
        """How many records may wait before a sender has to."""
        self.asleep = False
        """Whether the writer waits for the first record, and wants to be woken."""
        self.trouble = Trouble()
        self._clock = clock
        self._spills = spills
        self._strict = strict
        # What follows changes under this condition only.
        self._changed = threading.Condition()
        self.in_flight = 0
        """Records that the writer took and has not written yet."""
        self.closing = False
        self.abandoned = threading.Event()
        """Set once nobody waits any longer for the database."""
        self._shut = False
        self._hurried = False
        self._gone = False
        self._marks: list[threading.Event] = []

    # -- senders

    def queued(self) -> int:
        return len(self.sent) + len(self.endings)

    def waiting(self) -> int:
        return self.queued() + self.in_flight

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until there is room; False if there was none in time, or it is closing.

        On an event loop this waits no longer once nothing takes records.
        """
        deadline = time.monotonic() + timeout
        patient = not _on_a_loop()
        with self._changed:
            while not self.closing and self.queued() >= self.room:
                if self._room_but_for_alarm():
                    return True
                left = deadline - time.monotonic()
                if left <= 0 or not (patient or not self.trouble.blocked):
                    return False
                if not self._shut:  # others may have taken the room that this one waited for
                    self._shut = True
                    self.room = 0
                    self._hurried = self._hurried or not self.trouble.blocked
                    self._changed.notify_all()
                self._changed.wait(left)
            return not self.closing

    def _room_but_for_alarm(self) -> bool:
        """Whether only the mark was reached at which the writer wants to spill: call it."""
        room = self.limit - self.in_flight
        if self.closing or self._shut or not self.trouble.database or self.queued() >= room:
            return False
        self.room = room
        self._hurried = True
        self._changed.notify_all()
        return True

    def wake(self) -> None:
        with self._changed:
            self.asleep = False
            self._changed.notify_all()

    def hurry(self) -> None:
        """Have the writer take what waits without waiting for more."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def mark(self) -> threading.Event:
        """Set once all that was recorded so far is written."""
        written = threading.Event()
        with self._changed:
            self._marks.append(written)
        self.hurry()
        return written

    def close(self) -> None:
        """Let no more messages in; endings still come."""
        with self._changed:
            self.closing = True
            self.room = 0
            self._changed.notify_all()

    def abandon(self) -> None:
        """Wait no longer for the database."""
        with self._changed:
            self.abandoned.set()
            self._changed.notify_all()

    def too_late(self) -> bool:
        """Whether records came after the writer had left."""
        with self._changed:
            return self._gone and self.queued() > 0

    # -- the writer

    def next(self, interval: float) -> Window | None:
        """Wait for records, and `interval` for company; None once all is taken and closed."""
        with self._changed:
            self._wait_for_first()
            if self.closing and not self.queued() and not self._marks:
                self._gone = True
                return None
            if not self._urgent():
                self._pause(interval)
            self._hurried = False
            return self._take()

    def take(self) -> Window:
        """All that waits now."""
        with self._changed:
            return self._take()

    def settle(self, records: int) -> None:
        """Some of the records in flight are written, or on the disk."""
        with self._changed:
            self.in_flight = max(0, self.in_flight - records)
            self._make_room()

    def reconsider(self) -> None:
        """The trouble changed: so may the room, and who waits for it."""
        with self._changed:
            self._make_room()
            self._changed.notify_all()

    def refuse_tickets(self, why: str) -> None:
        """Fail the sends that wait for what nobody took yet."""
        if not self._strict:
            return
        for record in self.sent.copy():
            if isinstance(record, Ticket) and record.begin():
                record.refuse(why)

    def rest(self, pause: float) -> None:
        """Wait for a better moment, or for the alarm that the ring fills."""
        with self._changed:
            self._pause(pause)
            if self.closing:
                self._changed.wait_for(self.abandoned.is_set, timeout=pause)
            self._hurried = False

    def leave(self) -> None:
        """The writer takes no more."""
        with self._changed:
            self._gone = True

    def _take(self) -> Window:
        # In this order: whatever ended was sent before.
        endings = _emptied(self.endings)
        sent = _emptied(self.sent)
        marks, self._marks = self._marks, []
        self.in_flight += len(sent) + len(endings)
        self._make_room()
        return Window(sent, endings, marks)

    def _urgent(self) -> bool:
        """Whether somebody waits for what is in the ring."""
        return bool(self._marks or self._shut) or (
            self._strict and any(record.__class__ is Ticket for record in self.sent.copy())
        )

    def _wait_for_first(self) -> None:
        while not (self.queued() or self._marks or self.closing):
            self.asleep = True
            # A sender looks at `asleep` after it appended: one of the two sees the other.
            if not self.queued():
                self._changed.wait()
            self.asleep = False

    def _pause(self, seconds: float) -> None:
        """Wait, unless somebody is in a hurry."""
        if self._hurried or self.closing:
            return
        timer = self._clock.call_at(self._clock.now() + seconds, self.hurry)
        self._changed.wait_for(lambda: self._hurried or self.closing)
        timer.cancel()

    def _make_room(self) -> None:
        if self.closing:
            return
        if self._shut and len(self.sent) + self.in_flight > self.limit // 2:
            return
        self.room = self.limit - self.in_flight
        if self.trouble.database and not self.trouble.blocked and self._spills:
            self.room = int(self.limit * CROWDED) - self.in_flight
        if self._shut:
            self._shut = False
            self._changed.notify_all()


def _emptied(waiting: deque[T]) -> list[T]:
    """All that is there now; only the writer takes anything out."""
    return [waiting.popleft() for _ in range(len(waiting))]


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
