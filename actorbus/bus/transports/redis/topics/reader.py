"""The way in for events: a node reads the log of topics, for all its agents at once.

Two threads, however many agents: a *listener* hears the bell (a hint, no more), the *reader*
brings what is new, and what those need that lag, many in one round trip, and tells the server
how far its agents are. Every second, and after any trouble, it looks without having heard a bell.

What the server knows is at most 100 ms old, and newer where an agent waits for it. Where it did
not change nothing is said, but for a word a minute that the node goes on.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from actorbus.bus.transports.redis.doorbell import Doorbell
from actorbus.bus.transports.redis.ownership import Fenced
from actorbus.bus.transports.redis.topics.audience import Audience, is_like, read_back, written
from actorbus.bus.transports.redis.topics.following import ENOUGH, Following, Missed
from actorbus.bus.transports.redis.topics.log import START, Rewound, entrance, point_of, saving
from actorbus.bus.transports.redis.topics.record import Lost, Record, Rewritten
from actorbus.errors import TransportUnavailable, Undecodable
from actorbus.redis_client import encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from actorbus.bus.gap import Gap
    from actorbus.bus.routing import Route
    from actorbus.bus.transports.redis.topics.log import Broken, Entry, Point, TopicLog
    from actorbus.codec import Codec
    from actorbus.redis_client import RedisServer, Script

T = TypeVar("T")

_SWEEP: Final = 1.0
_SAVE_AFTER: Final = 0.1
_TRIM: Final = 5.0
_COUNT: Final = 256
_SIZE: Final = 1 << 20
_ALONE: Final = 16
"""Points that are read from alone, in one round trip."""
_PLACES: Final = 200_000
"""Entries times agents of one reading: while they are placed, no agent can say that it is done."""
_MANY: Final = 1_000
"""Agents in one call."""
_TRIES: Final = 3
_LONGEST_PAUSE: Final = 1.0


class Recipients(Protocol):
    """Where events go. Called on the reader's thread: it must not block."""

    def take_event(self, agents: Sequence[str], entry: Entry, now: int) -> None:
        """An event for these agents, to each in order; `now` is the server's time, in ms.

        Each tells ``TopicReader.done`` once it is over, with ``entry.id``.
        """

    def take_gap(self, agent: str, gap: Gap, gap_id: bytes) -> None:
        """An agent missed events; it tells ``done`` too, with `gap_id`."""

    def broken_event(self, broken: Broken) -> None:
        """Bytes in the log that none of us wrote; nobody gets them."""


class Entering(NamedTuple):
    """A question that ``TopicReader.enter`` wants the answer to."""

    call: tuple[Script, tuple[Any, ...]]
    rewinds: int


class TopicReader:
    """Reads for all agents of one node. Safe from any thread.

    Calls that need the server wait for their turn behind at most one reading.

    Args:
        node: this incarnation of the node, and the name under which it publishes.
        codec: packs the filters of subscriptions.
        payload: gives an entry's payload, where a filter wants to see it; may raise
            ``Undecodable``.
        sweep: seconds between two looks without a bell.
        failed: called with what went wrong, when Redis is away; it goes on trying.
    """

    def __init__(
        self,
        log: TopicLog,
        server: RedisServer,
        node: str,
        recipients: Recipients,
        *,
        codec: Codec,
        payload: Callable[[Entry], Any],
        producer: str | None = None,
        sweep: float = _SWEEP,
        failed: Callable[[TransportUnavailable], object] = lambda _: None,
        bells: bool = True,
    ) -> None:
        self._log = log
        self._server = server
        self._node = node
        self._producer = node if producer is None else producer
        self._recipients = recipients
        self._codec = codec
        self._sweep = sweep
        self._failed = failed
        self._audience = Audience(payload)
        self._record = Record(log, node)
        self._following = Following(START, START)
        self._recorded: set[Route] = set()
        """The subscriptions that the server keeps."""
        self._restored: dict[str, set[Route]] = {}
        """Those of them that nobody made here, by agent."""
        self._given: list[tuple[Entry | Missed, list[str]]] = []
        """What is to be handed over once no lock is held."""
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        """Held by who speaks to the server, and while what was read finds its recipients: so an
        agent follows from exactly where the server says."""
        self._asking = 0
        """How many others than the reader want their turn."""
        self._over: deque[tuple[str, bytes]] = deque()
        """What agents are done with, and nobody was told of yet."""
        self._woken = False
        """Whether somebody was woken since to look at it."""
        self._parking = 0
        """How many wait until agents are done with what they have."""
        self._rung = True
        self._since: float | None = None
        """Since when something is to be saved."""
        self._sweep_at = self._trim_at = 0.0
        self._now = 0
        """The server's time, in milliseconds, as of the last reading."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="actorbus-topics", daemon=True)
        self._bells = bells
        self._bell = Doorbell(
            server,
            "actorbus-topics-bell",
            channels=lambda: [log.bell],
            back=self._ring,
            rang=lambda _channel, _what: self._ring(),
        )

    def start(self) -> None:
        """Follow the log from its end on.

        Raises:
            TransportUnavailable: Redis cannot be reached.
        """
        last, mark = map(point_of, self._call("join"))
        self._following = Following(last, mark)
        self._thread.start()
        if self._bells:
            self._bell.start()

    # -- agents

    def join(self, agents: Iterable[str], *, begin: bool = True) -> None:
        """New agents get broadcasts from now on, and events once they subscribe.

        Without `begin` they get nothing before they ``begin``, and then what came meanwhile.

        Raises:
            TransportUnavailable: they may follow or not; ``join`` or ``forget`` them again.
        """
        for some in _chunks(list(agents)):
            with self._our_turn():
                last, mark = map(point_of, self._settled("join", *map(encoded, some)))
                with self._changed:
                    for agent in some:
                        self._following.add(agent, last, has_point=last != mark, begins=begin)

    def resume(self, agents: Mapping[str, str | None], *, begin: bool = True) -> dict[str, bool]:
        """Agents go on where they were, at the node that had them (None: they were ``parked``).

        What they subscribed to while they ran is in effect again. False for those that nobody
        knows (any more): they begin as if new.

        Raises:
            TransportUnavailable: they may follow or not; ``resume`` them again.
        """
        known: dict[str, bool] = {}
        for some in _chunks(list(agents.items())):
            with self._our_turn():
                words = [
                    word
                    for agent, node in some
                    for word in (encoded(agent), "" if node is None else encoded(node))
                ]
                told = self._settled("resume", *words)[1:]
                self._restore([agent for agent, _ in some])
                with self._changed:
                    for (agent, _), point, is_known in zip(
                        some, told[::2], told[1::2], strict=True
                    ):
                        at = point_of(point)
                        self._following.add(agent, at, has_point=True, begins=begin)
                        known[agent] = is_known == "1"
                    self._rung = True
                    self._changed.notify_all()
        return known

    def entering(self, agent: str) -> Entering:
        """What to ask the server, along with something else, of an agent that begins."""
        with self._changed:
            return Entering(self._log.entering(self._node, agent), self._following.rewinds)

    def enter(
        self, agent: str, asked: Entering, told: Sequence[Any], routes: Iterable[Route]
    ) -> bool:
        """A new agent gets broadcasts from when it was `asked`, and what it subscribes to.

        It costs no round trip, where the server has nothing to keep of the agent. False: it
        has, so the agent is to ``join`` or to ``resume``, and to ``declare`` its `routes`.
        """
        at = entrance(told)
        if at is None:
            return False
        for route in routes:
            self.declare(route)
        with self._changed:
            if self._following.add_new(agent, at, asked.rewinds):
                if at < self._following.read:
                    self._rung = True
                    self._changed.notify_all()
                return True
        self._audience.forget(agent)
        return False

    def begin(self, agents: Iterable[str]) -> None:
        """Agents that were to wait until their subscriptions are made get what is theirs."""
        with self._changed:
            for agent in agents:
                self._following.begin(agent)
            self._rung = True
            self._changed.notify_all()

    def park(self, agents: Iterable[str], timeout: float) -> list[str]:
        """Leave agents to whoever resumes them, exactly where they are; who took part.

        They get no more from now on. Those that are not done after `timeout` seconds with what
        they have are parked before that, and get it again.

        Raises:
            TransportUnavailable: where they are known to be is at most 16 events back.
        """
        names = list(agents)
        with self._changed:
            for agent in names:
                self._following.end(agent)
            self._parking += 1
            try:
                self._changed.wait_for(lambda: not self._in_hand(names), timeout)
            finally:
                self._parking -= 1
        parked: list[str] = []
        for some in _chunks(names):
            with self._our_turn():
                with self._changed:
                    self._settle()
                    found = {one: at for one in some if (at := self._following.point(one))}
                words = [word for one, at in found.items() for word in (encoded(one), str(at))]
                if words:
                    self._settled("park", *words)
                self._drop(found)
                parked += found
        return parked

    def forget(self, agents: Iterable[str]) -> None:
        """Agents end for good, and their subscriptions with them. Idempotent.

        Raises:
            TransportUnavailable: call it again.
        """
        for some in _chunks(list(agents)):
            with self._our_turn():
                self._drop(some)
                self._settled("forget", *map(encoded, some))

    def lost(self, agents: Iterable[str]) -> None:
        """Agents are another node's: drop them here, and say nothing to the server."""
        self._drop(list(agents))

    def done(self, agent: str, event_id: bytes) -> None:
        """An agent is done with an event or a gap; nothing happens if it does not have it in hand.

        It waits for nobody: a thousand agents may be done with an event while the next is placed.
        """
        self._over.append((agent, event_id))
        is_enough = self._since is None or self._parking or len(self._over) >= ENOUGH
        if is_enough and not self._woken:
            self._woken = True
            with self._changed:
                self._changed.notify_all()

    def _settle(self) -> None:
        """See what agents are done with."""
        self._woken = False
        while self._over:
            if self._following.done(*self._over.popleft()) and self._since is None:
                self._since = time.monotonic()

    def _in_hand(self, agents: Iterable[str]) -> bool:
        self._settle()
        return any(map(self._following.in_hand, agents))

    @property
    def lagging(self) -> frozenset[str]:
        """The agents that are so far behind that they are read for alone."""
        with self._changed:
            return self._following.lagging

    def pending(self, agent: str) -> int:
        """Events that an agent is to get or has in hand, as far as they were read."""
        with self._changed:
            self._settle()
            return self._following.waiting(agent) + self._following.in_hand(agent)

    # -- subscriptions

    def subscribe(self, route: Route) -> None:
        """In effect when it returns: what is published from then on comes, nothing before.

        It moves with the agent. One that is like another of the agent begins where that did.

        Raises:
            UnsupportedPayload: the filter holds a value that cannot be carried.
            Fenced: another node has the agent.
            TransportUnavailable: it is not in effect.
        """
        words = (encoded(route.name), written(route, self._codec))
        with self._our_turn():
            (since,) = self._settled("subscribe", *words)
            for one in [one for one in self._restored.get(route.name, ()) if is_like(one, route)]:
                self._audience.remove(one)
                self._recorded.discard(one)
                self._restored[route.name].discard(one)
            self._recorded.add(route)
            self._audience.add(route, point_of(since))

    def declare(self, route: Route) -> None:
        """A subscription of the agent's class. It costs no round trip, and is not kept.

        To be made before the agent begins: it is in effect from where that has joined or goes on.
        """
        self._audience.add(route)

    def unsubscribe(self, route: Route) -> None:
        """In effect here also where it raises. Idempotent.

        Raises:
            Fenced: another node has the agent.
            TransportUnavailable: it would be in effect again if another node resumed the agent.
        """
        is_last = self._audience.remove(route)
        if route in self._recorded and is_last:
            with self._our_turn():
                words = (encoded(route.name), written(route, self._codec))
                self._settled("unsubscribe", *words)
        self._recorded.discard(route)

    def subscriptions(self, agent: str) -> list[Route]:
        """What an agent is subscribed to here."""
        return list(self._audience.of(agent))

    def close(self, timeout: float) -> None:
        """Save how far the agents are, for at most `timeout` seconds, and end. Idempotent."""
        with self._changed:
            self._since = 0.0
            self._changed.notify_all()
            if self._thread.is_alive():
                self._changed.wait_for(lambda: self._since is None, timeout)
            self._closing = True
            self._changed.notify_all()
        self._bell.silence()
        with contextlib.suppress(TransportUnavailable):
            # Who sleeps at the bell would hear of the end a second later without this.
            self._log.ring()
        if self._thread.ident is not None:
            self._thread.join(10.0)
        self._bell.join(10.0)
        if not self._following.agents:
            with contextlib.suppress(TransportUnavailable):
                self._record.call("leave", anew=True)

    # -- calls

    @contextlib.contextmanager
    def _our_turn(self) -> Iterator[None]:
        """The reader would take one turn after another; it lets others go first."""
        with self._changed:
            self._asking += 1
        try:
            with self._turn:
                yield
        finally:
            with self._changed:
                self._asking -= 1
                self._changed.notify_all()

    def _call(self, what: str, *words: Any) -> tuple[str, ...]:
        return self._record.call(what, *words)

    def _settled(self, what: str, *words: Any) -> tuple[str, ...]:
        """A call; where the server does not know the one before, all is told anew first."""
        for _ in range(_TRIES):
            try:
                return self._call(what, *words)
            except Lost:
                self._tell_anew()
        raise TransportUnavailable(f"{self._server.shown} keeps forgetting what it was told")

    def _tell_anew(self) -> None:
        """The server lost its tail: read again, and say all that it may not know."""
        with self._changed:
            self._following.save_anew()
        self._look()
        self._save()
        self._ring()

    def _restore(self, agents: Sequence[str]) -> None:
        """Subscribe to what agents subscribed to on other nodes."""
        for agent, found in zip(agents, self._log.subscriptions(agents), strict=True):
            for data, since in found.items():
                try:
                    route = read_back(agent, data, self._codec)
                except Undecodable:
                    continue  # a newer node's, or nobody's; it stays where it is
                if not any(is_like(route, one) for one in self._audience.of(agent)):
                    self._restored.setdefault(agent, set()).add(route)
                    self._recorded.add(route)
                    self._audience.add(route, since)

    def _drop(self, agents: Iterable[str]) -> None:
        with self._changed:
            for agent in agents:
                self._following.remove(agent)
                self._recorded -= self._audience.of(agent).keys()
                self._restored.pop(agent, None)
                self._audience.forget(agent)
            self._changed.notify_all()

    # -- the reader

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or not self._asking, _SAVE_AFTER)
                if self._closing:
                    return
            try:
                with self._turn:
                    busy = self._step()
                pause = 0.0
            except TransportUnavailable as error:
                busy = True
                self._rung = True
                self._failed(error)
                pause = min(max(0.02, 2 * pause), _LONGEST_PAUSE)
            self._hand_over()
            if pause:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, random.uniform(0, pause))
            elif not busy:
                self._wait()

    def _step(self) -> bool:
        """What is to be done now. False: nothing was, and nothing is left."""
        now = time.monotonic()
        if now >= self._trim_at:
            self._log.trim(self._node, self._producer)
            self._trim_at = now + _TRIM * random.uniform(0.8, 1.0)
        saves = self._is_due(now)
        if saves:
            self._save()
        if self._rung or now >= self._sweep_at or self._some_lag():
            self._sweep_at = now + self._sweep * random.uniform(0.9, 1.0)
            self._rung = False
            if self._look():
                self._ring()
        return saves or self._rung

    def _some_lag(self) -> bool:
        """Whether somebody who lags has room for more."""
        with self._changed:
            return bool(self._following.lags(1))

    def _is_due(self, now: float) -> bool:
        with self._changed:
            self._settle()
            if self._following.hurries:
                return True
            return self._since is not None and now - self._since >= _SAVE_AFTER

    def _wait(self) -> None:
        """Wait for a bell, for something to save, or for the next look."""
        with self._changed:
            self._settle()
            if self._closing or self._rung or self._following.hurries:
                return
            until = self._sweep_at
            if self._since is not None:
                until = min(until, self._since + _SAVE_AFTER)
            self._changed.wait(max(0.0, until - time.monotonic()))

    def _look(self) -> bool:
        """One round trip: read for all, and for some that lag. Whether there may be more."""
        with self._changed:
            following = self._following
            lags = following.lags(_ALONE)
            asked: list[tuple[Point, bytes | None]] = [(following.read, following.read_id)]
            count = max(8, min(_COUNT, _PLACES // max(1, len(following.agents))))
        asked += [(point, None) for point in lags]
        common, *alone = self._log.read(asked, count=count, size=_SIZE)
        with self._changed:
            if isinstance(common, Rewound):
                self._audience.rewind(following.rewound(common))
                return True
            before = following.read
            following.came(common, self._audience)
            for (point, agents), found in zip(lags.items(), alone, strict=True):
                if not isinstance(found, Rewound):
                    following.came_alone(agents, point, found, self._audience)
            self._now = common.now
            self._given += following.hand_out()
            if (lags or following.read != before) and self._since is None:
                self._since = time.monotonic()
            return bool(common.entries or lags)

    def _save(self) -> None:
        """Tell the server how far the agents are."""
        with self._changed:
            self._settle()
            since, self._since = self._since, None
            save = self._following.to_save()
            if save is None:
                self._changed.notify_all()
                return
        try:
            self._record.call("save", *saving(save), anew=save.anew)
            if save.anew:
                self._record_again()
        except Lost:
            with self._changed:
                self._following.save_anew()
        except Rewritten:
            with self._changed:
                self._following.not_saved()
                self._rung, self._since = True, since or 0.0
        except TransportUnavailable:
            with self._changed:
                self._since = since or 0.0
            raise
        else:
            with self._changed:
                self._following.saved()
                self._given += self._following.hand_out()
                self._changed.notify_all()

    def _record_again(self) -> None:
        """The server may have lost subscriptions with its tail."""
        for route in list(self._recorded):
            since = self._audience.of(route.name).get(route)
            if since is not None:
                words = (encoded(route.name), written(route, self._codec), str(since))
                with contextlib.suppress(Fenced):
                    self._call("subscribe", *words)

    def _hand_over(self) -> None:
        with self._changed:
            given, self._given = self._given, []
            broken, self._following.broken = self._following.broken, []
        for what, agents in given:
            if isinstance(what, Missed):
                for agent in agents:
                    self._recipients.take_gap(agent, what.gap, what.id)
            else:
                self._recipients.take_event(agents, what, self._now)
        for one in broken:
            self._recipients.broken_event(one)

    def _ring(self) -> None:
        with self._changed:
            self._rung = True
            self._changed.notify_all()


def _chunks(many: list[T]) -> Iterator[list[T]]:
    return (many[start : start + _MANY] for start in range(0, len(many), _MANY))
