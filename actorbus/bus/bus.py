"""The bus: a thin face over one transport. Read this page first.

A message's way: *stamp* (id, time, sender, cause) -> send-side middleware -> *accept* (offer
it to an inbox, deal with what the inbox refuses) -> a mailbox -> an agent handles it -> *end*
(history ring, recorder, telemetry, dead letter or an error to whoever asked).

Every message that was accepted ends exactly once, through ``handled`` or ``fail``. While
``plain`` is true nothing but the inbox itself has to see a message, and a ``Ref`` offers it
there directly; that shortcut is the only one.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from actorbus.bus.arguments import (
    checked_delay,
    checked_headers,
    checked_priority,
    checked_ttl,
)
from actorbus.bus.dead_letters import DeadLetter, DeadLetters
from actorbus.bus.history import History, ending_of, handled_as
from actorbus.bus.mailbox import Refusal
from actorbus.bus.middleware import Accepted, Dead, Retry, sending
from actorbus.bus.origin import CURRENT
from actorbus.errors import (
    ActorbusError,
    AgentStopped,
    AskTimeout,
    BusClosed,
    Cancelled,
    MailboxFull,
    PoolExhausted,
    Rejected,
    UnknownRecipient,
)
from actorbus.message import (
    Entry,
    IdSource,
    Message,
    MessageId,
    MessageKind,
    Priority,
    Reason,
    Status,
)
from actorbus.telemetry import DeadLettered, MessageEnded, MessageSent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actorbus.bus.mailbox import Inbox, Offered
    from actorbus.bus.middleware import Handle, Middleware, Outcome
    from actorbus.bus.transport import Guarantees, Transport
    from actorbus.bus.waiting import Waiting
    from actorbus.clock import Clock, Timer
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry


class Recorder(Protocol):
    """Writes message history. The bus calls it on the thread where things happen."""

    strict: bool
    """Whether ``sent`` returns only once the record cannot be lost any more."""

    def sent(self, message: Entry) -> None:
        """A message is about to be accepted.

        Raises:
            AuditUnavailable: its record cannot be kept, so it must not be delivered.
        """

    def ended(
        self,
        message: Message[Any],
        recipient: str | None,
        status: Status,
        reason: Reason | None,
        error: str | None,
        started_at: float | None,
        ended_at: float,
    ) -> None:
        """A delivery of the message ended."""

    def handled(self, message_id: MessageId, started_at: float, ended_at: float) -> None:
        """``ended`` for a plain entry that was handled at the first attempt."""


class AnswerTo(Protocol):
    """Where the reply to a request goes."""

    settled: bool
    """Whether it was answered already, or nobody wants the answer any more."""

    def resolve(self, value: Any) -> bool:
        """Answer with a value. False if it was answered already."""

    def fail(self, error: BaseException) -> bool:
        """Answer with an error. False if it was answered already."""

    def then(self, callback: Callable[[], object]) -> None:
        """Call `callback` once it was answered, or nobody wants the answer any more."""


class Bus:
    """Stamps, moves and ends the messages of one node."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock,
        telemetry: Telemetry,
        settings: Settings,
        waiting: Waiting,
        recorder: Recorder | None = None,
        send_middleware: Sequence[Middleware] = (),
        check_payload: Callable[[Any], None] | None = None,
    ) -> None:
        self.transport = transport
        self.clock = clock
        self.telemetry = telemetry
        self.settings = settings
        self.waiting = waiting
        self.recorder = recorder
        self.ids = IdSource(clock.monotonic, clock.offset)
        self.history = History(settings.history_size, payloads=settings.history_payloads)
        self.dead_letters = DeadLetters(settings.dead_letter_capacity, telemetry, self._resend)
        self.open_requests: dict[MessageId, Message[Any]] = {}
        """Requests that code outside agents has taken and not answered yet."""
        self.closed = False
        self.plain = False
        self._check_payload = check_payload
        self._middlewares = list(send_middleware)
        self._handle: Handle | None = (
            sending(self._middlewares, self._accept_routed) if send_middleware else None
        )
        self._delayed: dict[MessageId, tuple[Message[Any], Timer]] = {}
        self._delayed_lock = threading.Lock()
        telemetry.when_changed(self._see_if_plain)
        self._see_if_plain()

    @property
    def guarantees(self) -> Guarantees:
        """What the transport promises."""
        return self.transport.guarantees

    # -- stamp

    def stamp(
        self,
        kind: MessageKind,
        recipient: str | None,
        payload: Any,
        priority: Priority = Priority.NORMAL,
        *,
        topic: str | None = None,
        ttl: float | None = None,
        deadline: float | None = None,
        headers: Mapping[str, str] | None = None,
        answer_to: AnswerTo | None = None,
    ) -> Message[Any]:
        """A new message from the code that runs here: an agent's handler, or the outside."""
        origin = CURRENT.get()
        ids = self.ids
        now = ids.monotonic() + ids.offset
        if now >= ids.until:
            ids.rebase(now)
        message_id = ids.next()
        if ttl is not None:
            deadline = now + checked_ttl(ttl)
        sender = run_id = causation_id = None
        correlation_id = message_id
        hops = 0
        if origin is not None:
            sender = origin.name
            run_id = origin.run_id
            cause = origin.entry
            if isinstance(cause, tuple):
                causation_id, _, _, _, _, correlation_id, _, run_id, hops, _, _, _ = cause
                hops += 1
            elif cause is not None:
                correlation_id = cause.correlation_id
                causation_id = cause.id
                run_id = cause.run_id
                hops = cause.hops + 1
        return Message(
            message_id,
            kind,
            sender,
            recipient,
            topic,
            payload,
            priority if priority.__class__ is Priority else checked_priority(priority),
            now,
            deadline,
            correlation_id,
            causation_id,
            run_id,
            1,
            hops,
            None if headers is None else checked_headers(headers),
            answer_to,
        )

    # -- send

    def inbox(self, name: str) -> Inbox:
        """Where messages to `name` go.

        Raises:
            UnknownRecipient: nobody has that name.
            BusClosed: the node has stopped.
        """
        inbox = self.transport.route(name)
        if inbox is None:
            if self.closed:
                raise BusClosed("the node is not running; start it, or use it as `with Node()`")
            raise UnknownRecipient(name, self.transport.names())
        return inbox

    def send(
        self,
        message: Message[Any],
        inbox: Inbox,
        delay: float | None = None,
        *,
        stays_here: bool = False,
    ) -> None:
        """Take `message` through everything that wants to see it, to `inbox`.

        `stays_here`: its payload is ours and never leaves this process, so nobody has to be
        able to carry it.

        Raises:
            MailboxFull, AgentStopped, UnknownRecipient, PayloadTooLarge, UnsupportedPayload,
            AuditUnavailable, BusClosed: it was not accepted.
        """
        if self._check_payload is not None and not stays_here:
            self._check_payload(message.payload)
        if delay is not None:
            self._send_later(message, inbox, checked_delay(delay))
        elif self._handle is not None:
            self._obey(message, self._handle(message))
        else:
            self._accept(message, inbox)

    def fan_out(self, message: Message[Any]) -> int:
        """Send a broadcast or an event; how many local recipients took it."""
        if self.closed:
            raise BusClosed("the node is not running; start it, or use it as `with Node()`")
        if self._check_payload is not None:
            self._check_payload(message.payload)
        if self._handle is None:
            return self._spread(message)
        outcome = self._handle(message)
        self._obey(message, outcome)
        return outcome.copies if isinstance(outcome, Accepted) else 0

    def refused(self, message: Message[Any], inbox: Inbox, offered: Offered) -> None:
        """Deal with what an inbox said instead of taking `message`: wait, drop, or raise."""
        try:
            self._deal_with(message, inbox, offered)
        except (MailboxFull, AgentStopped, PoolExhausted) as error:
            stopped = isinstance(error, AgentStopped)
            reason = Reason.STOPPED if stopped else Reason.MAILBOX_FULL
            now = self.clock.now()
            self._ended(message, inbox.name, Status.FAILED, reason, str(error), None, now)
            raise

    def _deal_with(self, message: Message[Any], inbox: Inbox, offered: Offered) -> None:
        while offered is not None:
            if offered is Refusal.FULL:
                self._wait_for_room(message, inbox)
            elif offered is Refusal.CLOSED:
                successor = self.transport.route(inbox.name)
                if successor is None or successor is inbox:
                    raise AgentStopped(inbox.name)
                inbox = successor
            else:
                dropped = MailboxFull(inbox.name, inbox.policy.capacity, "it was dropped")
                self.fail(offered, inbox.name, Reason.MAILBOX_FULL, dropped)
                return
            offered = inbox.offer(message)

    # -- end

    def handled(self, message: Message[Any], recipient: str, started_at: float, now: float) -> None:
        """A handler returned; the long way, for when somebody looks on."""
        self._ended(message, recipient, Status.HANDLED, None, None, started_at, now)

    def fail(
        self,
        message: Message[Any],
        recipient: str | None,
        reason: Reason,
        error: BaseException | None = None,
        *,
        details: str | None = None,
        started_at: float | None = None,
    ) -> None:
        """An accepted message will not be handled: tell its asker, or keep a dead letter."""
        if message.delivery is not None and message.delivery.goes_on(recipient, reason):
            return
        now = self.clock.now()
        text = details or (None if error is None else str(error))
        if message.answer_to is not None:
            message.answer_to.fail(error or self._error(message, recipient, reason))
            self._ended(message, recipient, Status.FAILED, reason, text, started_at, now)
            return
        self.dead_letters.add(DeadLetter(message, recipient, reason, text, message.attempt, now))
        self._ended(message, recipient, Status.DEAD, reason, text, started_at, now)
        if self.telemetry.active:
            self.telemetry.emit(DeadLettered(message, recipient, reason, text))

    def refuse(
        self,
        message: Message[Any],
        recipient: str | None,
        reason: Reason,
        error: BaseException | None = None,
    ) -> None:
        """What came from outside is nobody's message: record it, and keep a dead letter."""
        if self.recorder is not None:
            self.recorder.sent(message)
        self.fail(message, recipient, reason, error)

    def answered(
        self, request: Message[Any], agent: str, value: Any, kind: MessageKind, now: float
    ) -> None:
        """A reply was given: it is a message too, with an ending of its own."""
        ids = self.ids
        if now >= ids.until:
            ids.rebase(now)
        message_id = ids.next()
        if self.recorder is None and not self.telemetry.every_message:
            self.history.append(
                (
                    message_id,
                    value.__class__,
                    agent,
                    request.sender,
                    request.priority._value_,
                    now,
                    now,
                    now,
                    request.correlation_id,
                    request.id,
                    request.run_id,
                    handled_as(kind, payload=value if self.history.payloads else None),
                )
            )
            return
        reply: Message[Any] = Message(
            message_id,
            kind,
            agent,
            request.sender,
            None,
            value,
            request.priority,
            now,
            None,
            request.correlation_id,
            request.id,
            request.run_id,
            1,
            request.hops + 1,
            None,
        )
        if self.recorder is not None:
            self.recorder.sent(reply)
        if self.telemetry.every_message:
            self.telemetry.emit(MessageSent(reply, 1))
        self._ended(reply, request.sender, Status.HANDLED, None, None, now, now)

    # -- delay

    def _send_later(self, message: Message[Any], inbox: Inbox, seconds: float) -> None:
        def hold(message: Message[Any]) -> Outcome:
            if inbox.offer_later is None:
                self._hold(message, seconds)
            else:
                self._accept(message, inbox, partial(inbox.offer_later, seconds=seconds))
            return Accepted()

        self._obey(message, sending(self._middlewares, hold)(message))

    def _hold(self, message: Message[Any], seconds: float) -> None:
        """Accept `message` and keep it for `seconds`."""
        if message.recipient is not None:
            self.inbox(message.recipient)
        capacity = self.settings.delayed_capacity
        with self._delayed_lock:
            if len(self._delayed) >= capacity:
                raise MailboxFull("delayed messages", capacity, "raise delayed_capacity")
            if self.recorder is not None:
                self.recorder.sent(message)
            due = self.clock.now() + seconds
            timer = self.clock.call_at(due, partial(self._due, message.id))
            self._delayed[message.id] = (message, timer)
        if self.telemetry.every_message:
            self.telemetry.emit(MessageSent(message, 1))

    def _due(self, message_id: MessageId) -> None:
        with self._delayed_lock:
            entry = self._delayed.pop(message_id, None)
        if entry is None:
            return
        message = entry[0]
        if message.recipient is None:
            self._spread(message)
            return
        inbox = self.transport.route(message.recipient)
        if inbox is None:
            missing = UnknownRecipient(message.recipient, self.transport.names())
            self.fail(message, message.recipient, Reason.NO_SUCH_AGENT, missing)
        else:
            self._offer_without_waiting(message, inbox)

    def tell_without_waiting(self, message: Message[Any], inbox: Inbox) -> None:
        """Send from a thread that must not wait: no room is a dead letter, not an error."""
        if self.recorder is not None:
            self.recorder.sent(message)
        self._offer_without_waiting(message, inbox)
        if self.telemetry.every_message:
            self.telemetry.emit(MessageSent(message, 1))

    def _offer_without_waiting(self, message: Message[Any], inbox: Inbox) -> None:
        offered = inbox.offer(message)
        if offered is Refusal.FULL:
            full = MailboxFull(inbox.name, inbox.policy.capacity)
            self.fail(message, inbox.name, Reason.MAILBOX_FULL, full)
        elif offered is Refusal.CLOSED:
            self.fail(message, inbox.name, Reason.NO_SUCH_AGENT, AgentStopped(inbox.name))
        elif offered is not None:
            self.fail(offered, inbox.name, Reason.MAILBOX_FULL)

    # -- life

    def close(self) -> None:
        """Accept nothing more; what is delayed ends as ``stopped``. Idempotent."""
        self.closed = True
        with self._delayed_lock:
            delayed, self._delayed = self._delayed, {}
        for message, timer in delayed.values():
            timer.cancel()
            self.fail(message, message.recipient, Reason.STOPPED)

    def record_to(self, recorder: Recorder | None) -> None:
        """Have every message written to `recorder` from now on."""
        self.recorder = recorder
        self._see_if_plain()

    def delayed(self) -> int:
        """How many messages wait for their time."""
        return len(self._delayed)

    def _see_if_plain(self) -> None:
        self.plain = (
            (self.recorder is None or not self.recorder.strict)
            and self._handle is None
            and self._check_payload is None
            and not self.telemetry.every_message
            and not self.history.payloads
        )

    # -- the way in

    def _obey(self, message: Message[Any], outcome: Outcome) -> None:
        """Do what the send-side middlewares decided."""
        match outcome:
            case Dead(reason, why, error):
                if self.recorder is not None:
                    self.recorder.sent(message)
                if error is None and why:
                    error = Rejected(message.recipient or message.topic or "the bus", why)
                self.fail(message, message.recipient, reason, error, details=why or None)
            case Retry(after):
                self._hold(message, after)
            case _:
                return

    def _accept_routed(self, message: Message[Any]) -> Outcome:
        """The innermost send step when there are middlewares."""
        if message.recipient is None:
            return Accepted(self._spread(message))
        self._accept(message, self.inbox(message.recipient))
        return Accepted()

    def _accept(
        self,
        message: Message[Any],
        inbox: Inbox,
        offer: Callable[[Message[Any]], Offered] | None = None,
    ) -> None:
        if self.recorder is not None:
            self.recorder.sent(message)
        offered = (offer or inbox.offer)(message)
        if offered is Refusal.FULL and offer is not None:
            raise MailboxFull(inbox.name, inbox.policy.capacity, "it cannot wait for room as well")
        if offered is not None:
            self.refused(message, inbox, offered)
        if self.telemetry.every_message:
            self.telemetry.emit(MessageSent(message, 1))

    def _spread(self, message: Message[Any]) -> int:
        if self.recorder is not None:
            self.recorder.sent(message)
        message.manner = handled_as(message.kind, message.topic)
        copies = 0
        for inbox in self.transport.audience(message):
            offered = inbox.offer(message)
            if offered is None:
                copies += inbox.owner is not None
            else:
                copies += self._spread_refused(message, inbox, offered)
        if self.telemetry.every_message:
            self.telemetry.emit(MessageSent(message, copies))
        return copies

    def _spread_refused(self, message: Message[Any], inbox: Inbox, offered: Offered) -> int:
        """One recipient's refusal is its own dead letter, never an error to the others."""
        try:
            self._deal_with(message, inbox, offered)
        except AgentStopped:
            return 0
        except (MailboxFull, PoolExhausted) as error:
            self.fail(message, inbox.name, Reason.MAILBOX_FULL, error)
            return 0
        return int(offered is not message)

    def _wait_for_room(self, message: Message[Any], inbox: Inbox) -> None:
        """Wait as the mailbox's policy says; return to offer again.

        Raises:
            MailboxFull: the policy is to reject, time is up, or this thread must not block.
        """
        policy = inbox.policy
        if policy.overflow != "block":
            raise MailboxFull(inbox.name, policy.capacity)
        if not self.waiting.may_block():
            raise MailboxFull(
                inbox.name, policy.capacity, "on an event loop `await ref.room()` waits for room"
            )
        if message.sender == inbox.name:
            raise MailboxFull(inbox.name, policy.capacity, "its own agent cannot wait for room")
        until = message.deadline
        if until is None:
            until = message.created_at + self.settings.send_timeout
        if not self._await_room(inbox, until):
            raise MailboxFull(inbox.name, policy.capacity, "no room before the time to send was up")

    def _await_room(self, inbox: Inbox, until: float) -> bool:
        armed: list[Callable[[], object]] = []

        def arm(wake: Callable[[], object]) -> bool:
            armed.append(wake)
            return inbox.when_room(wake)

        try:
            return self.waiting.wait(arm, until)
        finally:
            for wake in armed:
                inbox.forget(wake)

    # -- the way out

    def _ended(
        self,
        message: Message[Any],
        recipient: str | None,
        status: Status,
        reason: Reason | None,
        error: str | None,
        started_at: float | None,
        now: float,
    ) -> None:
        payload = message.payload if self.history.payloads else None
        ending = (
            message.id,
            message.type,
            message.sender,
            recipient,
            message.priority._value_,
            message.created_at,
            started_at,
            now,
            message.correlation_id,
            message.causation_id,
            message.run_id,
            (message.kind, message.topic, message.attempt, status, reason, error, payload),
        )
        self.history.append(ending)
        if self.recorder is not None:
            self.recorder.ended(message, recipient, status, reason, error, started_at, now)
        if self.telemetry.every_message:
            self.telemetry.emit(MessageEnded(ending_of(ending), message))
        if message.delivery is not None:
            message.delivery.over(recipient, status, reason, error, message.attempt)

    def _error(self, message: Message[Any], recipient: str | None, reason: Reason) -> ActorbusError:
        """What an asker is told when a message ends for `reason`."""
        name = recipient or "nobody"
        match reason:
            case Reason.EXPIRED:
                waited = (message.deadline or message.created_at) - message.created_at
                return AskTimeout(name, waited, ": it was still waiting in the mailbox")
            case Reason.STOPPED | Reason.NO_SUCH_AGENT:
                return AgentStopped(name)
            case Reason.CANCELLED:
                return Cancelled(f"the message to {name!r} was cancelled")
            case Reason.MAILBOX_FULL:
                return MailboxFull(name, 0, "the message was dropped")
            case _:
                return Rejected(name, reason)

    def _resend(self, letter: DeadLetter) -> MessageId:
        """Send a dead letter's message again under a new id."""
        old = letter.message
        name = letter.recipient or old.recipient
        if name is None:
            raise UnknownRecipient("", self.transport.names())
        now = self.clock.now()
        message = old.copy(
            id=self.ids.make(now),
            kind=MessageKind.TELL,
            recipient=name,
            created_at=now,
            deadline=None,
            causation_id=old.id,
            attempt=1,
            delivery=None,
        )
        self.send(message, self.inbox(name))
        return message.id
