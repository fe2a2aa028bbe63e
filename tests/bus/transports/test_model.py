"""Every transport against one plain model, by the same rules: in memory, and on fakeredis.

Agents here do nothing by themselves: one rule takes a message, and another ends it. The model
knows where every message must be, and how it has to end. Where nodes survive, they also die,
agents move, and answers of the server are lost.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import fakeredis
import redis.exceptions
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from actorbus.actors.waiting import ThreadWaiting
from actorbus.bus.bus import Bus
from actorbus.bus.mailbox import Mailbox, MailboxPolicy
from actorbus.bus.transports.memory import MemoryTransport
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.transport import RedisTransport
from actorbus.clock import SystemClock
from actorbus.codec import Codec, TypeBook
from actorbus.errors import MailboxFull, NameTaken, UnknownRecipient
from actorbus.message import MessageId, MessageKind, Priority, Reason, envelope
from actorbus.redis_client import RedisServer
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from actorbus.bus.transport import Transport
    from actorbus.message import Message

EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "20"))
CAPACITY = 6
NAMES = {"a", "b"}
DEADLINE = 10.0
HANDLED, EITHER = "handled", "either"
SOON = 0.03
"""Seconds after which what is sent for soon expires, or is due."""
EARLY = 0.005
"""Seconds by which clocks may differ: node time, and the server's in whole milliseconds."""

names = st.sampled_from(sorted(NAMES))
stations = st.integers(0, 1)
levels = st.sampled_from(Priority)
chances = st.integers(0, CAPACITY)
"""Which of some there may be. Nothing is drawn from what is there: that depends on threads."""


@dataclass(eq=False)
class Sent:
    """A message that was accepted, and what is known of it."""

    number: int
    id: MessageId
    level: Priority
    expires: float | None = None
    due: float | None = None
    ended: Reason | str | None = None
    letters: set[Reason] = field(default_factory=set)
    """Why it may be a dead letter."""
    may_come_again: bool = False
    """Whether it ended at a node that died, which may not have said so."""

    def ends_for_want_of_an_agent(self) -> None:
        """With it, or after it."""
        self.ended = EITHER
        self.letters = {Reason.STOPPED, Reason.NO_SUCH_AGENT}


class Mail:
    """The model of what lies in one inbox: by level and in order, whatever was accepted."""

    def __init__(self, put_off: list[Sent]) -> None:
        self.levels: dict[Priority, list[Sent]] = {level: [] for level in Priority}
        self.put_off = put_off
        """What gets its place only when it is due."""
        self._acknowledged = dict.fromkeys(Priority, 0)
        """How many of each level are acknowledged for certain."""

    def __iter__(self) -> Iterator[Sent]:
        return (one for queue in self.levels.values() for one in queue)

    @property
    def unacknowledged(self) -> int:
        """How many lie after the first of their level that has not ended, and itself."""
        return sum(len(self.levels[level]) - self._ended_in_order(level) for level in Priority)

    @property
    def open(self) -> list[int]:
        """What somebody must have sooner or later."""
        return [one.number for one in self if one.ended is None]

    @property
    def in_doubt(self) -> int:
        """How many may lie there beside those: nobody knows yet what the dead have said."""
        return len(self.put_off) + sum(
            one.may_come_again
            for level, queue in self.levels.items()
            for one in queue[: self._ended_in_order(level)]
        )

    def is_settled(self) -> None:
        """All that ended in order is acknowledged."""
        for level, queue in self.levels.items():
            self._acknowledged[level] = count = self._ended_in_order(level)
            for one in queue[:count]:
                one.may_come_again = False

    def owner_died(self) -> None:
        for level, queue in self.levels.items():
            for one in queue[self._acknowledged[level] :]:
                one.may_come_again = one.ended is not None

    def took(self, one: Sent, had: set[int]) -> None:
        """See that it was next of its level for an owner that `had` some before."""
        queue = self.levels[one.level]
        if one in self.put_off:
            self.put_off.remove(one)
            last = max((at for at, other in enumerate(queue) if other.number in had), default=-1)
            queue.insert(last + 1, one)
        before = queue[: queue.index(one)]
        skipped = [other.number for other in before if other.number not in had and not other.ended]
        assert not skipped, f"{one.number} overtook {skipped}"

    def _ended_in_order(self, level: Priority) -> int:
        queue = self.levels[level]
        return next((at for at, one in enumerate(queue) if one.ended is None), len(queue))


class Agent:
    """One that runs, as a transport sees it."""

    drains = True
    parked = False

    def __init__(self, name: str, station: Station, mail: Mail) -> None:
        self.name = name
        self.station = station
        self.mail = mail
        self.mailbox = Mailbox(name, MailboxPolicy(CAPACITY, "reject"), self, lambda _: None)
        self.in_hand: dict[int, Message[Any]] = {}
        self.had: set[int] = set()
        """What came to it, by number."""

    def pop(self) -> Message[Any] | None:
        run, count = self.mailbox.run(1)
        if count <= 0:
            return None
        self.mailbox.taken += 1
        message = envelope(self.mailbox.take(run))
        self.mailbox.ran(1)
        return message

    def stop(self, **_: Any) -> None:
        """A rule does what is to be done."""


class Station:
    """A node without what is above the bus."""

    def __init__(self, transport: Transport, clock: Any) -> None:
        self.clock = clock
        self.transport = transport
        self.bus = Bus(
            transport,
            clock=self.clock,
            telemetry=Telemetry(),
            settings=Settings(log_level="off", dead_letter_capacity=100_000),
            waiting=ThreadWaiting(self.clock),
        )
        transport.open(self.bus)

    def close(self) -> None:
        self.bus.close()
        self.transport.close()
        self.clock.close()


class TransportAgainstModel(RuleBasedStateMachine):
    """Two nodes, two agents that come and go, and somebody who sends to them from both."""

    def open_station(self, number: int) -> Station:
        raise NotImplementedError

    def free(self, name: str, level: Priority) -> tuple[int, int]:
        """How many more of a level the inbox takes: at least, and at most."""
        raise NotImplementedError

    def letters(self) -> Iterator[tuple[MessageId, Reason]]:
        for station in self.all_stations:
            for letter in station.bus.dead_letters.list():
                yield letter.message.id, letter.reason

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.sent: dict[int, Sent] = {}
        self.agents: dict[str, Agent] = {}
        self.mail: dict[str, Mail] = {}
        """Of agents that run, and of those that wait for another node."""
        self.put_off: dict[str, list[Sent]] = {}
        """By name of who has stopped: whoever has the name when it is due gets that."""
        self.all_stations: list[Station] = []
        self.stations = [self.new_station(number) for number in range(2)]

    def new_station(self, number: int) -> Station:
        station = self.open_station(number)
        self.all_stations.append(station)
        return station

    # -- senders

    @rule(name=names, at=stations, level=levels, ttl=st.sampled_from([None, None, SOON, 60.0]))
    def send(self, name: str, at: int, level: Priority, ttl: float | None) -> None:
        mail = self.mail.get(name)
        least, most = (0, 0) if mail is None else self.free(name, level)
        if mail is not None and mail.put_off and least <= 0:
            return  # there is to be room for what is put off
        one, refused = self.try_to_send(name, at, level, ttl=ttl)
        if mail is None:
            # Who ended just now is known, elsewhere, until it is buried.
            assert refused in (None, Reason.NO_SUCH_AGENT, Reason.STOPPED)
            one.ends_for_want_of_an_agent()
        elif refused is None:
            assert most > 0, "it was taken past the bound"
            mail.levels[level].append(one)
        else:
            assert refused is Reason.MAILBOX_FULL
            assert least <= 0, "it was refused though there was room"

    @rule(name=names, at=stations, level=levels, delay=st.sampled_from([0.01, SOON, 0.05]))
    def send_for_later(self, name: str, at: int, level: Priority, delay: float) -> None:
        mail = self.mail.get(name)
        if mail is None or self.free(name, Priority.LOW)[0] <= 0:
            return
        one, refused = self.try_to_send(name, at, level, delay=delay)
        assert refused is None, f"it was refused: {refused}"
        mail.put_off.append(one)

    def try_to_send(
        self,
        name: str,
        at: int,
        level: Priority,
        *,
        ttl: float | None = None,
        delay: float | None = None,
    ) -> tuple[Sent, Reason | None]:
        """Send it; why it was not accepted."""
        bus = self.stations[at].bus
        self.number += 1
        message = bus.stamp(MessageKind.TELL, name, self.number, level, ttl=ttl)
        due = None if delay is None else bus.clock.now() + delay
        one = Sent(self.number, message.id, level, message.deadline, due)
        try:
            bus.send(message, bus.inbox(name), delay)
        except UnknownRecipient:
            return one, Reason.NO_SUCH_AGENT
        except MailboxFull:
            return one, Reason.MAILBOX_FULL
        assert bus.transport.flush(DEADLINE) == 0
        self.sent[one.number] = one
        refused = next((why for found, why in self.letters() if found == message.id), None)
        if refused is not None:
            one.ended = refused
            one.letters.add(refused)
        return one, refused

    # -- agents

    @rule(name=names, at=stations)
    def start(self, name: str, at: int) -> None:
        """A new one, or one that goes on where its last owner left it."""
        if name in self.agents:
            return
        mail = self.mail.get(name) or Mail(self.put_off.pop(name, []))
        agent = self.agents[name] = Agent(name, self.stations[at], self.mail.setdefault(name, mail))
        give_up = time.monotonic() + DEADLINE
        while True:
            try:
                agent.station.transport.attach(agent.mailbox)
                break
            except NameTaken:  # until the last owner has let go
                assert time.monotonic() < give_up, "nobody can have the name"
                self.wait(0.002)

    @rule(name=names)
    def take(self, name: str) -> None:
        if name in self.agents:
            self.take_next(self.agents[name])

    def take_next(self, agent: Agent) -> bool:
        """Have it take the next message; False if there is none."""
        give_up = time.monotonic() + DEADLINE
        while (message := agent.pop()) is None:
            if agent.in_hand or not agent.mail.open:
                return False
            assert time.monotonic() < give_up, f"{agent.mail.open} did not come"
            self.wait(0.001)
        one = self.sent[message.payload]
        now = agent.station.clock.now()
        assert one.number not in agent.had, "it came twice"
        may_come = one.ended is None or one.may_come_again or one in agent.mail.put_off
        assert may_come, f"it had ended: {one.ended}"
        assert one.due is None or now >= one.due - EARLY, "it came early"
        agent.mail.took(one, agent.had)
        agent.had.add(one.number)
        agent.in_hand[one.number] = message
        one.ended = None
        if message.expired(now):
            assert one.expires is not None
            assert now >= one.expires - EARLY, "it expired early"
            self.end(agent, one.number, Reason.EXPIRED)
        else:
            assert one.expires is None or now <= one.expires + EARLY, "it had expired"
        return True

    @rule(name=names, which=chances, reason=st.sampled_from([None, None, Reason.HANDLER_ERROR]))
    def finish(self, name: str, which: int, reason: Reason | None) -> None:
        """In any order: handlers may wait for each other."""
        agent = self.agents.get(name)
        if agent is not None and agent.in_hand:
            self.end(agent, sorted(agent.in_hand)[which % len(agent.in_hand)], reason)

    def end(self, agent: Agent, number: int, reason: Reason | None = None) -> None:
        message, one, bus = agent.in_hand.pop(number), self.sent[number], agent.station.bus
        if reason is None:
            now = bus.clock.now()
            bus.handled(message, agent.name, now, now)
        else:
            bus.fail(message, agent.name, reason)
            one.letters.add(reason)
        one.ended = reason or HANDLED

    def finish_all(self, agent: Agent) -> None:
        for number in list(agent.in_hand):
            self.end(agent, number)

    @rule(name=names)
    def stop(self, name: str) -> None:
        """It ends for good, and what waits for it with it."""
        agent = self.agents.get(name)
        if agent is None:
            return
        self.finish_all(agent)
        for message in agent.mailbox.close():
            agent.station.bus.fail(message, agent.name, Reason.STOPPED)
        agent.station.transport.detach(agent.mailbox)
        del self.agents[agent.name], self.mail[agent.name]
        for one in agent.mail:
            if one.ended is None:
                one.ended = Reason.STOPPED
                one.letters.add(Reason.STOPPED)
        for one in agent.mail.put_off:
            one.ends_for_want_of_an_agent()
        self.put_off[name] = agent.mail.put_off

    @rule()
    def time_passes(self) -> None:
        self.wait(SOON)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    # -- the end

    def teardown(self) -> None:
        try:
            self.finish_everything()
        finally:
            for station in self.all_stations:
                station.close()

    def finish_everything(self) -> None:
        """Whatever was accepted ends as it has to, and nothing else does."""
        for name in self.mail:
            self.start(name, 0)
        for agent in self.agents.values():
            give_up = time.monotonic() + DEADLINE
            while self.take_next(agent) or agent.in_hand or self.without_an_end(agent.mail.put_off):
                self.finish_all(agent)
                self.wait(0.001)
                assert time.monotonic() < give_up, f"{agent.mail.put_off} did not come"
        give_up = time.monotonic() + DEADLINE
        while missing := self.without_an_end():
            assert time.monotonic() < give_up, f"{missing} did not end"
            self.wait(0.005)
        accepted = {one.id: one for one in self.sent.values()}
        reasons = Counter(found for found, _ in set(self.letters()))
        for found, reason in self.letters():
            if found in accepted:
                one = accepted[found]
                assert reason in one.letters, f"{one} ended as {reason}"
                assert reasons[found] == 1 or one.ended != EITHER, f"{one} ended twice"

    def without_an_end(self, some: Iterable[Sent] | None = None) -> list[Sent]:
        """Those that are neither handled nor dead letters, as far as they must be."""
        there: dict[MessageId, set[Reason]] = defaultdict(set)
        for found, reason in self.letters():
            there[found].add(reason)
        return [
            one
            for one in (self.sent.values() if some is None else some)
            if one.ended != HANDLED
            and not there[one.id] & ({one.ended} if one.ended in one.letters else one.letters)
        ]


class MemoryAgainstModel(TransportAgainstModel):
    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.clock = ManualClock()
        super().__init__()

    def open_station(self, number: int) -> Station:
        return Station(self.transport, self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def free(self, name: str, level: Priority) -> tuple[int, int]:
        agent = self.agents[name]
        most = CAPACITY - sum(one.number not in agent.had for one in agent.mail)
        return most - len(agent.mail.put_off), most


class Wire(fakeredis.FakeRedis):
    """What a node speaks through: it can be cut, and lose answers.

    But not those to the thread of the rules: it would be told, and try again.
    """

    cut = False
    answers_to_lose = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        command: Any = super().execute_command
        return self._run(lambda: command(*args, **options))

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipeline: Any = super().pipeline(*args, **options)
        execute = pipeline.execute
        pipeline.execute = lambda *args, **options: self._run(lambda: execute(*args, **options))
        return pipeline

    def _run(self, command: Callable[[], Any]) -> Any:
        if self.cut:
            raise redis.exceptions.ConnectionError("cut off")
        answer = command()
        if self.answers_to_lose and threading.current_thread() is not threading.main_thread():
            self.answers_to_lose -= 1
            raise redis.exceptions.ConnectionError("the answer was lost")
        return answer


class Movable:
    """A crew whose agents may run anywhere, and that makes none of them by itself."""

    def spec(self, inbox: Any) -> bytes:
        return b"it moves"

    def can_make(self, name: str, spec: bytes) -> bool:
        return False

    def make(self, name: str, spec: bytes) -> None:
        raise NotImplementedError


class RedisAgainstModel(TransportAgainstModel):
    def __init__(self) -> None:
        self.fake = fakeredis.FakeServer()
        self.wires: dict[str, Wire] = {}
        """By node."""
        self.client = self.make_wire()
        self.log = InboxLog(RedisServer("redis://fake", make=lambda **_: self.client))
        super().__init__()

    def make_wire(self, **_: Any) -> Wire:
        return Wire(server=self.fake, protocol=2)

    def open_station(self, number: int) -> Station:
        wire = self.make_wire()
        transport = RedisTransport(
            RedisServer("redis://fake", make=lambda **_: wire),
            Codec(TypeBook(), limit=1 << 20),
            name=f"n{number}",
            ttl=60.0,
        )
        transport.crew = Movable()
        self.wires[transport.node] = wire
        return Station(transport, SystemClock())

    def free(self, name: str, level: Priority) -> tuple[int, int]:
        self.settle(name)
        mail = self.mail[name]
        most = CAPACITY + (level is Priority.URGENT) - mail.unacknowledged
        return most - mail.in_doubt, most

    def settle(self, name: str) -> None:
        """Wait until what ended is acknowledged."""
        mail = self.mail[name]
        give_up = time.monotonic() + DEADLINE
        while not 0 <= (more := self.log.depth(name) - mail.unacknowledged) <= mail.in_doubt:
            assert time.monotonic() < give_up, f"{more} too many wait"
            self.wait(0.002)
        if more == 0:
            mail.is_settled()

    def letters(self) -> Iterator[tuple[MessageId, Reason]]:
        yield from super().letters()
        for letter in self.log.letters():
            yield MessageId(int.from_bytes(letter["id"], "big")), Reason(letter["reason"])

    @rule(at=stations)
    def crash(self, at: int) -> None:
        """A node is gone without a word, and its ttl is over.

        Not before who ended there is buried: they would go on, as all others do.
        """
        give_up = time.monotonic() + DEADLINE
        while any(map(self.is_kept, NAMES - self.mail.keys())):
            assert time.monotonic() < give_up, "who ended is not buried"
            self.wait(0.002)
        dead: Any = self.stations[at].transport
        self.wires[dead.node].cut = True
        for name, agent in list(self.agents.items()):
            if agent.station is self.stations[at]:
                agent.mail.owner_died()
                del self.agents[name]
        self.log.leave(dead.node, ttl=60.0)
        self.stations[at] = self.new_station(at)

    def is_kept(self, name: str) -> bool:
        """Whether the server has an inbox of that name."""
        return bool(self.client.hexists(f"{self.log.tag(name)}:a:{name}", "v"))

    @rule(at=stations, count=st.integers(1, 3))
    def answers_are_lost(self, at: int, count: int) -> None:
        transport: Any = self.stations[at].transport
        self.wires[transport.node].answers_to_lose = count

    @rule(name=names)
    def hand_over(self, name: str) -> None:
        """It leaves its node, as on SIGTERM: what it has done is not done again."""
        agent = self.agents.get(name)
        if agent is None:
            return
        self.finish_all(agent)
        self.settle(agent.name)
        agent.station.transport.detach(agent.mailbox, gone=False)
        for message in agent.mailbox.close():
            agent.station.bus.fail(message, agent.name, Reason.STOPPED)
        del self.agents[agent.name]

    @rule()
    def scripts_are_forgotten(self) -> None:
        self.client.script_flush()

    def teardown(self) -> None:
        for wire in self.wires.values():
            wire.answers_to_lose = 0
        try:
            self.finish_everything()
        finally:
            for wire in self.wires.values():
                wire.cut = False  # who is closed would wait for the server
            for station in self.all_stations:
                station.close()


TestMemoryAgainstModel = MemoryAgainstModel.TestCase
TestMemoryAgainstModel.settings = settings(
    max_examples=4 * EXAMPLES, stateful_step_count=50, deadline=None
)
TestRedisAgainstModel = RedisAgainstModel.TestCase
TestRedisAgainstModel.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None
)
