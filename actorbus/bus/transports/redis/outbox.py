"""The way out: messages wait here until their inboxes in Redis have taken them.

Whoever puts a message in does not wait for Redis; ``flush`` does. One thread sends what waits,
in batches that grow by themselves while a call is under way. While Redis is away it goes on
trying, with a pause that grows to a second, and the outbox fills up to its limit.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.lanes import Lanes
from actorbus.bus.transports.redis.log import MOST_AT_ONCE
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.transports.redis.lanes import News, Parcel
    from actorbus.bus.transports.redis.log import InboxLog

_MOST: Final = MOST_AT_ONCE
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


class Outbox:
    """Sends the messages of one producer. Safe from any thread.

    Args:
        producer: unique for this incarnation of the process: numbers begin at 1.
        limit: messages that may wait.
        told: called with what became of each, on the outbox's thread. It must be quick.
        create: whether inboxes are made for agents that nobody knows.
        horizon: seconds for which accepted messages are kept, to be sent again if the server
            loses its tail.
    """

    def __init__(
        self,
        log: InboxLog,
        producer: str,
        *,
        told: Callable[[News], object],
        limit: int = 100_000,
        create: bool = False,
        horizon: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._producer = producer
        self._told = told
        self._limit = limit
        self._create = create
        self._now = monotonic
        self._lanes = Lanes(horizon=horizon)
        self._new: deque[Parcel] = deque()
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        """For the thread that sends, while it is ``asleep``."""
        self._asleep = False
        self._changed = threading.Condition(self._lock)
        """For those who wait until all is sent."""
        self._waiters: list[Callable[[], object]] = []
        self._closing = False
        self._problem: TransportUnavailable | None = None
        self._thread = threading.Thread(target=self._run, name="actorbus-outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, parcel: Parcel) -> bool:
        """Send `parcel`. False: there is no room, or the outbox is closed."""
        with self._lock:
            if self._closing or len(self._new) + self._lanes.waiting >= self._limit:
                return False
            self._new.append(parcel)
            if self._asleep:
                self._wake()
        return True

    def insist(self, parcel: Parcel) -> bool:
        """``put`` past the limit: what there is little of, and must not wait. False if closed."""
        with self._lock:
            if self._closing:
                return False
            self._new.append(parcel)
            if self._asleep:
                self._wake()
        return True

    def when_room(self, waiter: Callable[[], object]) -> bool:
        """Call `waiter` once there may be room, or it is known why there is none.

        False if that is so already, or it is closed.
        """
        with self._lock:
            if self._closing or self._problem is not None or self.waiting < self._limit:
                return False
            self._waiters.append(waiter)
            return True

    def forget(self, waiter: Callable[[], object]) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    @property
    def waiting(self) -> int:
        """Messages that are not accepted yet."""
        return len(self._new) + self._lanes.waiting

    @property
    def problem(self) -> TransportUnavailable | None:
        """Why nothing is sent at present; None if that is not so."""
        return self._problem

    def flush(self, timeout: float) -> int:
        """Wait until everything put so far is accepted or refused; how many are not."""
        with self._changed:
            self._changed.wait_for(lambda: not self.waiting, timeout)
            return self.waiting

    def close(self, timeout: float) -> list[Parcel]:
        """Send what waits, for at most `timeout` seconds, and end; what was not accepted.

        Of what is returned some may be in its inbox all the same, if an answer was lost.
        """
        left = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._wake()
        self._let_in()
        if self._thread.ident is not None:
            self._thread.join(timeout if left == 0 else max(timeout, 10.0))
        return [*self._lanes.give_up(), *self._new]

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while self._wait_for_work():
            batch = self._lanes.next_batch(self._now(), _MOST)
            if not batch:
                continue
            try:
                answers = self._log.ship(self._producer, batch, create=self._create)
            except TransportUnavailable as error:
                self._problem = error
                self._lanes.failed()
                self._let_in()
                self._rest(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            self._problem = None
            pause = _FIRST_PAUSE
            with self._lock:
                news = self._lanes.answered(answers, self._now())
            for one in news:
                self._told(one)
            with self._changed:
                if not self.waiting:
                    self._changed.notify_all()
                has_room = self.waiting < self._limit
            if has_room:
                self._let_in()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to send; False once it closes."""
        with self._lock:
            while not self._closing:
                while self._new:
                    self._lanes.add(self._new.popleft())
                wakes_at = self._lanes.wakes_at()
                now = self._now()
                if wakes_at is not None and wakes_at <= now:
                    return True
                self._asleep = True
                self._work.wait(None if wakes_at is None else wakes_at - now)
                self._asleep = False
            return False

    def _wake(self) -> None:
        """Have the thread look for work, if it sleeps. The lock is held."""
        self._asleep = False
        self._work.notify()

    def _let_in(self) -> None:
        """Have whoever waits for room try again."""
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def _rest(self, pause: float) -> None:
        with self._lock:
            self._work.wait_for(lambda: self._closing, random.uniform(0, pause))
