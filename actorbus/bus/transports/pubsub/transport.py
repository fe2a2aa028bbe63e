"""Messages between nodes over plain Redis pub/sub: at most once, live only.

Every node listens to two channels: its own, for what is sent to its agents, and the one of all,
for broadcasts, events and word of who is where. Agents of this node are offered to directly.
Events go to all nodes, each of which matches its own subscriptions.

*The outbox.* Senders encode, put and go on; one thread publishes bursts. A publish that nobody
heard tells that its node is gone: what it carried is lost, and said to be (``OwnerLost`` to who
asked, a dead letter for what was told). So is a burst whose connection broke half-way: it may
have arrived, and sending it again might deliver it twice.

*Who is where.* Nodes announce their agents as they come and go, with a revision that shows a
gap. A name that is not in the view costs one round trip: when our own echo comes back, all that
was announced before has come too. A node that is silent for long is forgotten.

A name that two nodes take at the same moment is with both: nothing here fences.
"""

from __future__ import annotations

import os
import random
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.mailbox import MailboxPolicy, Refusal
from actorbus.bus.routing import Route, Router
from actorbus.bus.transport import Guarantee, Guarantees
from actorbus.bus.transports.errors_in_transit import (
    error_fields,
    read_error,
)
from actorbus.bus.transports.pubsub.outbox import Outbox, Outgoing, batches
from actorbus.bus.transports.pubsub.view import View
from actorbus.bus.transports.pubsub.wire import (
    Word,
    pack_batch,
    read_batch,
)
from actorbus.bus.transports.remote_answer import RemoteAnswer
from actorbus.codec import ENVELOPE_LIMIT
from actorbus.errors import (
    ActorbusError,
    AgentStopped,
    BusClosed,
    MailboxFull,
    NameTaken,
    OwnerLost,
    TransportUnavailable,
    Undecodable,
    UnknownRecipient,
)
from actorbus.message import IdSource, Message, MessageId, MessageKind, Priority, Reason
from actorbus.redis_client import Kind, encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.bus.mailbox import Inbox, Offered
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.pubsub.wire import Frame
    from actorbus.codec import Codec
    from actorbus.redis_client import RedisServer

PUBSUB: Final = Guarantees(
    transport="redis+pubsub",
    delivery="at most once, live only",
    survives="-",
    order="yes while connected",
    bounded="no",
    unknown_recipient="error at once",
    fanout="Redis pub/sub",
    given=frozenset(
        {
            Guarantee.ORDERED,
            Guarantee.PRIORITIZED,
            Guarantee.KNOWN_RECIPIENTS,
            Guarantee.FANOUT,
        }
    ),
)

_ROUND_TRIP: Final = 1.0
_TABLE_PART: Final = 1_000
_LONGEST_PAUSE: Final = 1.0
_DOWN_FOR: Final = 2.0
"""Seconds without a connection after which sends fail instead of waiting in the outbox."""


class PubSubTransport:
    """The agents of one node, joined to those of others on the same server and namespace.

    Args:
        server: the Redis server.
        codec: what messages are encoded with, and decoded to.
        namespace: nodes of other namespaces are not heard.
        outbox: messages that may wait to be published.
        asks: requests that may wait for an answer from other nodes.
        beat, dead_after: seconds between signs of life, and without one until a node is gone.

    Raises:
        TransportUnavailable: the server is a cluster.
    """

    guarantees = PUBSUB

    def __init__(
        self,
        server: RedisServer,
        codec: Codec,
        *,
        namespace: str = "actorbus",
        outbox: int = 10_000,
        asks: int = 100_000,
        beat: float = 2.0,
        dead_after: float = 10.0,
    ) -> None:
        if server.kind is Kind.CLUSTER:
            raise TransportUnavailable(
                f"{server.shown}: a cluster does not say how many heard, and plain pub/sub lives by"
                " that; use a single server, or the durable transport"
            )
        self.shared: dict[str, Any] = {}
        self.node = os.urandom(8).hex()
        self._server = server
        self._codec = codec
        self._namespace = encoded(namespace)
        self._all = f"{{{self._namespace}}}:pubsub:all"
        self._batch_limit = codec.limit + ENVELOPE_LIMIT + 1_024
        self._outbox = Outbox(outbox, 8 * self._batch_limit)
        self.policy = MailboxPolicy(outbox)
        self._most_asks = asks
        self._beat = beat
        self._dead_after = dead_after
        self._home: Home | None = None
        self._now: Callable[[], float] = time.time
        self._ids = IdSource()
        self._skew = 0.0
        self._lock = threading.RLock()
        self._here: dict[str, Inbox] = {}
        self._router = Router()
        self._view = View()
        self._revision = 0
        self._asked: dict[MessageId, tuple[str, Message[Any]]] = {}
        self._taken: dict[tuple[str, MessageId], RemoteAnswer] = {}
        self._echoes: dict[int, threading.Event] = {}
        self._next_echo = count()
        self._expected: int | None = None
        self._asking: set[str] = set()
        self._settled = threading.Event()
        self._closing = threading.Event()
        self._hearing = threading.Event()
        self._down_since: float | None = time.monotonic()
        self._wire = _Wire(self)
        self._threads: list[threading.Thread] = []

    # -- life

    def join(self, home: Home) -> None:
        """What cannot be delivered ends at `home`, whose clock counts. Before ``start``."""
        self._home = home
        self._now = home.clock.now

    def start(self) -> None:
        """Listen, and tell the others that we are here.

        Raises:
            TransportUnavailable: the server did not answer within seconds.
        """
        for work, what in ((self._listen, "in"), (self._publish, "out"), (self._watch, "watch")):
            thread = threading.Thread(target=work, name=f"actorbus-pubsub-{what}", daemon=True)
            self._threads.append(thread)
            thread.start()
        if not self._hearing.wait(5.0):
            self.close()
            raise TransportUnavailable(f"{self._server.shown} cannot be reached")

    def open(self, home: Home) -> None:
        """``join`` and ``start``, unless somebody did."""
        if not self._threads:
            self.join(home)
            self.start()

    def pending(self) -> int:
        return self._outbox.waiting

    def leave(self) -> None:
        pass

    def close(self) -> None:
        """Say good-bye and let go of everything; what is not sent by now is lost, and told."""
        if self._closing.is_set():
            return
        if self._threads and self._down_since is None:
            self._say(self._all, [Word.BYE])
            self._outbox.flush(1.0)
        self._closing.set()
        stopped = BusClosed("the node has stopped")
        for outgoing in self._outbox.close():
            self._lost(outgoing, stopped, Reason.STOPPED)
        for message_id in list(self._asked):
            self._fail_ask(message_id, stopped)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)

    def flush(self, timeout: float) -> int:
        return self._outbox.flush(timeout)

    # -- who is here

    def entrance(self, inbox: Inbox) -> Inbox:
        return inbox

    def attach(self, inbox: Inbox, subscriptions: Sequence[Route] = ()) -> None:
        name = inbox.name
        with self._lock:
            elsewhere = self._view.node_of(name)
            if elsewhere is not None:
                raise NameTaken(name, elsewhere)
            if self._here.setdefault(name, inbox) is not inbox:
                raise NameTaken(name)
            self._announce(Word.UP, name)
        for route in subscriptions:
            self._router.add(route)

    def detach(self, inbox: Inbox, *, gone: bool = True) -> None:
        with self._lock:
            if self._here.get(inbox.name) is not inbox:
                return
            del self._here[inbox.name]
            self._announce(Word.DOWN, inbox.name)
        self._router.forget(inbox.name)

    def route(self, name: str) -> Inbox | None:
        found = self._known(name)
        if found is None and self._catch_up():
            found = self._known(name)
        return found

    def names(self) -> list[str]:
        with self._lock:
            return list({**self._here, **dict.fromkeys(self._view.names())})

    def subscribe(self, route: Route) -> None:
        self._router.add(route)

    def unsubscribe(self, route: Route) -> None:
        self._router.remove(route)

    def audience(self, message: Message[Any]) -> Sequence[Inbox]:
        local = self._audience_here(message)
        with self._lock:
            alone = not self._view.peers()
        # First, so that what cannot be encoded reaches nobody.
        return local if alone else [self._wire, *local]

    # -- sending, for remote inboxes and answers

    def send(self, message: Message[Any], name: str | None) -> Offered:
        """Queue `message` for the node of `name`, or for all.

        Raises:
            TransportUnavailable: there is no connection, for seconds already.
            UnsupportedPayload, PayloadTooLarge: it cannot be carried.
        """
        self._check_connected()
        channel, node = self._all, None
        if name is not None:
            with self._lock:
                node = self._view.node_of(name)
            if node is None:
                return Refusal.CLOSED
            channel = self._channel(node)
        data = self._codec.encode(self._on_the_wire(message))
        if message.kind is MessageKind.REQUEST and node is not None:
            self._expect(message, node)
        if self._outbox.put(Outgoing(channel, [Word.MESSAGE, data], len(data), message)):
            return None
        self._asked.pop(message.id, None)
        return Refusal.FULL

    def when_room(self, waiter: Callable[[], object]) -> bool:
        return self._outbox.when_room(waiter)

    def forget(self, waiter: Callable[[], object]) -> None:
        self._outbox.forget(waiter)

    def _owed(self, node: str, message: Message[Any], inbox: Inbox | None) -> RemoteAnswer:
        """Where the answer to a request of another node goes."""

        def value(answer: RemoteAnswer, value: Any) -> None:
            try:
                packed = self._codec.encode_payload(value)
            except ActorbusError as problem:
                error(answer, problem)
                return
            over(answer)
            self._put_answer(node, [Word.REPLY, answer.id.to_bytes(16, "big"), packed], len(packed))

        def error(answer: RemoteAnswer, error: BaseException) -> None:
            name, text, fields = error_fields(error)
            frame: Frame = [Word.ERROR, answer.id.to_bytes(16, "big"), name, text, fields]
            over(answer)
            self._put_answer(node, frame, len(pack_batch("", [frame])))

        def over(answer: RemoteAnswer) -> None:
            self._taken.pop((node, answer.id), None)

        return RemoteAnswer(message.id, inbox, value=value, error=error, dropped=over)

    def _put_answer(self, node: str, frame: Frame, size: int) -> None:
        self._outbox.put(Outgoing(self._channel(node), frame, size))

    def _expect(self, message: Message[Any], node: str) -> None:
        if len(self._asked) >= self._most_asks:
            raise MailboxFull("asks of other nodes", self._most_asks)
        self._asked[message.id] = (node, message)
        answer_to = message.answer_to
        if answer_to is not None:
            answer_to.then(lambda: self._no_longer_wanted(message.id))

    def _no_longer_wanted(self, message_id: MessageId) -> None:
        """The reply is settled: if not by the other node, tell it."""
        asked = self._asked.pop(message_id, None)
        if asked is not None and not self._closing.is_set():
            self._say(self._channel(asked[0]), [Word.CANCEL, message_id.to_bytes(16, "big")], False)

    def _on_the_wire(self, message: Message[Any]) -> Message[Any]:
        """The message with its times as the server would tell them."""
        deadline = message.deadline
        return message.copy(
            created_at=message.created_at + self._skew,
            deadline=None if deadline is None else deadline + self._skew,
            answer_to=None,
        )

    def _say(self, channel: str, frame: Frame, barrier: bool = True) -> None:
        self._outbox.put(Outgoing(channel, frame, 64, None, barrier))

    def _announce(self, word: Word, name: str) -> None:
        self._revision += 1
        if self._threads:
            self._say(self._all, [word, self._revision, name])

    def _channel(self, node: str) -> str:
        return f"{{{self._namespace}}}:pubsub:node:{node}"

    def _check_connected(self) -> None:
        since = self._down_since
        if self._closing.is_set():
            raise BusClosed("the node has stopped")
        if since is not None and time.monotonic() - since > _DOWN_FOR:
            raise TransportUnavailable(f"{self._server.shown} is away; nothing was sent")

    # -- looking up

    def _known(self, name: str) -> Inbox | None:
        inbox = self._here.get(name)
        if inbox is not None:
            return inbox
        with self._lock:
            return _Remote(self, name) if self._view.node_of(name) is not None else None

    def _catch_up(self) -> bool:
        """Hear all that was announced before now. False if nothing can be heard."""
        if not self._hearing.is_set() or threading.current_thread() in self._threads:
            return False
        give_up = time.monotonic() + _ROUND_TRIP
        self._settled.wait(_ROUND_TRIP)
        number, came = next(self._next_echo), threading.Event()
        self._echoes[number] = came
        try:
            self._say(self._all, [Word.ECHO, number])
            return came.wait(max(0.0, give_up - time.monotonic()))
        finally:
            del self._echoes[number]

    def _audience_here(self, message: Message[Any]) -> list[Inbox]:
        if message.topic is None:
            found: list[Inbox | None] = list(self._here.copy().values())
        else:
            names = self._router.names(message.topic, message.payload)
            found = [self._here.get(name) for name in names]
        return [inbox for inbox in found if inbox is not None and inbox.name != message.sender]

    # -- the thread that publishes

    def _publish(self) -> None:
        client: Any = self._server.publisher()
        try:
            while not self._closing.is_set():
                if self._down_since is not None and not self._reach(client):
                    continue
                burst = self._outbox.take(0.5)
                try:
                    for batch in batches(burst, self._batch_limit):
                        self._publish_batch(client, batch)
                finally:
                    self._outbox.done()
        finally:
            client.close()

    def _publish_batch(self, client: Any, batch: list[Outgoing]) -> None:
        data = pack_batch(self.node, [outgoing.frame for outgoing in batch])
        try:
            with self._server.errors():
                heard = client.publish(batch[0].channel, data)
        except TransportUnavailable as error:
            if self._down_since is None:
                self._down_since = time.monotonic()
            for outgoing in batch:
                self._lost(outgoing, error, Reason.CRASHED_OWNER)
            return
        if batch[0].frame[0] == Word.WHO and batch[0].channel == self._all:
            self._expected = heard - 1
            self._see_if_settled()
        if not heard and batch[0].channel != self._all:
            for outgoing in batch:
                if outgoing.message is not None:
                    gone = OwnerLost(outgoing.message.recipient or "", maybe_ran=False)
                    self._lost(outgoing, gone, Reason.CRASHED_OWNER)

    def _reach(self, client: Any) -> bool:
        """Whether the server answers; takes its time from it on the way."""
        try:
            with self._server.errors():
                asked = self._now()
                seconds, micros = client.time()
        except TransportUnavailable:
            self._closing.wait(random.uniform(0.01, 0.25))
            return False
        self._skew = seconds + micros / 1e6 - (asked + self._now()) / 2
        self._down_since = None
        return True

    def _lost(self, outgoing: Outgoing, error: BaseException, reason: Reason) -> None:
        message = outgoing.message
        if message is None:
            return
        self._asked.pop(message.id, None)
        self._fail(message, message.recipient or message.topic, reason, error)

    def _fail(
        self, message: Message[Any], name: str | None, reason: Reason, error: BaseException
    ) -> None:
        if self._home is not None:
            self._home.fail(message, name, reason, error)
        elif message.answer_to is not None:
            message.answer_to.fail(error)

    def _fail_ask(self, message_id: MessageId, error: BaseException) -> None:
        asked = self._asked.pop(message_id, None)
        if asked is not None and asked[1].answer_to is not None:
            asked[1].answer_to.fail(error)

    # -- the thread that listens

    def _listen(self) -> None:
        pause = 0.02
        while not self._closing.is_set():
            client: Any = self._server.subscriber()
            try:
                with self._server.errors():
                    self._hear(client)
                pause = 0.02
            except (TransportUnavailable, OSError):
                pause = min(2 * pause, _LONGEST_PAUSE)
            finally:
                if self._hearing.is_set():
                    self._hearing.clear()
                    self._settled.clear()
                    self._expected = None
                client.close()
            self._closing.wait(random.uniform(0, pause))

    def _hear(self, client: Any) -> None:
        """Until the connection breaks."""
        ear = client.pubsub()
        try:
            ear.subscribe(self._all, self._channel(self.node))
            subscribed, spoke, asked = 0, time.monotonic(), False
            while not self._closing.is_set():
                heard = ear.get_message(timeout=0.1)
                now = time.monotonic()
                if heard is None:
                    if now - spoke > 2 * self._beat:
                        if asked:
                            raise TransportUnavailable(f"{self._server.shown} went silent")
                        ear.ping()
                        spoke, asked = now, True
                    continue
                spoke, asked = now, False
                if heard["type"] == "subscribe":
                    subscribed += 1
                    if subscribed == 2:
                        self._introduce()
                elif heard["type"] == "message":
                    self._take(heard["data"])
        finally:
            ear.close()

    def _introduce(self) -> None:
        """We hear now: nobody fell silent while we did not, and all may have changed."""
        now = time.monotonic()
        with self._lock:
            for node in self._view.peers():
                self._view.heard(node, now)
            self._tell_table(self._all)
            self._say(self._all, [Word.WHO])
        self._hearing.set()

    def _tell_table(self, channel: str) -> None:
        names = list(self._here)
        parts = max(1, -(-len(names) // _TABLE_PART))
        for part in range(parts):
            some = names[part * _TABLE_PART : (part + 1) * _TABLE_PART]
            self._say(channel, [Word.TABLE, self._revision, part, parts, some])

    def _take(self, data: bytes) -> None:
        """One batch; nothing in it stops the reader."""
        try:
            node, frames = read_batch(data, 2 * self._batch_limit)
        except Undecodable as error:
            self._undecodable(data, error)
            return
        with self._lock:
            if node != self.node:
                self._view.heard(node, time.monotonic())
        for frame in frames:
            try:
                self._obey(node, frame)
            except Undecodable as error:
                self._undecodable(repr(frame)[:1_024].encode(), error)
            except Exception as error:  # noqa: BLE001 - whatever hostile bytes trip over
                why = Undecodable(f"{type(error).__name__} in a frame")
                self._undecodable(repr(frame)[:1_024].encode(), why)

    def _obey(self, node: str, frame: Frame) -> None:
        if node == self.node:
            if frame[0] == Word.ECHO and (came := self._echoes.get(frame[1])) is not None:
                came.set()
            return
        match frame:
            case [Word.MESSAGE, data]:
                self._deliver(node, data)
            case [Word.REPLY, message_id, data]:
                self._answered(_read_id(message_id), data)
            case [Word.ERROR, message_id, name, text, fields]:
                self._answered_error(_read_id(message_id), name, text, fields)
            case [Word.CANCEL, message_id]:
                self._cancelled(node, _read_id(message_id))
            case [Word.BYE]:
                self._gone(node, maybe_ran=True)
            case _:
                self._learn(node, frame)

    def _learn(self, node: str, frame: Frame) -> None:
        """Word of who is where."""
        with self._lock:
            match frame:
                case [Word.UP, revision, name]:
                    known = self._view.up(node, revision, name)
                case [Word.DOWN, revision, name]:
                    known = self._view.down(node, revision, name)
                case [Word.BEAT, revision]:
                    known = self._view.is_at(node, revision)
                    # One beat is time enough for the answer: the question was lost.
                    self._asking.discard(node)
                case [Word.TABLE, revision, part, parts, names]:
                    if not all(type(name) is str for name in names):
                        raise Undecodable("a table of names that are none")
                    self._view.table(node, revision, part, parts, names)
                    self._asking.discard(node)
                    known = True
                case [Word.WHO]:
                    self._tell_table(self._channel(node))
                    known = True
                case _:
                    known = True
            if not known and node not in self._asking:
                self._asking.add(node)
                self._say(self._channel(node), [Word.WHO])
        self._see_if_settled()

    def _see_if_settled(self) -> None:
        """Whether everybody who heard us ask has told who they have."""
        with self._lock:
            known = sum(self._view.knows(node) for node in self._view.peers())
        if self._expected is not None and known >= self._expected:
            self._settled.set()

    def _deliver(self, node: str, data: bytes) -> None:
        message = self._codec.decode(data)
        message.created_at -= self._skew
        if message.deadline is not None:
            message.deadline -= self._skew
        name = message.recipient
        if name is None:
            for inbox in self._audience_here(message):
                self._offer(message, inbox)
            return
        found = self._here.get(name)
        if message.kind is MessageKind.REQUEST:
            answer = self._owed(node, message, found)
            message.answer_to = answer
            self._taken[node, message.id] = answer
        if found is None:
            unknown = UnknownRecipient(name, self._here.copy())
            self._fail(message, name, Reason.NO_SUCH_AGENT, unknown)
            return
        self._offer(message, found)
        if getattr(found.owner, "parked", False) and message.answer_to is not None:
            found.owner.refuse_asks()

    def _offer(self, message: Message[Any], inbox: Inbox) -> None:
        offered = inbox.offer(message)
        if offered is Refusal.CLOSED:
            self._fail(message, inbox.name, Reason.STOPPED, AgentStopped(inbox.name))
        elif offered is not None:
            full = MailboxFull(inbox.name, inbox.policy.capacity)
            refused = message if offered is Refusal.FULL else offered
            self._fail(refused, inbox.name, Reason.MAILBOX_FULL, full)

    def _answered(self, message_id: MessageId, data: bytes) -> None:
        asked = self._asked.pop(message_id, None)
        if asked is None:
            return
        try:
            value = self._codec.decode_payload(data)
        except Undecodable as error:
            asked[1].answer_to.fail(error)
        else:
            asked[1].answer_to.resolve(value)

    def _answered_error(
        self, message_id: MessageId, name: str, text: str, fields: dict[Any, Any]
    ) -> None:
        asked = self._asked.pop(message_id, None)
        if asked is not None:
            message = asked[1]
            message.answer_to.fail(read_error(message.recipient or "", name, text, fields))

    def _cancelled(self, node: str, message_id: MessageId) -> None:
        answer = self._taken.pop((node, message_id), None)
        if answer is not None:
            answer.cancel()

    def _undecodable(self, data: bytes, error: Undecodable) -> None:
        now = self._now()
        message_id = self._ids.make(now)
        letter: Message[Any] = Message(
            message_id,
            MessageKind.TELL,
            None,
            None,
            None,
            bytes(data[:1_024]),
            Priority.NORMAL,
            now,
            None,
            message_id,
            None,
            None,
            1,
            0,
            None,
        )
        self._fail(letter, None, Reason.UNDECODABLE, error)

    # -- the thread that watches over it

    def _watch(self) -> None:
        while not self._closing.wait(self._beat * random.uniform(0.9, 1.1)):
            if not self._hearing.is_set():
                continue
            with self._lock:
                self._say(self._all, [Word.BEAT, self._revision])
                if not self._settled.is_set():
                    # Somebody was asked and died, or the question was lost.
                    self._say(self._all, [Word.WHO])
                silent = self._view.silent(time.monotonic() - self._dead_after)
            for node in silent:
                self._gone(node, maybe_ran=True)

    def _gone(self, node: str, *, maybe_ran: bool) -> None:
        with self._lock:
            self._view.forget(node)
            self._asking.discard(node)
            lost = [one for one, (asked, _) in self._asked.copy().items() if asked == node]
            given_up = [key for key in self._taken.copy() if key[0] == node]
        for message_id in lost:
            _, message = self._asked.get(message_id, (node, None))
            if message is not None:
                name = message.recipient or ""
                self._fail_ask(message_id, OwnerLost(name, maybe_ran=maybe_ran))
        for _, message_id in given_up:
            self._cancelled(node, message_id)


class _Remote:
    """The inbox of an agent of another node."""

    __slots__ = ("_transport", "name", "owner", "policy")
    offer_later = None

    def __init__(self, transport: PubSubTransport, name: str) -> None:
        self._transport = transport
        self.name = name
        self.owner: Any = None
        self.policy = transport.policy

    def offer(self, message: Message[Any]) -> Offered:
        return self._transport.send(message, self.name)

    def when_room(self, waiter: Callable[[], object]) -> bool:
        return self._transport.when_room(waiter)

    def forget(self, waiter: Callable[[], object]) -> None:
        self._transport.forget(waiter)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Remote) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class _Wire(_Remote):
    """What broadcasts and events reach all other nodes through."""

    __slots__ = ()

    def __init__(self, transport: PubSubTransport) -> None:
        super().__init__(transport, "the other nodes")

    def offer(self, message: Message[Any]) -> Offered:
        return self._transport.send(message, None)


def _read_id(data: bytes) -> MessageId:
    if len(data) != 16:
        raise Undecodable("an id of another length")
    return MessageId(int.from_bytes(data, "big"))
