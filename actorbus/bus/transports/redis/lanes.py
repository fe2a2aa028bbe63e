"""What a producer sends, numbered for each recipient: decisions only, no clock and no network.

Each recipient has a *lane*: messages in order, of which the first ones may be on their way.
Numbers follow from the order, so a batch whose answer was lost goes again under the same
numbers and is taken once; a message that found no room keeps all later ones of its lane behind
it. What was accepted stays in the lane's *window* for a while: if the server loses its tail, it
names the last number that it still knows, and the lane goes back to there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.bus.transports.redis.log import Outgoing, Taken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actorbus.bus.transports.redis.log import Sent

_PER_LANE: Final = 100
"""Messages of one lane in a batch, so that no recipient holds up the others."""
_REMEMBERED: Final = 600.0
"""Seconds for which the server knows what it had of us for an agent that is gone."""
_REDISCOVERY: Final = 10.0
"""Seconds that owners have to come back to a server that lost everything."""
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
    """The sender's own."""


class Accepted(NamedTuple):
    """It is in the inbox."""

    parcel: Parcel


class Refused(NamedTuple):
    """It will not be sent: the inbox stayed full, or nobody has the name."""

    parcel: Parcel
    taken: Taken


class Hole(NamedTuple):
    """The server lost messages to an agent that are too old to be sent again."""

    agent: str
    messages: int


News = Accepted | Refused | Hole


class _Lane:
    """Messages to one agent: ``waiting`` ones get the numbers after ``accepted``."""

    __slots__ = (
        "accepted",
        "accepted_at",
        "agent",
        "base",
        "missing_since",
        "on_the_way",
        "pause",
        "rests_until",
        "waiting",
        "window",
    )

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.accepted = 0
        self.accepted_at = 0.0
        """When the server last took one."""
        self.waiting: deque[Parcel] = deque()
        self.on_the_way = 0
        """How many of the waiting are sent, and what became of them is not known yet."""
        self.window: deque[tuple[int, Parcel, float]] = deque()
        self.missing_since: float | None = None
        """Since when the server does not know the agent any more."""
        self.base = False
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
        self._kept_bytes = 0
        self._lanes: dict[str, _Lane] = {}
        self._busy: deque[_Lane] = deque()
        """Those with messages that wait, the one whose turn it is first."""
        self._batch: list[tuple[_Lane, int]] = []
        self.waiting = 0
        """Messages that are not accepted yet."""

    def add(self, parcel: Parcel) -> None:
        """Send `parcel` after all before it to the same agent."""
        lane = self._lanes.get(parcel.agent)
        if lane is None:
            lane = self._lanes[parcel.agent] = _Lane(parcel.agent)
        if not lane.waiting:
            self._busy.append(lane)
        lane.waiting.append(parcel)
        self.waiting += 1

    def next_batch(self, now: float, most: int) -> list[Outgoing]:
        """What to send now: at most so many messages. The same again after ``failed``.

        Its fate must be told by ``answered`` or ``failed`` before the next.
        """
        batch: list[Outgoing] = []
        self._batch = []
        for _ in range(len(self._busy)):
            lane = self._busy[0]
            self._busy.rotate(-1)
            if lane.rests_until > now:
                continue
            count = lane.on_the_way or min(len(lane.waiting), _PER_LANE)
            if batch and len(batch) + count > most:
                break
            count = min(count, most) if not lane.on_the_way else count
            batch += self._numbered(lane, count, now)
            lane.on_the_way = count
            self._batch.append((lane, count))
        return batch

    def wakes_at(self) -> float | None:
        """When the first lane that rests goes on; None if none waits."""
        return min((lane.rests_until for lane in self._busy), default=None)

    def answered(self, answers: Sequence[Sent], now: float) -> list[News]:
        """What became of the last batch."""
        news: list[News] = []
        at = 0
        for lane, count in self._batch:
            self._settle(lane, answers[at : at + count], now, news)
            at += count
        self._batch = []
        self._busy = deque(lane for lane in self._busy if lane.waiting)
        return news

    def failed(self) -> None:
        """Nobody knows what became of the last batch: it goes again as it is."""
        self._batch = []

    def give_up(self) -> list[Parcel]:
        """Empty all lanes: what was not accepted, or nobody knows whether it was."""
        left = [parcel for lane in self._lanes.values() for parcel in lane.waiting]
        self._lanes.clear()
        self._busy.clear()
        self._batch = []
        self.waiting = 0
        return left

    def _numbered(self, lane: _Lane, count: int, now: float) -> Iterator[Outgoing]:
        for offset in range(count):
            one = lane.waiting[offset]
            delay = None if one.due is None or one.due <= now else one.due - now
            ttl = None if one.expires is None else one.expires - now - (delay or 0.0)
            yield Outgoing(
                lane.agent,
                lane.accepted + 1 + offset,
                one.level,
                one.id,
                one.blob,
                ttl,
                delay,
                lane.base and offset == 0,
            )

    def _settle(self, lane: _Lane, answers: Sequence[Sent], now: float, news: list[News]) -> None:
        lane.on_the_way = 0
        for answer in answers:
            if answer.taken is Taken.OK:
                news.append(Accepted(self._accept(lane, now)))
            elif answer.taken is Taken.NO_AGENT and self._may_come_back(lane, answer, now):
                self._rest(lane, now, news)
                break
            elif answer.taken is Taken.NO_AGENT:
                news.append(Refused(self._take(lane), Taken.NO_AGENT))
                break
            elif answer.taken is Taken.DROP:
                news.append(Refused(self._take(lane), Taken.FULL))
                break
            elif answer.taken is Taken.FULL:
                self._rest(lane, now, news)
                break
            else:
                if answer.number < lane.accepted:
                    self._go_back(lane, answer.number, now, news)
                break
        self._forget_old(lane, now)

    def _may_come_back(self, lane: _Lane, answer: Sent, now: float) -> bool:
        """Whether the server has forgotten an agent that it knew: its owner says so soon."""
        if answer.number or not lane.accepted:
            return False
        if lane.missing_since is None:
            lane.missing_since = now
        return now - lane.missing_since < _REDISCOVERY

    def _take(self, lane: _Lane) -> Parcel:
        self.waiting -= 1
        return lane.waiting.popleft()

    def _accept(self, lane: _Lane, now: float) -> Parcel:
        parcel = self._take(lane)
        lane.accepted += 1
        lane.accepted_at = now
        lane.missing_since = None
        lane.base = False
        lane.pause = _FIRST_PAUSE
        lane.window.append((lane.accepted, parcel, now))
        self._kept_bytes += len(parcel.blob)
        return parcel

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
        again = [(number, parcel) for number, parcel, _ in lane.window if number > last]
        first = again[0][0] if again else lane.accepted + 1
        if first > last + 1:
            if now - lane.accepted_at < _REMEMBERED:
                news.append(Hole(lane.agent, first - last - 1))
            lane.base = True
        lane.waiting.extendleft(parcel for _, parcel in reversed(again))
        self.waiting += len(again)
        lane.accepted = first - 1
        while lane.window and lane.window[-1][0] > last:
            self._kept_bytes -= len(lane.window.pop()[1].blob)

    def _forget_old(self, lane: _Lane, now: float) -> None:
        window = lane.window
        while window and (
            now - window[0][2] > self._horizon
            or len(window) > self._window
            or self._kept_bytes > self._window_bytes
        ):
            self._kept_bytes -= len(window.popleft()[1].blob)
