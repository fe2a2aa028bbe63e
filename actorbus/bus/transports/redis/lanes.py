"""What a producer sends, numbered for each recipient: decisions only, no clock and no network.

Each recipient has a *lane*: messages in order, of which the first ones may be on their way.
Numbers follow from the order, so a batch whose answer was lost goes again under the same
numbers and is taken once; a message that found no room keeps all later ones of its lane behind
it. What was accepted stays in the lane's *window* for a while: if the server loses its tail, it
names the last number that it still knows, and the lane goes back to there.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.bus.transports.redis.items import item_of
from actorbus.bus.transports.redis.loads import Load, Taken, Timed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actorbus.bus.transports.redis.loads import Sent, Shipped

_PER_LANE: Final = 100
"""Messages of one lane in a batch, so that no recipient holds up the others."""
_BYTES_PER_LANE: Final = 1 << 20
"""And bytes, or one message: what finds no room goes again, and an inbox says so in bytes too."""
_BYTES: Final = 4 << 20
"""Bytes after which a batch takes no further lane: the server is everybody's meanwhile."""
_REMEMBERED: Final = 600.0
"""Seconds for which the server knows what it had of us for an agent that is gone."""
REDISCOVERY: Final = 10.0
"""Seconds that owners have to come back to a server that lost everything."""
_SWEEP: Final = 60.0
"""Seconds between two looks for lanes to forget."""
_LOOKED_AT: Final = 50
"""Lanes of such a look that each answer goes on with, and twice as many as it has lanes of its own:
so that nobody waits for long, and it keeps up with whoever sends to ever new agents."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class Parcel(NamedTuple):
    """One message to send. Times are of the lanes' clock: until when it waits for room, when it
    expires, when it is due."""

    agent: str
    level: int
    id: bytes
    blob: bytes
    deadline: float
    expires: float | None = None
    due: float | None = None
    tag: Any = None
    """The sender's own, as long as it is not known to be accepted."""


class Accepted(NamedTuple):
    """They are in their inbox."""

    parcels: Sequence[Parcel]


class Refused(NamedTuple):
    """It will not be sent: the inbox stayed full, or nobody has the name."""

    parcel: Parcel
    taken: Taken


class Hole(NamedTuple):
    """The server lost messages to an agent that are too old to be sent again."""

    agent: str
    messages: int


News = Accepted | Refused | Hole


_Bare = tuple[int, bytes, bytes, float, float | None, float | None]
"""What is kept of a parcel. A plain tuple of plain things is nothing to Python's collector, which
would look at each of a hundred thousand parcels again and again."""


class _Kept:
    """Messages of a lane that were accepted together, the first under number ``first``."""

    __slots__ = ("accepted_at", "first", "lane", "parcels")

    def __init__(
        self, lane: _Lane, first: int, parcels: Iterable[Parcel], accepted_at: float
    ) -> None:
        self.lane = lane
        self.first = first
        self.parcels: deque[_Bare] = deque([one[1:7] for one in parcels])
        self.accepted_at = accepted_at


class _Lane:
    """Messages to one agent: ``waiting`` ones get the numbers after ``accepted``.

    The first has the number `first`: above all that a lane to this agent, forgotten since, had.
    """

    __slots__ = (
        "accepted",
        "accepted_at",
        "agent",
        "base",
        "first",
        "kept",
        "missing_since",
        "on_the_way",
        "pause",
        "rests_until",
        "waiting",
        "window",
    )

    def __init__(self, agent: str, first: int) -> None:
        self.agent = agent
        self.first = first
        self.accepted = first - 1
        self.accepted_at = 0.0
        """When the server last took one."""
        self.waiting: deque[Parcel] = deque()
        self.on_the_way = 0
        """How many of the waiting are sent, and what became of them is not known yet."""
        self.window: deque[_Kept] = deque()
        self.kept = 0
        """How many messages are in the window."""
        self.missing_since: float | None = None
        """Since when the server does not know the agent any more."""
        self.base = first > 1
        """Whether the next message begins the numbering anew."""
        self.rests_until = 0.0
        self.pause = _FIRST_PAUSE


class Lanes:
    """The lanes of one producer. Not for several threads at once. Times are in seconds.

    Args:
        horizon: how long what was accepted may be sent again.
        window: of how many messages a lane, at most.
        window_bytes: and of how many bytes all lanes together.
    """

    def __init__(
        self,
        *,
        horizon: float = 10.0,
        window: int = 10_000,
        window_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._horizon = horizon
        self._window = window
        self._window_bytes = window_bytes
        self._kept: deque[_Kept] = deque()
        """What is in the windows of all lanes, the oldest first; some of it is empty by now."""
        self._kept_bytes = 0
        self._lanes: dict[str, _Lane] = {}
        self._busy: deque[_Lane] = deque()
        """Those with messages that wait, the one whose turn it is first."""
        self._batch: list[_Lane] = []
        self.waiting = 0
        """Messages that are not accepted yet."""
        self._first = 1
        """The number of a new lane's first message."""
        self._sweep_at = 0.0
        self._unlooked: list[_Lane] = []
        """Lanes that the present look has left."""
        self.doubts_until = 0.0
        """Until when an agent that the server does not know may be one that it has lost."""

    def add(self, parcel: Parcel) -> None:
        """Send `parcel` after all before it to the same agent."""
        lane = self._lanes.get(parcel.agent)
        if lane is None:
            lane = self._lanes[parcel.agent] = _Lane(parcel.agent, self._first)
        if not lane.waiting:
            self._busy.append(lane)
        lane.waiting.append(parcel)
        self.waiting += 1

    def next_batch(self, now: float, most: int) -> list[Load]:
        """What to send now: at most so many messages. The same again after ``failed``.

        Its fate must be told by ``answered`` or ``failed`` before the next.
        """
        batch: list[Load] = []
        self._batch = []
        messages = size = 0
        for _ in range(len(self._busy)):
            lane = self._busy[0]
            if lane.rests_until > now:
                self._busy.rotate(-1)
                continue
            count = lane.on_the_way or min(len(lane.waiting), _PER_LANE, most)
            if batch and (messages + count > most or size >= _BYTES):
                break  # and it is the first of the next
            self._busy.rotate(-1)
            parcels = list(islice(lane.waiting, count))
            load = _size(parcels)
            while load > _BYTES_PER_LANE and len(parcels) > 1 and not lane.on_the_way:
                del parcels[(len(parcels) + 1) // 2 :]
                load = _size(parcels)
            batch.append(_load(lane, parcels, now))
            lane.on_the_way = len(parcels)
            messages += len(parcels)
            size += load
            self._batch.append(lane)
        return batch

    def wakes_at(self) -> float | None:
        """When the first lane that rests goes on; None if none waits."""
        return min((lane.rests_until for lane in self._busy), default=None)

    def answered(self, answers: Sequence[Shipped], now: float) -> list[News]:
        """What became of the last batch, load by load."""
        news: list[News] = []
        for lane, answer in zip(self._batch, answers, strict=True):
            self._settle(lane, answer, now, news)
        self._batch = []
        self._busy = deque(lane for lane in self._busy if lane.waiting)
        self._forget_old(now)
        self._sweep(now, _LOOKED_AT + 2 * len(answers))
        return news

    def failed(self) -> None:
        """Nobody knows what became of the last batch: it goes again as it is."""
        self._batch = []

    def give_up(self) -> list[Parcel]:
        """Empty all lanes: what was not accepted, or nobody knows whether it was."""
        left = [parcel for lane in self._lanes.values() for parcel in lane.waiting]
        self._lanes.clear()
        self._busy.clear()
        self._unlooked.clear()
        self._kept.clear()
        self._batch = []
        self.waiting = 0
        return left

    def _settle(self, lane: _Lane, answer: Shipped, now: float, news: list[News]) -> None:
        lane.on_the_way = 0
        if answer.taken:
            news.append(Accepted(self._accept(lane, answer.taken, now)))
        if answer.refused is not None:
            self._refused(lane, answer.refused, now, news)
        while lane.kept > self._window:
            self._forget(lane, 1)

    def _refused(self, lane: _Lane, why: Sent, now: float, news: list[News]) -> None:
        match why.taken:
            case Taken.NO_AGENT if self._may_come_back(lane, why, now):
                self._rest(lane, now, news)
            case Taken.NO_AGENT:
                news.append(Refused(self._take(lane), Taken.NO_AGENT))
            case Taken.DROP:
                news.append(Refused(self._take(lane), Taken.FULL))
            case Taken.FULL:
                self._rest(lane, now, news)
            case _:
                if why.number < lane.accepted:
                    self._go_back(lane, why.number, now, news)

    def _may_come_back(self, lane: _Lane, answer: Sent, now: float) -> bool:
        """Whether the server has forgotten an agent that it knew: its owner says so soon."""
        if answer.number:
            return False
        if now < self.doubts_until:
            return True
        if lane.accepted < lane.first:
            return False
        if lane.missing_since is None:
            lane.missing_since = now
        return now - lane.missing_since < REDISCOVERY

    def _take(self, lane: _Lane) -> Parcel:
        self.waiting -= 1
        return lane.waiting.popleft()

    def _accept(self, lane: _Lane, count: int, now: float) -> list[Parcel]:
        take = lane.waiting.popleft
        parcels = [take() for _ in range(count)]
        self.waiting -= count
        kept = _Kept(lane, lane.accepted + 1, parcels, now)
        lane.window.append(kept)
        self._kept.append(kept)
        lane.kept += count
        self._kept_bytes += sum([len(one.blob) for one in parcels])
        lane.accepted += count
        lane.accepted_at = now
        lane.missing_since = None
        lane.base = False
        lane.pause = _FIRST_PAUSE
        return parcels

    def _rest(self, lane: _Lane, now: float, news: list[News]) -> None:
        """The inbox is full. Its first message tries again, until its deadline."""
        while lane.waiting and lane.waiting[0].deadline <= now:
            news.append(Refused(self._take(lane), Taken.FULL))
        lane.rests_until = now + lane.pause
        lane.pause = min(2 * lane.pause, _LONGEST_PAUSE)

    def _go_back(self, lane: _Lane, last: int, now: float, news: list[News]) -> None:
        """The server knows nothing after `last`: send again what is still there of that.

        One that has not heard of us for long may know another agent of that name.
        """
        again = self._kept_after(lane, last)
        first = lane.accepted + 1 - len(again)
        lane.base = first > last + 1
        missing = first - max(last + 1, lane.first)
        if missing > 0 and now - lane.accepted_at < _REMEMBERED:
            news.append(Hole(lane.agent, missing))
        lane.waiting.extendleft(reversed(again))
        self.waiting += len(again)
        lane.accepted = first - 1

    def _kept_after(self, lane: _Lane, last: int) -> list[Parcel]:
        """Take what came after number `last` out of the window."""
        again: list[Parcel] = []
        while lane.window and lane.window[-1].first + len(lane.window[-1].parcels) - 1 > last:
            kept = lane.window[-1]
            while kept.parcels and kept.first + len(kept.parcels) - 1 > last:
                again.append(Parcel(lane.agent, *kept.parcels.pop()))
            if not kept.parcels:
                lane.window.pop()
        lane.kept -= len(again)
        self._kept_bytes -= sum(len(one.blob) for one in again)
        again.reverse()
        return again

    def _forget_old(self, now: float) -> None:
        """Of all lanes, what is too old or too much: the oldest first, whosever it is."""
        kept = self._kept
        while kept:
            oldest = kept[0]
            if not oldest.parcels:
                kept.popleft()
            elif now - oldest.accepted_at > self._horizon:
                self._forget(oldest.lane, len(oldest.parcels))
            elif self._kept_bytes > self._window_bytes:
                self._forget(oldest.lane, 1)
            else:
                return

    def _sweep(self, now: float, most: int) -> None:
        """Forget those to whom nothing was sent for long: who sends to many would keep them all.

        The server may know of them for longer still, so a number is never given twice.
        """
        if now >= self._sweep_at and not self._unlooked:
            self._sweep_at = now + _SWEEP
            self._unlooked = list(self._lanes.values())
        if not self._unlooked:
            return
        for lane in self._unlooked[-most:]:
            is_idle = not (lane.waiting or lane.window)
            if is_idle and now - lane.accepted_at > _REMEMBERED:
                self._first = max(self._first, lane.accepted + 1)
                del self._lanes[lane.agent]
        del self._unlooked[-most:]

    def _forget(self, lane: _Lane, count: int) -> None:
        """The first messages of the window: no more than those that were accepted together."""
        kept = lane.window[0]
        lane.kept -= count
        for _ in range(count):
            self._kept_bytes -= len(kept.parcels.popleft()[2])
        kept.first += count
        if not kept.parcels:
            lane.window.popleft()


def _size(parcels: list[Parcel]) -> int:
    return sum([len(one[3]) for one in parcels])


def _load(lane: _Lane, parcels: list[Parcel], now: float) -> Load:
    level = parcels[0].level
    first = lane.accepted + 1
    for one in parcels:
        if one.level != level or one.expires is not None or one.due is not None:
            timed = [_timed(one, now) for one in parcels]
            return Load(lane.agent, first, level, timed=timed, base=lane.base)
    items = [item_of(one.id, one.blob) for one in parcels]
    return Load(lane.agent, first, level, items, base=lane.base)


def _timed(one: Parcel, now: float) -> Timed:
    delay = None if one.due is None or one.due <= now else one.due - now
    ttl = None if one.expires is None else one.expires - now - (delay or 0.0)
    return Timed(one.level, ttl, delay, item_of(one.id, one.blob))
