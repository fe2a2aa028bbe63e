"""Messages between nodes through Redis: at least once, in order, bounded. Read this page first.

A message's way: an agent's *entrance* packs it -> the outbox, which numbers and sends what waits
in batches -> the agent's inbox, a log in Redis -> its owner's consumer -> its mailbox in that
process -> its handler; how it ended goes back the same way as an acknowledgement. That is so for
agents of this node too: what was accepted outlives the process, in the order that all senders
see. See ``log`` for the theory.

Requests are answered through an inbox that each node has of its own. What a handler sends, its
answer too, is in the inboxes of others before its message is acknowledged.

An agent whose node dies is taken over by another node that can make it (``Crew``); the others
keep their inboxes for as long as a node of theirs may come back.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorbus.bus.mailbox import MailboxPolicy, Refusal
from actorbus.bus.transport import Guarantee, Guarantees
from actorbus.bus.transports.redis.answers import Answers
from actorbus.bus.transports.redis.checkup import check
from actorbus.bus.transports.redis.consumer import Consumer
from actorbus.bus.transports.redis.delivery import Delivery
from actorbus.bus.transports.redis.deployment import check_in
from actorbus.bus.transports.redis.entrance import Entrance, LogEntrance
from actorbus.bus.transports.redis.errands import Errands
from actorbus.bus.transports.redis.events import Events
from actorbus.bus.transports.redis.keeper import Keeper
from actorbus.bus.transports.redis.letters import (
    Cancelled,
    Outcome,
    StopAgent,
    is_notes,
    notes_of,
)
from actorbus.bus.transports.redis.log import (
    Fenced,
    InboxLog,
    Letter,
    OwnedBy,
    Terms,
)
from actorbus.bus.transports.redis.mail import Mail
from actorbus.bus.transports.redis.sender import Sender
from actorbus.bus.transports.redis.stays import BURIAL, Stay, Stays
from actorbus.bus.transports.redis.topics.log import TopicLog
from actorbus.bus.transports.redis.topics.reader import TopicReader
from actorbus.bus.transports.redis.trouble import Trouble
from actorbus.bus.transports.redis.unreadable import letter_of, reason_of
from actorbus.errors import (
    AgentStopped,
    BusClosed,
    InvalidSettings,
    NameTaken,
    TransportUnavailable,
    Undecodable,
    Untrusted,
)
from actorbus.message import Message, MessageId, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.bus.mailbox import Inbox
    from actorbus.bus.routing import Route
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.log import Item, Known, Ownership
    from actorbus.bus.transports.redis.reading import Reading
    from actorbus.codec import Codec
    from actorbus.codec.signing import Trust
    from actorbus.redis_client import RedisServer

REDIS: Final = Guarantees(
    transport="redis",
    delivery="at least once, acknowledged; repeats dropped by id while one node owns the agent;"
    " after its death at most 16 messages of each busy agent run again",
    survives="node kill -9, network cuts, Redis restart (with `everysec` the server may lose up to"
    " 2 s; resent while the sending node lives)",
    order="yes, also after redelivery",
    bounded="yes, exact, checked in the script",
    unknown_recipient="error at once: a miss in the local view costs one round trip first; an agent"
    " whose node is dead stays known, its inbox accepts",
    fanout="append-once log, cursor per subscriber, explicit gap",
    given=frozenset(Guarantee) - {Guarantee.REFUSED_AT_ONCE},
)

_REMEMBERED: Final = 100_000
"""Agents of other nodes that are known here without asking."""
_NOTES: Final = 1_000
"""Answers that are handed out and not acknowledged: the table knows one that comes twice."""
_MOST_NOTES: Final = 1_000_000
_LAST_BURIAL: Final = 0.5
"""What ``BURIAL`` is when the node stops: whoever did not return by then was left behind."""
_LOOK_AT_ORPHANS: Final = 30.0
_MOMENT: Final = 0.5
_NO_TIME: Final = 0.0
_TO_MAKE: Final = 500
"""Agents that were taken over and are to be made, before others should take the next ones."""
_RETRY_MAKING: Final = 30.0
"""Seconds for which an agent that could not be made here is left to others."""


class Crew(Protocol):
    """The agents that a node could run: what the transport asks of those above it."""

    def spec(self, inbox: Inbox) -> bytes:
        """How another node makes the agent of `inbox`; nothing if none may."""

    def can_make(self, name: str, spec: bytes) -> bool:
        """Whether this node could run that agent. Quick."""

    def make(self, name: str, spec: bytes) -> None:
        """Run it here: its inbox will be attached."""


class _NoCrew:
    def spec(self, inbox: Inbox) -> bytes:
        return b""

    def can_make(self, name: str, spec: bytes) -> bool:
        return False

    def make(self, name: str, spec: bytes) -> None:
        raise NotImplementedError


class RedisTransport:
    """The agents of one node, and its way to those of all others on the same namespace.

    Args:
        server: the Redis server.
        codec: what messages are encoded with, and decoded to.
        name: the node's; its identity is that and a random part, new with every start.
        namespace: nodes of other namespaces are not heard.
        partitions: of the deployment; None takes what is there, or what suits the server.
        trust: what seals messages, and says whose are opened.
        ttl: seconds without a sign of life after which a node is dead.
        outbox: messages that may wait to be sent.
        asks: requests that may wait for an answer.
        send_timeout: seconds that a message without a deadline waits for room.
        orphans_kept: seconds after which what waits for agents of a dead node that no other may
            run becomes dead letters.
    """

    guarantees = REDIS

    def __init__(
        self,
        server: RedisServer,
        codec: Codec,
        *,
        name: str = "node",
        namespace: str = "actorbus",
        partitions: int | None = None,
        trust: Trust | None = None,
        ttl: float = 10.0,
        outbox: int = 100_000,
        asks: int = 100_000,
        send_timeout: float = 30.0,
        orphans_kept: float = 3_600.0,
    ) -> None:
        self.shared: dict[str, Any] = {}
        self.node = f"{name}~{os.urandom(8).hex()}"
        self.log = InboxLog(server, namespace=namespace, partitions=partitions or 1)
        self.crew: Crew = _NoCrew()
        self._server = server
        self._namespace = namespace
        self._partitions = partitions
        self.codec = codec
        self._ttl = ttl
        self._orphans_kept = orphans_kept
        self._home: Home | None = None
        self._lock = threading.RLock()
        self._stays = Stays(self.node)
        self._trouble = Trouble()
        self._entrances: dict[str, Entrance] = {}
        self._errands = Errands("actorbus-errands", self._trouble.report)
        self._making = Errands("actorbus-adopter", self._trouble.report)
        self._mail = Mail(self.log, codec, trust)
        self._sender = Sender(
            self.log,
            server,
            self._mail,
            self.node,
            errands=self._errands,
            gone=self._forget,
            limit=outbox,
            asks=asks,
            send_timeout=send_timeout,
        )
        self._answers = Answers(self._sender, codec)
        self._log_entrance = LogEntrance(self._sender)
        self._before: dict[str, str] = {}
        """Which dead nodes agents were at that this node has taken over and not resumed yet."""
        self._adopted: set[str] = set()
        """Agents that this node has taken over, and did not try to make yet."""
        self._taken: dict[str, tuple[Ownership, Terms]] = {}
        """Agents that are ours and have resumed, and are not made yet."""
        self._keeper = Keeper(
            self.log,
            self.node,
            ttl=ttl,
            wants=self._wanted,
            adopt=self._adopt,
            is_busy=lambda: self._making.waiting > _TO_MAKE,
            died=self._died,
            beaten=self._trouble.over,
            failed=self._trouble.report,
        )
        self._consumer = Consumer(
            self.log,
            server,
            self.node,
            failed=self._trouble.report,
            unowned=self._keeper.hurry,
            due=self._keeper.hurry,
        )
        self._unmade: dict[str, float] = {}
        self._offered: dict[str, Terms] = {}
        self._orphans: dict[str, tuple[frozenset[str], float]] = {}
        """By dead node, its agents that run nowhere else, and when to look for them again."""
        self._notes: Ownership | None = None
        self._closed = False

    # -- life

    def open(self, home: Home) -> None:
        """
        Raises:
            TransportUnavailable: the server did not answer, would lose messages as it is set up,
                or holds another sort of deployment.
            BusClosed: another node uses it, or it was closed.
        """
        with self._lock:
            if self._home is not None or self._closed:
                raise BusClosed("a RedisTransport serves one node, once; make another")
            self._home = home
        self._trouble.open(home.telemetry)
        self._mail.offset = home.clock.now() - time.monotonic()
        try:
            self.log.divide(
                check(self._server, namespace=self._namespace, partitions=self._partitions)
            )
            self._keeper.start()
        except TransportUnavailable:
            self._home = None  # it may be tried again
            raise
        self._open_notes()
        self._events = Events(home, self._stays.here, self._mail.opened_event)
        self._topics = self._events.reader = TopicReader(
            TopicLog(self._server, self.log),
            self._server,
            self.node,
            self._events,
            codec=self.codec,
            payload=self._events.payload,
            failed=self._trouble.report,
        )
        self._topics.start()
        self._sender.start(home)
        self._consumer.start()
        self._errands.start()
        self._making.start()

    def leave(self) -> None:
        self._consumer.hold([stay.agent for stay in self._stays.leave()])

    def close(self) -> None:
        """Give up the agents that others can run, end the rest, and say good-bye."""
        with self._lock:
            if self._closed or self._home is None:
                self._closed = True
                return
            self._closed = True
        self._sender.refuse()
        self._making.close(5.0)
        for stay in list(self._stays.here.values()):
            self.detach(stay.inbox)
        # In this order: the end of an agent reads and acknowledges, and tells those who ask.
        self._errands.close(BURIAL)
        self._topics.close(2.0)
        with suppress(TransportUnavailable):  # a forked child has nothing to flush
            self._sender.flush(2.0)
        self._consumer.close(2.0)
        try:
            if self._notes is not None:
                self.log.drop(self._notes, Reason.STOPPED)
        except (TransportUnavailable, Fenced) as error:
            self._trouble.report(error)
        self._keeper.close()
        self._sender.close(0.5)
        self._server.close()

    def flush(self, timeout: float) -> int:
        """
        Raises:
            TransportUnavailable: this process was forked from the node's.
        """
        return self._sender.flush(timeout)

    def pending(self) -> int:
        if self._home is None:
            return 0
        working = {name for name, one in self._stays.here.copy().items() if one.inbox.owner.drains}
        known = self._sender.waiting + self._consumer.pending(working)
        known = known or sum(map(self._topics.pending, working))
        if known or self._closed:
            return known
        try:
            # What was accepted a moment ago, and whose bell was not heard yet.
            return len(working.intersection(self.log.ready(self.node)))
        except TransportUnavailable:
            return 1

    # -- who is here

    def entrance(self, inbox: Inbox) -> Inbox:
        return Entrance(self._sender, inbox.name, inbox.owner)

    def attach(self, inbox: Inbox, subscriptions: Sequence[Route] = ()) -> None:
        """
        Raises:
            NameTaken: an agent has the name, here or on another live node.
            InvalidSettings: its mailbox drops its oldest messages, which a log cannot.
            TransportUnavailable: the server did not answer.
        """
        name, policy = inbox.name, inbox.policy
        if policy.overflow == "drop-oldest":
            raise InvalidSettings(
                f"agent {name!r}: over redis a mailbox cannot drop its oldest messages;"
                " overflow='drop-newest', 'reject' or 'block' can be had"
            )
        self._stays.await_burial(name)
        terms = Terms(policy.capacity, policy.overflow, self.crew.spec(inbox))
        stay = Stay(inbox, terms, self._consumer)
        self._stays.begin(stay)
        taken = self._taken.pop(name, None)
        asked = self._topics.entering(name)
        told: Any = None
        try:
            if taken is not None and taken[1] == terms:
                ownership = taken[0]
            else:
                ownership, told = self.log.acquire_and_ask(
                    name, self.node, asked.call, ttl=self._ttl, terms=terms
                )
        except BaseException as error:
            self._stays.end(stay)
            if isinstance(error, OwnedBy):
                raise NameTaken(name, error.node.rpartition("~")[0]) from None
            raise
        stay.ownership = ownership
        if self._mail.trust is not None:
            self._mail.trust.forget(name)
        try:
            before = self._before.pop(name, None) or ownership.before or None
            if taken is not None:
                for route in subscriptions:
                    self._topics.declare(route)  # whoever took it has all begin together
            elif before or not self._topics.enter(name, asked, told, subscriptions):
                self._follow(stay, before, subscriptions)
        except BaseException:
            self._stays.end(stay)
            self.log.release(ownership)
            raise
        with self._lock:
            self._entrances[name] = Entrance(self._sender, name, inbox.owner)
        self._consumer.read(ownership, _Arrivals(self, stay), most=stay.most)

    def _follow(self, stay: Stay, before: str | None, subscriptions: Sequence[Route]) -> None:
        """Have the agent get broadcasts and events, from where it was if it was anywhere."""
        name = stay.agent
        if stay.moves:
            self._topics.resume({name: before}, begin=False)
        else:
            self._topics.join([name], begin=False)
        for route in subscriptions:
            self._topics.declare(route)
        self._topics.begin([name])

    def detach(self, inbox: Inbox, *, gone: bool = True) -> None:
        stay = self._stays.die(inbox.name, inbox, gone=gone, now=self._closed)
        if stay is None:
            return
        with self._lock:
            self._entrances.pop(stay.agent, None)
        if stay.ownership is not None:
            self._errands.put(self._give_up if stay.goes_on else self._bury, stay)

    def token(self, agent: str) -> str | None:
        """The fencing token with which this node owns the agent."""
        stay = self._stays.here.get(agent)
        return None if stay is None or stay.ownership is None else stay.ownership.token

    def route(self, name: str) -> Inbox | None:
        """
        Raises:
            TransportUnavailable: nobody here knows the name, and the server did not answer.
        """
        found = self._entrances.get(name)
        if found is not None or self._stays.is_dead(name):
            return found
        if self._home is None or self.log.known([name])[0] is None:
            return None
        with self._lock:
            if len(self._entrances) >= _REMEMBERED:
                here = self._stays.here
                self._entrances = {
                    one.name: one for one in self._entrances.values() if one.name in here
                }
            return self._entrances.setdefault(name, Entrance(self._sender, name, None))

    def ref_entrance(self, name: str) -> Inbox:
        """The way to an agent that somebody knows of, without a look whether it is there."""
        return self._entrances.get(name) or Entrance(self._sender, name, None)

    def _forget(self, agent: str) -> None:
        """Nobody knows that agent any more."""
        with self._lock:
            if agent not in self._stays.here:
                self._entrances.pop(agent, None)

    def names(self) -> list[str]:
        names = dict.fromkeys(self._stays.here)
        # As of before we asked: some may be buried, and out of the graves, while we ask.
        buried = self._stays.dead()
        if self._home is not None:
            try:
                names.update(dict.fromkeys(self.log.names()))
            except TransportUnavailable as error:
                self._trouble.report(error)
        buried.update(self._stays.dead())
        return [name for name in names if not is_notes(name) and name not in buried]

    def offer(self, name: str, policy: MailboxPolicy, spec: bytes) -> None:
        """Let others send to an agent that some node can make once it is needed.

        Raises:
            TransportUnavailable: the server did not answer.
        """
        terms = self._offered[name] = Terms(policy.capacity, policy.overflow, spec)
        self.log.offer(name, terms)

    def stop_agent(self, name: str, drain: bool) -> None:
        """Tell the node that runs an agent to stop it."""
        self._sender.stop_agent(name, drain)

    def comes_back(self, name: str) -> bool:
        """Whether an agent that runs nowhere now is kept for a node that can make it.

        Raises:
            TransportUnavailable: the server did not answer.
        """
        (known,) = self.log.known([name])
        return known is not None and bool(known.spec)

    def subscribe(self, route: Route) -> None:
        """
        Raises:
            UnsupportedPayload: the filter holds a value that cannot be carried.
            TransportUnavailable: it is not in effect.
        """
        self._topics.subscribe(route)

    def unsubscribe(self, route: Route) -> None:
        self._topics.unsubscribe(route)

    def audience(self, message: Message[Any]) -> Sequence[Inbox]:
        """The log, whoever is to get it: nobody has taken it when it is published."""
        return (self._log_entrance,)

    # -- the way in

    def deliver(self, stay: Stay, item: Item, now: int) -> None:
        """Put a message that was fetched into its mailbox. `now`: server time, milliseconds."""
        inbox, home = stay.inbox, self._home
        if home is None:
            return
        try:
            message, asker = self._mail.opened(inbox.name, item, now)
        except (Undecodable, Untrusted) as error:
            self._undecodable(stay, item, error)
            return
        delivery = message.delivery = Delivery(stay, item.id)
        if item.expiry:
            left = home.clock.now() + (item.expiry - now) / 1_000
            signed = None if self._mail.trust is None else message.deadline
            message.deadline = left if signed is None else min(left, signed)
        if asker is not None:
            message.answer_to = self._answers.owed(asker, message, delivery, inbox)
        offered = inbox.offer(message)
        if (offered is Refusal.FULL or offered is message) and inbox.insist(message):
            # It was counted in Redis; here other things may wait: schedules, what Pykka sends.
            offered = None
        if offered is not None:
            home.fail(message, inbox.name, Reason.STOPPED, AgentStopped(inbox.name))
        elif asker is not None and getattr(inbox.owner, "parked", False):
            inbox.owner.refuse_asks()

    def lost(self, arrivals: _Arrivals, reading: Reading) -> None:
        """The agent is not ours any more, says the server."""
        self._errands.put(self._reclaim, (arrivals, reading))

    def _reclaim(self, lost: list[tuple[_Arrivals, Reading]]) -> None:
        """Own agents again that the server knows nobody of: it lost what it had. Else let go."""
        known = self.log.known([one.stay.agent for one, _ in lost])
        if None in known:
            self._offer_again()
        for (one, reading), found in zip(lost, known, strict=True):
            stay = one.stay
            if self._stays.here.get(stay.agent) is not stay:
                continue
            if self._stays.leaving or (found is not None and found.node not in ("", self.node)):
                self._let_go(stay)
                continue
            try:
                stay.ownership = self.log.acquire(
                    stay.agent, self.node, ttl=self._ttl, terms=stay.terms
                )
            except OwnedBy:
                self._let_go(stay)
            else:
                self._consumer.read(stay.ownership, one, most=stay.most, after=reading)

    def _let_go(self, stay: Stay) -> None:
        """Another node owns the agent now."""
        stay.goes_on = True
        if self._stays.end(stay):
            with self._lock:
                self._entrances.pop(stay.agent, None)
        self._topics.lost([stay.agent])
        owner = stay.inbox.owner
        if owner is not None:
            owner.stop(reason="another node owns it now")

    def _offer_again(self) -> None:
        check_in(self._server, self._namespace, len(self.log.tags))
        for name, terms in self._offered.copy().items():
            self.log.offer(name, terms)

    def notes_lost(self, reading: Reading) -> None:
        """The inbox of this node is not there any more, or another took this one for dead."""
        self._errands.put(self._reclaim_notes, reading)

    def _reclaim_notes(self, lost: list[Reading]) -> None:
        self._open_notes(lost[-1])

    def _open_notes(self, after: Reading | None = None) -> None:
        name = notes_of(self.node)
        self._notes = self.log.acquire(name, self.node, ttl=self._ttl, terms=Terms(_MOST_NOTES))
        self._consumer.read(self._notes, _Notes(self), most=_NOTES, after=after)

    def take_note(self, item: Item, now: int) -> None:
        """Something that another node tells this one."""
        requests = self._sender.requests
        try:
            note = self._mail.opened_note(notes_of(self.node), item, now, requests.agent_of)
        except Untrusted as error:
            self._keep_letter(item, None, error)
            return
        except Undecodable as error:
            self._answer_undecodable(item, error)
            return
        match note:
            case Outcome():
                requests.settle(note)
            case Cancelled(request):
                self._answers.cancel(request)
            case StopAgent(name, drain):
                stay = self._stays.here.get(name)
                if stay is not None and stay.inbox.owner is not None:
                    stay.inbox.owner.stop(drain=drain)

    def _undecodable(self, stay: Stay, item: Item, error: Undecodable | Untrusted) -> None:
        letter = Letter(item.level, item.position, reason_of(error), 1, str(error))
        self._keep_letter(item, stay.agent, error)
        self._consumer.done(stay.agent, item.id, letter)

    def _answer_undecodable(self, item: Item, error: Undecodable) -> None:
        """The asker hears why; where not even that can be read, a letter is kept."""
        if len(item.blob) > 17:
            request = MessageId(int.from_bytes(item.blob[1:17], "big"))
            if self._sender.requests.settle(Outcome(request, error=error)):
                return
        self._keep_letter(item, None, error)

    def _keep_letter(
        self, item: Item, recipient: str | None, error: Undecodable | Untrusted
    ) -> None:
        home = self._home
        if home is not None:
            letter = letter_of(item.blob, item.id, home.clock.now(), recipient=recipient)
            home.refuse(letter, recipient, reason_of(error), error)

    # -- agents that go, and come

    def _bury(self, ended: list[Stay]) -> None:
        """Agents ended for good: what waits for them ends with them, and their names are free.

        Those are left out that are another's by now, or were buried by a try whose answer was
        lost.
        """
        names = [one.agent for one in ended]
        ours = self._end([one.owned() for one in ended])
        self._topics.forget(ours)
        self._consumer.give_up(names, _LAST_BURIAL if self._closed else BURIAL)
        ours = self._end(list(ours.values()))  # where they stand, now that all is acknowledged
        by_name = {one.agent: one for one in ended}
        for name, ownership in ours.items():
            if ownership.depth:
                self._end_waiting(by_name[name], ownership)
        for fenced in self.log.drop_many(list(ours.values()), Reason.STOPPED):
            self._trouble.report(fenced)
        # Not while Redis is away: a new agent of the name would be buried with the next try.
        self._stays.buried(names)

    def _end(self, ownerships: list[Ownership]) -> dict[str, Ownership]:
        told = self.log.end_many(ownerships)
        return {one.agent: one for one in told if not isinstance(one, Fenced)}

    def _end_waiting(self, one: Stay, ownership: Ownership) -> None:
        """What lies in its inbox gets nobody to handle it: dead letters, and errors to askers."""
        cursors = ownership.cursors
        while True:
            fetched = self.log.fetch(ownership, cursors, count=500)
            if not fetched.items:
                return
            moved = list(cursors)
            for item in fetched.items:
                moved[item.level] = moved[item.level]._replace(
                    position=item.position + 1, id=item.id
                )
                self._end_one(one, item)
            a, b, c, d = moved
            cursors = a, b, c, d

    def _end_one(self, one: Stay, item: Item) -> None:
        name = one.agent
        try:
            message, asker = self._mail.opened(name, item, int(self._mail.server_time() * 1_000))
        except (Undecodable, Untrusted) as error:
            self._keep_letter(item, name, error)
            return
        if asker is not None:
            message.answer_to = self._answers.owed(asker, message, None, one.inbox)
        if self._home is not None:
            self._home.fail(message, name, Reason.STOPPED, AgentStopped(name))

    def _give_up(self, leaving: list[Stay]) -> None:
        """Leave agents to whoever else can make them."""
        names = {one.agent for one in leaving}
        self._topics.park(names, _LAST_BURIAL)
        for ownership in self._consumer.give_up(names, _LAST_BURIAL):
            names.discard(ownership.agent)
            self._errands.put(self._release, ownership)
        self._stays.buried(names)

    def _release(self, ownerships: list[Ownership]) -> None:
        self.log.release_many(ownerships)
        self._stays.buried(one.agent for one in ownerships)

    def _wanted(self, names: list[str]) -> list[str]:
        """Which agents without an owner this node would run."""
        now = time.monotonic()
        if self._stays.leaving:
            return []
        names = [
            name
            for name in names
            if not is_notes(name)
            and name not in self._stays.here
            and name not in self._adopted
            and self._unmade.get(name, 0.0) <= now
        ]
        known = self.log.known(names) if names else []
        return [
            name
            for name, found in zip(names, known, strict=True)
            if found is not None and found.spec and self.crew.can_make(name, found.spec)
        ]

    def _adopt(self, ownership: Ownership) -> None:
        if ownership.before:
            self._before[ownership.agent] = ownership.before
        self._adopted.add(ownership.agent)
        self._making.put(self._make, ownership)

    def _make(self, ownerships: list[Ownership]) -> None:
        """Make agents that are ours now. Those that cannot be made are left to others."""
        names = [one.agent for one in ownerships]
        ownerships = [one for one in ownerships if one.agent not in self._stays.here]
        known = self.log.known([one.agent for one in ownerships])
        self._resume(ownerships, known)
        unmade: list[tuple[Ownership, float]] = []
        for ownership, found in zip(ownerships, known, strict=True):
            if found is None or self._stays.leaving:
                unmade.append((ownership, _RETRY_MAKING))
                continue
            try:
                self.crew.make(ownership.agent, found.spec)
            except (NameTaken, BusClosed, TransportUnavailable):
                # By the dead, in the eyes of the registry; or this node has begun to stop; or
                # Redis is away, which is no fault of the agent.
                unmade.append((ownership, _MOMENT))
            except Exception as error:  # noqa: BLE001 - an agent's own code runs here
                self._trouble.report(error)
                unmade.append((ownership, _RETRY_MAKING))
        self._topics.begin([one.agent for one in ownerships])
        self._leave_unmade(unmade)
        self._adopted.difference_update(names)

    def _resume(self, ownerships: list[Ownership], known: list[Known | None]) -> None:
        """Have agents go on with broadcasts and events where they were, in few round trips."""
        taken = {
            ownership.agent: (ownership, found.terms)
            for ownership, found in zip(ownerships, known, strict=True)
            if found is not None
        }
        self._topics.resume({name: self._before.get(name) for name in taken}, begin=False)
        self._taken.update(taken)
        for ownership in ownerships:
            self._before.pop(ownership.agent, None)

    def _leave_unmade(self, unmade: list[tuple[Ownership, float]]) -> None:
        """Leave agents to others, where they are, and to this node after some seconds."""
        now = time.monotonic()
        left: dict[str, Ownership] = {}
        for ownership, seconds in unmade:
            self._unmade[ownership.agent] = now + seconds
            self._taken.pop(ownership.agent, None)
            # Else it was made, and is given up once what it has done is acknowledged.
            if not self._stays.is_known(ownership.agent):
                left[ownership.agent] = ownership
        if left:
            self._topics.park(left, _NO_TIME)
            self.log.release_many(list(left.values()))

    def _died(self, node: str) -> None:
        """Another node is dead. Its agents that run nowhere else leave their askers alone.

        Their inboxes are kept for a node of theirs that may come back, but not for ever.
        """
        now = time.monotonic()
        lost, look_at = self._orphans.get(node, (frozenset(), 0.0))
        if now >= look_at:
            lost = self._left_behind(node)
            self._orphans = {name: one for name, one in self._orphans.items() if one[1] > now}
            self._orphans[node] = lost, now + _LOOK_AT_ORPHANS
            over = self.log.silence(node) > self._orphans_kept
            for agent in lost:
                if over or is_notes(agent):
                    self._end_orphan(agent)
        self._sender.requests.owner_lost(lost)

    def _left_behind(self, node: str) -> frozenset[str]:
        """The agents of a node that no other node may run, and its own inbox."""
        agents = self.log.owned(node)
        known = zip(agents, self.log.known(agents), strict=True)
        return frozenset(agent for agent, one in known if one is None or not one.spec)

    def _end_orphan(self, agent: str) -> None:
        try:
            self.log.drop(self.log.acquire(agent, self.node, ttl=self._ttl), Reason.CRASHED_OWNER)
        except (OwnedBy, Fenced):
            return  # another node was faster


class _Arrivals:
    """The messages of one agent that runs here."""

    __slots__ = ("_transport", "stay")

    def __init__(self, transport: RedisTransport, stay: Stay) -> None:
        self._transport = transport
        self.stay = stay

    def take(self, items: Sequence[Item], now: int) -> None:
        for item in items:
            self._transport.deliver(self.stay, item, now)

    def lost(self, reading: Reading) -> None:
        self._transport.lost(self, reading)


class _Notes:
    """What other nodes tell this one; each is over once it is read."""

    def __init__(self, transport: RedisTransport) -> None:
        self._transport = transport
        self._name = notes_of(transport.node)

    def take(self, items: Sequence[Item], now: int) -> None:
        transport = self._transport
        for item in items:
            transport.take_note(item, now)
            transport._consumer.done(self._name, item.id)

    def lost(self, reading: Reading) -> None:
        self._transport.notes_lost(reading)
