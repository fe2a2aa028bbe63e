"""Messages between nodes through Redis: at least once, in order, bounded. Read this page first.

A message's way: an agent's *entrance* packs it -> the outbox, which numbers and sends what waits
in batches -> the agent's inbox, a log in Redis -> its owner's consumer -> its mailbox in that
process -> its handler; how it ended goes back the same way as an acknowledgement. That is so for
agents of this node too: what was accepted outlives the process, in the order that all senders
see. See ``log`` for the theory.

Requests are answered through an inbox that each node has of its own; an answer that its node says
it has heard ahead, see ``Herald``, needs no place there. What a handler sends is in the inboxes of
others, and its answer there or heard, before its message is acknowledged.

An agent whose node dies is taken over by another node that can make it (``Crew``); the others
keep their inboxes for as long as a node of theirs may come back.

Who does what: ``Sender`` (all that goes out), ``Consumer`` and ``Receiver`` (messages that come
in), ``TopicReader`` and ``Events`` (broadcasts and events), ``Notes`` (what nodes tell each other),
``Keeper`` (beats, and finds what nobody keeps), ``Adopter`` (makes it here), ``Orphans`` (what runs
nowhere), ``Parking`` (asks for who is parked here), ``Burials`` (who ends here), ``Reclaims`` (who
was lost by the server), ``Stays`` (who is here).
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.transport import Guarantee, Guarantees
from actorbus.bus.transports.redis.adopter import Adopter, Crew, NoCrew
from actorbus.bus.transports.redis.answers import Answers
from actorbus.bus.transports.redis.burials import Burials
from actorbus.bus.transports.redis.checkup import check
from actorbus.bus.transports.redis.consumer import Consumer
from actorbus.bus.transports.redis.deployment import check_in
from actorbus.bus.transports.redis.entrance import Entrance, Entrances, LogEntrance
from actorbus.bus.transports.redis.errands import Errands
from actorbus.bus.transports.redis.events import Events
from actorbus.bus.transports.redis.herald import AHEAD, HEARD
from actorbus.bus.transports.redis.keeper import Keeper
from actorbus.bus.transports.redis.lanes import REDISCOVERY
from actorbus.bus.transports.redis.leftovers import Leftovers
from actorbus.bus.transports.redis.letters import is_notes
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.mail import Mail
from actorbus.bus.transports.redis.muster import Muster
from actorbus.bus.transports.redis.notes import Notes
from actorbus.bus.transports.redis.orphans import Orphans
from actorbus.bus.transports.redis.ownership import Fenced, OwnedBy, Terms
from actorbus.bus.transports.redis.parking import Parking
from actorbus.bus.transports.redis.receiver import Arrivals, Receiver
from actorbus.bus.transports.redis.reclaims import Reclaims
from actorbus.bus.transports.redis.sender import Sender
from actorbus.bus.transports.redis.stays import BURIAL, Stay, Stays
from actorbus.bus.transports.redis.topics.log import TopicLog
from actorbus.bus.transports.redis.topics.reader import TopicReader
from actorbus.bus.transports.redis.trouble import Trouble
from actorbus.errors import BusClosed, InvalidSettings, NameTaken, TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.bus.mailbox import Inbox, MailboxPolicy
    from actorbus.bus.routing import Route
    from actorbus.bus.transport import Home
    from actorbus.bus.waiting import Hearing
    from actorbus.codec import Codec
    from actorbus.codec.signing import Trust
    from actorbus.message import Message
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
        self.crew: Crew = NoCrew()
        self._server = server
        self._namespace = namespace
        self._partitions = partitions
        self.codec = codec
        self._ttl = ttl
        self._orphans_kept = orphans_kept
        self._home: Home | None = None
        self._lock = threading.RLock()
        self._closed = False
        self._offered: dict[str, Terms] = {}
        """Agents that run nowhere, and that this node could make."""
        self._stays = Stays(self.node)
        self._trouble = Trouble()
        self._errands = Errands("actorbus-errands", self._trouble.report)
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
        self._entrances = Entrances(self._sender, self._stays)
        self._log_entrance = LogEntrance(self._sender)
        self._answers = Answers(self._sender, codec)

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
            self._assemble(home)
            self._keeper.start()
        except TransportUnavailable:
            self._home = None  # it may be tried again
            raise
        self._notes.open()
        self._topics.start()
        self._sender.start(home)
        self._consumer.start()
        self._errands.start()
        self._adopter.start()

    def _assemble(self, home: Home) -> None:
        log, node, stays = self.log, self.node, self._stays
        mail, answers, requests = self._mail, self._answers, self._sender.requests
        errands, trouble = self._errands, self._trouble
        events = Events(home, stays.here, mail.opened_event)
        topics = events.reader = self._topics = TopicReader(
            TopicLog(self._server, log),
            self._server,
            node,
            events,
            codec=self.codec,
            payload=events.payload,
            failed=trouble.report,
        )
        lost = self._sender.owner_lost
        leftovers = Leftovers(log, home, mail, answers)
        orphans = Orphans(
            log,
            node,
            leftovers=leftovers,
            errands=errands,
            ttl=self._ttl,
            kept=self._orphans_kept,
            lost=lost,
        )
        adopter = self._adopter = Adopter(
            log, topics, stays, crew=lambda: self.crew, trouble=trouble
        )
        keeper = self._keeper = Keeper(
            log,
            node,
            ttl=self._ttl,
            wants=adopter.wants,
            strays=adopter.strays,
            adopt=adopter.adopt,
            is_busy=adopter.is_busy,
            died=orphans.died,
            beaten=trouble.over,
            failed=trouble.report,
        )
        consumer = self._consumer = Consumer(
            log,
            self._server,
            node,
            failed=trouble.report,
            unowned=keeper.hurry,
            due=keeper.hurry,
            hints={AHEAD: self._heard, HEARD: self._sender.thanked},
            broke=self._lost_contact,
            answers=AHEAD,
        )
        self._burials = Burials(
            log,
            stays,
            consumer=consumer,
            topics=topics,
            leftovers=leftovers,
            errands=errands,
            trouble=trouble,
        )
        self._notes = Notes(
            log,
            home,
            stays,
            node=node,
            ttl=self._ttl,
            consumer=consumer,
            mail=mail,
            requests=requests,
            answers=answers,
            errands=errands,
            trouble=trouble,
            thank=self._sender.thank,
        )
        self._receiver = Receiver(home, mail, answers)
        self._parking = Parking(log, home, mail, answers, stays, errands)
        self._reclaims = Reclaims(
            log,
            stays,
            node=node,
            ttl=self._ttl,
            consumer=consumer,
            errands=errands,
            forgotten=self._offer_again,
            gone=self._let_go,
        )

    @property
    def hearing(self) -> Hearing | None:
        """What comes from other nodes, once it is open, for threads that wait for it to hear."""
        return None if self._home is None else self._consumer.hearing

    def leave(self) -> None:
        moving = self._stays.leave()
        if self._home is not None:
            self._consumer.hold([stay.agent for stay in moving])

    def close(self) -> None:
        """Give up the agents that others can run, end the rest, and say good-bye."""
        with self._lock:
            if self._closed or self._home is None:
                self._closed = True
                return
            self._closed = True
        self._sender.refuse()
        self._adopter.close(5.0)
        self._burials.hasten()
        for stay in list(self._stays.here.values()):
            self.detach(stay.inbox)
        # In this order: the end of an agent reads and acknowledges, and tells those who ask.
        self._errands.close(BURIAL)
        self._topics.close(2.0)
        with suppress(TransportUnavailable):  # a forked child has nothing to flush
            self._sender.flush(2.0)
        self._consumer.close(2.0)
        try:
            self._notes.close()
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
        taken = self._adopter.resumed(name)
        asked = self._topics.entering(name)
        told: Any = None
        try:
            if taken is not None and taken.terms == terms:
                ownership = taken.ownership
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
            before = self._adopter.before(name) or ownership.before or None
            if taken is not None:
                for route in subscriptions:
                    self._topics.declare(route)  # whoever took it has all begin together
            elif before or not self._topics.enter(name, asked, told, subscriptions):
                self._follow(stay, before, subscriptions)
        except BaseException:
            self._stays.end(stay)
            self.log.release(ownership)
            raise
        self._entrances.begin(name, inbox.owner)
        self._consumer.read(
            ownership, Arrivals(stay, self._receiver, self._reclaims), most=stay.most
        )

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
        self._entrances.forget(stay.agent)
        if stay.ownership is not None:
            self._burials.put(stay)

    def parked(self, inbox: Inbox) -> None:
        """The agent with that mailbox handles nothing for now: who asks it is to hear so."""
        self._parking.put(inbox)

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
        if self._home is None:
            return None
        if self.log.known([name])[0] is None and not self._sender.doubts:
            return None
        return self._entrances.learn(name)

    def ref_entrance(self, name: str) -> Inbox:
        """The way to an agent that somebody knows of, without a look whether it is there."""
        return self._entrances.to(name)

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

    def muster(self, loaded: str, apart: float) -> tuple[int, int]:
        """This node's place, from 0, among those that start with it, and how many they are.

        See ``Muster.peers``.

        Raises:
            TransportUnavailable: the server did not answer.
        """
        peers = Muster(self._server, self.log.tags[0], self.node).peers(loaded, apart)
        return peers.index(self.node), len(peers)

    def nobodys(self, names: list[str]) -> set[str]:
        """Those of them that no node has.

        Raises:
            TransportUnavailable: the server did not answer.
        """
        known = self.log.known(names)
        return {name for name, one in zip(names, known, strict=True) if one is None or not one.node}

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

    # --

    def _forget(self, agent: str) -> None:
        """Nobody knows that agent any more."""
        self._entrances.forget(agent)

    def _let_go(self, agent: str) -> None:
        """Another node owns the agent now."""
        self._entrances.forget(agent)
        self._topics.lost([agent])

    def _heard(self, what: bytes) -> None:
        """A note is on its way to this node."""
        self._notes.hear(what)

    def _lost_contact(self) -> None:
        """Nobody knows what the server will know once it is back."""
        if not self._sender.doubts:
            self._sender.doubt(math.inf)
            self._errands.put(self._see_if_known, None)

    def _see_if_known(self, _: list[None]) -> None:
        self._sender.doubt(0.0 if self._notes.is_there() else REDISCOVERY)

    def _offer_again(self) -> None:
        self._sender.doubt(REDISCOVERY)
        check_in(self._server, self._namespace, len(self.log.tags))
        for name, terms in self._offered.copy().items():
            self.log.offer(name, terms)
