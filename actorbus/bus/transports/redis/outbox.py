"""The way out: messages wait here until their inboxes in Redis have taken them.

Whoever puts a message in does not wait for Redis; ``flush`` does. One thread sends what waits,
in batches that grow by themselves while a call is under way. While Redis is away it goes on
trying, with a pause that grows to a second, and the outbox fills up to its limit.

What somebody waits for takes a ``Shortcut`` where nothing else waits: whoever puts it in writes
it to Redis, and the thread sleeps on. What its reader was told already goes *soon*: several
together, within a few milliseconds.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.lanes import Accepted, Lanes
from actorbus.bus.transports.redis.loads import MOST_AT_ONCE
from actorbus.bus.transports.redis.shortcut import Shortcut
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from actorbus.bus.transports.redis.lanes import News, Parcel
    from actorbus.bus.transports.redis.loads import Shipped
    from actorbus.bus.transports.redis.log import InboxLog, Ring

_MOST: Final = MOST_AT_ONCE
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
_LOOK: Final = 0.005
"""Seconds after which the thread asks what became of what took the short cut, if nobody has, and
after which it sends what is to go soon."""
_MOST_ALONG: Final = 16
_ENOUGH: Final = 8
"""Messages that go soon, after which they go now."""


class Outbox:
    """Sends the messages of one producer. Safe from any thread.

    Args:
        producer: unique for this incarnation of the process: numbers begin at 1.
        limit: messages that may wait.
        told: called with what became of each, on the outbox's thread or that of who puts
            something in. It must be quick.
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
        self._soon: dict[bytes, tuple[float, Parcel]] = {}
        """What goes a little later, if it is still needed: when, by id."""
        self._needless: deque[bytes] = deque(maxlen=_MOST)
        """What of that is not needed."""
        self._along: deque[Ring] = deque(maxlen=_MOST_ALONG)
        """What is rung with what takes the short cut next."""
        self._watches_until = 0.0
        """Until when the thread looks for more of that by itself."""
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        """For the thread that sends, while it is ``asleep``."""
        self._asleep = False
        self._changed = threading.Condition(self._lock)
        """For those who wait until all is sent."""
        self._waiters: list[Callable[[], object]] = []
        self._shortcut = Shortcut(log, producer, create=create, monotonic=monotonic)
        self._sending = False
        """Whether the lanes and the short cut are the thread's: it works without the lock."""
        self._watches = False
        """Whether the thread will look by itself, soon, what there is to do."""
        self._hurried = 0
        """How many wait until all is sent."""
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

    def put_at_once(self, parcel: Parcel, *, insist: bool = False) -> bool:
        """``put`` what somebody waits for. `insist`: also past the limit.

        That is for what there is little of, and must not wait for room.
        """
        with self._lock:
            if self._closing or (self.waiting >= self._limit and not insist):
                return False
            news = self._look() if self._shortcut.busy and not self._sending else ()
            waits = self._new or self._lanes.waiting
            if self._sending or waits or self._problem is not None:
                self._new.append(parcel)
                self._wake()
            else:
                self._take_shortcut(parcel)
        self._tell(news)
        return True

    def ring_along(self, channel: str, what: bytes) -> None:
        """Ring a bell along with what takes the short cut next: a hint, that may be lost."""
        self._along.append((channel, what))

    def put_soon(self, parcel: Parcel) -> bool:
        """``put`` what its reader was told already, also past the limit, unless it is ``needless``
        before that."""
        with self._lock:
            if self._closing:
                return False
            news = self._look() if self._shortcut.busy and not self._sending else ()
            arrived = self._arrived()
            self._soon[parcel.id] = self._now() + _LOOK, parcel
            if self._asleep and not (self._watches and len(self._soon) < _ENOUGH):
                self._wake()
        self._tell(news)
        if arrived:
            self._told(Accepted(arrived))
        return True

    def needless(self, ids: Iterable[bytes]) -> None:
        """Their readers have them: what was to go soon need not go. Takes no time."""
        self._needless.extend(ids)

    def _arrived(self) -> list[Parcel]:
        """What was to go soon, and is not needed any more. The lock is held."""
        found = []
        while self._needless:
            one = self._soon.pop(self._needless.popleft(), None)
            if one is not None:
                found.append(one[1])
        return found

    def _bring_soon(self) -> None:
        """Put what was to go soon, and is needed, where it is sent."""
        with self._changed:
            arrived = self._arrived()
            all_of_it = self._lanes.waiting or self._hurried or len(self._soon) >= _ENOUGH
            now = self._now()
            for key in [key for key, (at, _) in self._soon.items() if all_of_it or at <= now]:
                self._lanes.add(self._soon.pop(key)[1])
            self._watches_until = now + _LOOK
            if not self.waiting:
                self._changed.notify_all()
        if arrived:
            self._told(Accepted(arrived))

    def _take_shortcut(self, parcel: Parcel) -> None:
        """Send it from here. If that cannot be, the thread does."""
        self._lanes.add(parcel)
        batch = self._lanes.next_batch(self._now(), 1)
        is_sent = bool(batch) and self._shortcut.send(batch[0], self._take_along())
        if not is_sent:
            self._lanes.failed()
        if not (is_sent and self._watches):
            self._wake()

    def _take_along(self) -> Sequence[Ring]:
        taken: list[Ring] = []
        while self._along and len(taken) < _MOST_ALONG:
            taken.append(self._along.popleft())
        return taken

    def _look(self) -> Sequence[News]:
        """What became of what took the short cut, if that is known by now."""
        try:
            told = self._shortcut.look()
        except TransportUnavailable:
            self._lanes.failed()
            return ()
        return () if told is None else self._lanes.answered([told], self._now())

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

    def doubt(self, seconds: float) -> None:
        """For so long, an agent that the server does not know may be one that it has lost."""
        self._lanes.doubts_until = self._now() + seconds

    @property
    def doubts(self) -> bool:
        return self._now() < self._lanes.doubts_until

    @property
    def waiting(self) -> int:
        """Messages that are not accepted yet."""
        return len(self._new) + len(self._soon) + self._lanes.waiting

    @property
    def problem(self) -> TransportUnavailable | None:
        """Why nothing is sent at present; None if that is not so."""
        return self._problem

    def flush(self, timeout: float) -> int:
        """Wait until everything put so far is accepted or refused; how many are not."""
        with self._changed:
            self._hurried += 1
            self._wake()
            self._changed.wait_for(lambda: not self.waiting, timeout)
            self._hurried -= 1
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
        return [*self._lanes.give_up(), *(one for _, one in self._soon.values()), *self._new]

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while self._wait_for_work():
            try:
                answers = self._exchange()
            except TransportUnavailable as error:
                self._problem = error
                self._lanes.failed()
                self._let_in()
                self._rest(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if answers is None:
                continue
            self._problem = None
            pause = _FIRST_PAUSE
            with self._lock:
                news = self._lanes.answered(answers, self._now())
            self._tell(news)
            with self._changed:
                if not self.waiting:
                    self._changed.notify_all()
                has_room = self.waiting < self._limit
            if has_room:
                self._let_in()
            if self._shortcut.wanted:
                self._shortcut.open()
        self._shortcut.close()

    def _exchange(self) -> Sequence[Shipped] | None:
        """What became of a batch; None if there is none."""
        if self._shortcut.busy:
            try:
                told = self._shortcut.wait()
            except TransportUnavailable:
                self._lanes.failed()
            else:
                return None if told is None else [told]
        if self._soon:
            self._bring_soon()
        batch = self._lanes.next_batch(self._now(), _MOST)
        return self._log.ship(self._producer, batch, create=self._create) if batch else None

    def _tell(self, news: Iterable[News]) -> None:
        for one in news:
            self._told(one)

    def _wait_for_work(self) -> bool:
        """Wait until there is something to send, or to hear of; False once it closes."""
        with self._lock:
            self._sending = False
            while not self._closing:
                seconds = self._until_work()
                if seconds is not None and seconds <= 0:
                    self._sending = True
                    return True
                self._asleep, self._watches = True, seconds is not None and seconds <= _LOOK
                self._work.wait(seconds)
                self._asleep = self._watches = False
            return False

    def _until_work(self) -> float | None:
        """Seconds until there is something to do; None if it is not known that there will be."""
        now = self._now()
        found: list[float] = []
        if self._soon:
            if self._hurried or len(self._soon) >= _ENOUGH:
                return 0.0
            found.append(next(iter(self._soon.values()))[0])
        elif now < self._watches_until:
            found.append(self._watches_until)
        if self._shortcut.busy:
            if self._new or self._hurried:
                return 0.0
            found.append(self._shortcut.since + _LOOK)
        else:
            while self._new:
                self._lanes.add(self._new.popleft())
            if (at := self._lanes.wakes_at()) is not None:
                found.append(at)
        return min(found) - now if found else None

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
