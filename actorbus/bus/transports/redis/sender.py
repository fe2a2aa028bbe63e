"""The way out of a node: messages, events and notes to other nodes, and what becomes of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from actorbus.bus.mailbox import MailboxPolicy, Refusal
from actorbus.bus.origin import CURRENT
from actorbus.bus.transports.redis.herald import HEARD, Herald, read_heard
from actorbus.bus.transports.redis.lanes import Accepted, Hole, Parcel, Refused
from actorbus.bus.transports.redis.letters import NOTE_LEVEL, notes_of, pack_cancel, pack_stop
from actorbus.bus.transports.redis.loads import Taken
from actorbus.bus.transports.redis.outbox import Outbox
from actorbus.bus.transports.redis.requests import Requests
from actorbus.errors import (
    BusClosed,
    MailboxFull,
    NotFlushed,
    OwnerLost,
    TransportUnavailable,
    UnknownRecipient,
)
from actorbus.message import IdSource, MessageKind, Reason, envelope
from actorbus.telemetry import MessagesLost

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from actorbus.bus.mailbox import Offered
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.delivery import Delivery
    from actorbus.bus.transports.redis.errands import Errands
    from actorbus.bus.transports.redis.events import EventDelivery
    from actorbus.bus.transports.redis.lanes import News
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.mail import Mail
    from actorbus.errors import ActorbusError
    from actorbus.message import Entry, Message, PlainEntry
    from actorbus.redis_client import RedisServer


class Sent:
    """A message on its way out, as long as it is not known how that ended.

    One whose sender had nothing in hand is its own: what waits is looked at by Python's
    collector again and again.
    """

    __slots__ = ("by", "delivery", "message")

    def __init__(self, message: Entry | None, delivery: Any = None, by: str | None = None) -> None:
        self.message = message
        self.delivery: Delivery | EventDelivery | None = delivery
        """What its sender had in hand, and which owes it."""
        self.by = by

    def settled(self) -> None:
        """It has arrived, or will not."""
        delivery, self.delivery, self.message = self.delivery, None, None
        if delivery is not None:
            delivery.settled(self.by)


class Sender:
    """Sends for one node. Safe from any thread.

    Args:
        errands: does what takes a round trip.
        gone: called with an agent that nobody knows any more.
        limit: messages that may wait to be sent.
        asks: requests that may wait for an answer.
        send_timeout: seconds that a message without a deadline waits for room.
    """

    def __init__(
        self,
        log: InboxLog,
        server: RedisServer,
        mail: Mail,
        node: str,
        *,
        errands: Errands,
        gone: Callable[[str], object],
        limit: int,
        asks: int,
        send_timeout: float,
    ) -> None:
        self.policy = MailboxPolicy(limit)
        self.requests = Requests(asks, self._given_up)
        self._log = log
        self._server = server
        self._mail = mail
        self._node = node
        self._errands = errands
        self._gone = gone
        self._send_timeout = send_timeout
        self._ids = IdSource()
        self._herald = Herald(log, node)
        self._outbox = Outbox(log, node, told=self._told, limit=limit)
        self._home: Home | None = None
        self._closing = False

    # -- life

    def start(self, home: Home) -> None:
        self._home = home
        self._outbox.start()

    def refuse(self) -> None:
        """Take no more messages; answers still go out."""
        self._closing = True

    def flush(self, timeout: float) -> int:
        """Wait until everything is accepted or refused; how many are not.

        Raises:
            TransportUnavailable: this process was forked from the node's.
        """
        self._server.check_process()
        return self._outbox.flush(timeout)

    def close(self, timeout: float) -> None:
        """End; what is not accepted is lost, and said to be."""
        unsent = self._outbox.close(timeout)
        self._herald.close()
        for parcel in unsent:
            self._unsent(parcel.tag, Reason.STOPPED, NotFlushed(len(unsent)))
        self.requests.fail_all(BusClosed("the node has stopped"))

    @property
    def waiting(self) -> int:
        """Messages that are not accepted yet."""
        return self._outbox.waiting

    # -- messages

    def send(self, message: Message[Any], agent: str, delay: float | None = None) -> Offered:
        """Pack `message` and have it sent. None: it is on its way.

        Raises:
            UnsupportedPayload, PayloadTooLarge: it cannot be carried.
            MailboxFull: too many requests wait for answers.
            TransportUnavailable: Redis is away, and no more may wait until it is back; or this
                process was forked from the node's.
        """
        self._check_open()
        request = message.kind is MessageKind.REQUEST and message.answer_to is not None
        blob = self._mail.pack(message, agent, self._node if request else None, delay)
        if request:
            self.requests.expect(message)
            if (expected := getattr(message.answer_to, "expected", None)) is not None:
                self._mail.codec.types.add_hint(expected)
        if self._put(agent, message, blob, delay):
            return None
        if request:
            self.requests.forget(message)
        return self._has_no_room()

    def send_plainly(self, entry: PlainEntry, agent: str) -> Offered:
        """``send`` for a tell that needs no envelope on its way.

        Raises:
            As for ``send``.
        """
        self._check_open()
        blob = self._mail.pack_plainly(entry)
        if blob is None:
            return self.send(envelope(entry), agent)
        return None if self._put(agent, entry, blob, None) else self._has_no_room()

    def publish(self, message: Message[Any]) -> Offered:
        """Pack a broadcast or an event and have it appended to the log that all nodes read.

        Raises:
            As for ``send``.
        """
        self._check_open()
        name, blob = self._mail.pack_event(message)
        return None if self._put(name, message, blob, None) else self._has_no_room()

    def doubt(self, seconds: float) -> None:
        """For so long, wait for agents that the server does not know: it may have lost them."""
        self._outbox.doubt(seconds)

    @property
    def doubts(self) -> bool:
        """Whether the server may have lost agents that will be there again."""
        return self._outbox.doubts

    def when_room(self, waiter: Callable[[], object]) -> bool:
        return self._outbox.when_room(waiter)

    def forget(self, waiter: Callable[[], object]) -> None:
        self._outbox.forget(waiter)

    # -- notes to other nodes

    def note(self, node: str, blob: bytes, delivery: Delivery | None = None) -> None:
        """Tell another node something. Few enough never to be refused for want of room."""
        parcel = self._sealed_note(node, blob, delivery)
        if not self._outbox.put_at_once(parcel, insist=True):
            parcel.tag.settled()

    def note_ahead(self, node: str, blob: bytes, delivery: Delivery | None) -> None:
        """``note`` for what somebody waits for: they hear it before it is in their inbox.

        If they say in time that they did, it need not go there. `delivery` waits for either.
        """
        parcel = self._sealed_note(node, blob, delivery)
        if self._herald.tell(node, parcel.agent, parcel.id, parcel.blob):
            is_put = self._outbox.put_soon(parcel)
        else:
            is_put = self._outbox.put_at_once(parcel, insist=True)
            if self._herald.wanted:
                self._errands.put(self._open_herald, None)
        if not is_put:
            parcel.tag.settled()

    def hint(self, node: str, blob: bytes, *, sealed: bool) -> None:
        """``note`` for what nobody needs, and strangers may cause: it goes where there is room."""
        make = self._sealed_note if sealed else self._note
        self._outbox.put(make(node, blob, None))

    def thank(self, node: str, note_id: bytes) -> None:
        """Tell a node, with the next request from here, that a note of its was heard ahead."""
        channel = self._log.bell(self._log.tag(notes_of(node)), node)
        self._outbox.ring_along(channel, HEARD + note_id)

    def thanked(self, what: bytes) -> None:
        """Another node has heard these notes of ours."""
        ids = read_heard(what)
        self._herald.heard(ids)
        self._outbox.needless(ids)

    def _open_herald(self, _: list[None]) -> None:
        self._herald.open()

    def _sealed_note(self, node: str, blob: bytes, delivery: Delivery | None) -> Parcel:
        sealed = self._mail.seal(notes_of(node), blob, level=NOTE_LEVEL)
        return self._note(node, sealed, delivery)

    def _note(self, node: str, blob: bytes, delivery: Delivery | None) -> Parcel:
        now = time.monotonic()
        return Parcel(
            notes_of(node),
            NOTE_LEVEL,
            self._ids.make(now).to_bytes(16, "big"),
            blob,
            now + self._send_timeout,
            None,
            None,
            Sent(None, delivery),
        )

    def stop_agent(self, name: str, drain: bool) -> None:
        """Tell the node that runs an agent to stop it."""
        self._errands.put(self._tell_to_stop, (name, drain))

    def _tell_to_stop(self, agents: list[tuple[str, bool]]) -> None:
        known = self._log.known([name for name, _ in agents])
        for (name, drain), found in zip(agents, known, strict=True):
            if found is not None and found.node:
                self.note(found.node, pack_stop(name, drain=drain))

    def owner_lost(self, agents: Container[str]) -> None:
        """The node that ran these agents is dead, and no other will run them."""
        home = self._home
        if home is None:
            return
        for request in self.requests.give_up(agents):
            error = OwnerLost(request.recipient or "", maybe_ran=True)
            home.fail(request, request.recipient, Reason.CRASHED_OWNER, error)

    def _given_up(self, request: Message[Any]) -> None:
        """Nobody waits for a request any more: the node that has it may stop working for it."""
        if self._closing or request.expired(time.monotonic() + self._mail.offset):
            return
        self._errands.put(self._cancel, request)

    def _cancel(self, requests: list[Message[Any]]) -> None:
        known = self._log.known([one.recipient or "" for one in requests])
        for request, found in zip(requests, known, strict=True):
            if found is not None and found.node:
                self.note(found.node, pack_cancel(request.id))

    # --

    def _check_open(self) -> None:
        if self._home is None or self._closing:
            raise BusClosed("the node is not running; start it, or use it as `with Node()`")
        self._server.check_process()  # the threads that would send it are the parent's

    def _put(self, name: str, message: Entry, blob: bytes, delay: float | None) -> bool:
        """Have `blob` sent to the inbox `name`. False: the outbox is full."""
        now = time.monotonic()
        if isinstance(message, tuple):
            message_id, _, _, level, _, _, _, _, _, deadline, _, _ = message
        else:
            message_id, level = message.id, message.priority._value_
            deadline = message.deadline
        expires = None if deadline is None else deadline - self._mail.offset
        origin = CURRENT.get()
        cause = None if origin is None else origin.entry
        delivery = None if cause is None or isinstance(cause, tuple) else cause.delivery
        until = now + self._send_timeout
        tag: Entry | Sent = message
        if delivery is not None and origin is not None:
            tag = Sent(message, delivery, origin.name)
            delivery.owe(origin.name)
        parcel = Parcel(
            name,
            level,
            message_id.to_bytes(16, "big"),
            blob,
            until if expires is None or expires > until else expires,
            expires,
            None if delay is None else now + delay,
            tag,
        )
        waited_for = not isinstance(message, tuple) and message.kind is MessageKind.REQUEST
        put = self._outbox.put_at_once if waited_for else self._outbox.put
        if put(parcel):
            return True
        _settle(tag)
        return False

    def _has_no_room(self) -> Offered:
        if self._outbox.problem is not None:
            raise TransportUnavailable(f"{self._outbox.problem}; {self.policy.capacity:,} wait")
        return Refusal.FULL

    def _told(self, news: News) -> None:
        """What became of something that was sent."""
        match news:
            case Accepted(parcels):
                for parcel in parcels:
                    _settle(parcel.tag)
            case Refused(parcel, Taken.NO_AGENT):
                self._gone(parcel.agent)
                self._unsent(parcel.tag, Reason.NO_SUCH_AGENT, UnknownRecipient(parcel.agent))
            case Refused(parcel, _):
                full = MailboxFull(parcel.agent, 0, "its inbox had no room")
                self._unsent(parcel.tag, Reason.MAILBOX_FULL, full)
            case Hole(agent, messages):
                if self._home is not None and self._home.telemetry.active:
                    self._home.telemetry.emit(MessagesLost(agent, messages))

    def _unsent(self, tag: Entry | Sent | None, reason: Reason, error: ActorbusError) -> None:
        """`tag`: of its parcel; None: it was accepted before, and the server has lost it since."""
        entry = tag.message if isinstance(tag, Sent) else tag
        if entry is not None and self._home is not None:
            message = envelope(entry)
            self._home.fail(message, message.recipient, reason, error)
        _settle(tag)


def _settle(tag: Entry | Sent | None) -> None:
    if tag.__class__ is Sent:
        tag.settled()
