"""What others hold of an agent: a ``Ref``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from actorbus.actors.reply import Reply
from actorbus.actors.topics import Subscription, subscribe
from actorbus.bus.arguments import checked_priority, checked_timeout
from actorbus.bus.origin import CURRENT
from actorbus.errors import InvalidArgument, UnknownRecipient
from actorbus.message import MessageKind, Priority, envelope, plain_tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pykka

    from actorbus.actors.cell import Cell
    from actorbus.actors.runtime import Runtime
    from actorbus.bus.mailbox import Inbox, Offered
    from actorbus.bus.origin import Origin
    from actorbus.bus.where import Where
    from actorbus.message import Entry, MessageId, PlainEntry

_NORMAL = Priority.NORMAL
_NORMAL_VALUE = _NORMAL.value
_TELL = MessageKind.TELL


class Ref:
    """An agent, by name. Safe to share, to send and to keep; it travels as its name.

    Used inside a handler it sends as that agent.
    """

    __slots__ = (
        "__weakref__",
        "_bus",
        "_ids",
        "_inbox",
        "_post",
        "_put",
        "_put_tell",
        "_runtime",
        "name",
    )

    def __init__(self, runtime: Runtime, name: str, inbox: Inbox) -> None:
        self._runtime = runtime
        self._bus = runtime.bus
        self._inbox = inbox
        self._ids = runtime.bus.ids
        self._put: Callable[[Entry, Priority], Offered] | None = getattr(inbox, "put", None)
        self._put_tell = self._put or getattr(inbox, "put_tell", None)
        self._post: Callable[[MessageId, Any, float], Offered] | None = getattr(inbox, "post", None)
        self.name = name

    @property
    def __actorbus_ref__(self) -> str:
        return self.name

    def tell(
        self,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        delay: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send without waiting for what comes of it. In memory, accepted when this returns.

        Args:
            payload: read-only from now on; in memory it is shared, not copied.
            priority: which waiting message goes first.
            ttl: seconds after which it is not started any more, but dead-lettered.
            delay: seconds before it is put into the mailbox.
            headers: the sender's own entries, str to str.

        Raises:
            AgentStopped, UnknownRecipient: nobody is there to take it.
            MailboxFull: no room, and none in time; see ``MailboxPolicy``.
            MessageExpired, InvalidArgument: an argument that cannot be meant.
            PayloadTooLarge, UnsupportedPayload: where payloads are checked.
            AuditUnavailable: a strict history could not be written.
        """
        bus = self._bus
        put = self._put_tell
        if bus.plain and put is not None and ttl is None and delay is None and headers is None:
            # What bus.stamp() does, in line, for an entry without envelope: the hot path.
            ids = self._ids
            now = ids.monotonic() + ids.offset
            if now >= ids.until:
                ids.rebase(now)
            message_id = ids.next()
            if priority is not _NORMAL:
                priority = checked_priority(priority)
            origin = CURRENT.get()
            if origin is None:
                post = self._post
                if post is not None and priority is _NORMAL and bus.recorder is None:
                    offered = post(message_id, payload, now)
                    if offered is not None:
                        told = plain_tell(message_id, payload, now, self.name)
                        bus.refused(envelope(told), self._inbox, offered)
                    return
                entry: Entry = (
                    message_id,
                    None,
                    payload,
                    priority._value_,
                    now,
                    message_id,
                    None,
                    None,
                    0,
                    None,
                    None,
                    self.name,
                )
            else:
                entry = _caused(origin, message_id, payload, priority, now, None, None, self.name)
            if bus.recorder is not None:
                bus.recorder.sent(entry)
            offered = put(entry, priority)
            if offered is not None:
                bus.refused(envelope(entry), self._inbox, offered)
            return
        message = bus.stamp(_TELL, self.name, payload, priority, ttl=ttl, headers=headers)
        bus.send(message, self._inbox, delay)

    def ask(
        self,
        payload: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        expect: type[Any] | None = None,
    ) -> Reply[Any]:
        """Send and get a reply: ``.get()`` it, or ``await`` it.

        Args:
            payload: as in ``tell``.
            timeout: seconds until it gives up, 30 by default; inside a handler never later
                than the deadline of the message in hand.
            priority: as in ``tell``.
            headers: as in ``tell``.
            expect: the class its value must be of, else the reply is ``UnexpectedReply``. Where
                it comes from another process, it is rebuilt as that class.

        Raises:
            InvalidArgument: an argument that cannot be meant. Everything else comes out of the
                reply.
        """
        runtime = self._runtime
        bus = self._bus
        put = self._put
        if not bus.plain or put is None or headers is not None or expect is not None:
            return runtime.ask(self.name, self._inbox, payload, timeout, priority, headers, expect)
        ids = self._ids
        now = ids.monotonic() + ids.offset
        if now >= ids.until:
            ids.rebase(now)
        message_id = ids.next()
        if priority is not _NORMAL:
            priority = checked_priority(priority)
        deadline = now + (runtime.ask_timeout if timeout is None else checked_timeout(timeout))
        owner = self._inbox.owner
        reply: Reply[Any]
        origin = CURRENT.get()
        if origin is None:
            reply = Reply(runtime.asking, self.name, now, deadline, owner)
            entry: PlainEntry = (
                message_id,
                None,
                payload,
                priority._value_,
                now,
                message_id,
                None,
                None,
                0,
                deadline,
                reply,
                self.name,
            )
        elif isinstance(cause := origin.entry, tuple):
            if cause[9] is not None and cause[9] < deadline:
                deadline = cause[9]
            reply = Reply(runtime.asking, self.name, now, deadline, owner)
            entry = (
                message_id,
                origin.name,
                payload,
                priority._value_,
                now,
                cause[5],
                cause[0],
                cause[7],
                cause[8] + 1,
                deadline,
                reply,
                self.name,
            )
        else:
            deadline = inherited_deadline(origin, deadline)
            reply = Reply(runtime.asking, self.name, now, deadline, owner)
            entry = _caused(origin, message_id, payload, priority, now, deadline, reply, self.name)
        recorder = bus.recorder
        if recorder is not None and not runtime.record_ask(recorder, entry, reply):
            return reply
        offered = put(entry, priority)
        if offered is not None:
            runtime.ask_refused(envelope(entry), self._inbox, offered)
        if owner.parked:
            owner.refuse_asks()
        return reply

    def stop(self, *, drain: bool = False) -> None:
        """Stop the agent. Returns at once; from now on sends get ``AgentStopped``.

        The message in hand ends. What waits becomes ``stopped``, or with `drain` is handled
        first. One on another node is told, as soon as may be.

        Raises:
            InvalidArgument: it is on another node, and the transport cannot tell it.
        """
        cell = self._cell
        if cell is not None:
            cell.stop(drain=drain)
            return
        far_stop = getattr(self._bus.transport, "stop_agent", None)
        if far_stop is None:
            raise InvalidArgument("an agent to stop", self.name, "only its own node can stop it")
        far_stop(self.name, drain)

    def subscribe(self, pattern: str, where: Where | None = None) -> Subscription:
        """Send the agent what is published on topics like `pattern` and passes `where`.

        In effect when this returns. ``*`` is one token, ``>`` one or more at the end.

        Raises:
            InvalidArgument: not a pattern, or not a filter.
        """
        return subscribe(self._runtime, self.name, pattern, where)

    async def room(self) -> None:
        """Wait until the agent's mailbox has room, or the agent has stopped."""
        import asyncio

        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        def go_on() -> None:
            if not ready.done():
                ready.set_result(None)

        def wake() -> None:
            # A loop that has closed meanwhile has nobody who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(go_on)

        if self._inbox.when_room(wake):
            try:
                async with asyncio.timeout(self._runtime.settings.send_timeout):
                    await ready
            finally:
                self._inbox.forget(wake)

    @property
    def alive(self) -> bool:
        """Whether messages are still taken."""
        return self._runtime.bus.transport.route(self.name) == self._inbox

    @property
    def actor_ref(self) -> pykka.ActorRef[Any]:
        """Pykka's own ref of the same agent.

        Raises:
            UnknownRecipient: the agent does not run in this process.
        """
        cell = self._cell
        if cell is None:
            raise UnknownRecipient(self.name)
        return cell.agent.actor_ref

    def proxy(self) -> Any:
        """Pykka's proxy: attributes and methods of the agent, as futures."""
        return self.actor_ref.proxy()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<Ref {self.name!r}>"

    @property
    def _cell(self) -> Cell | None:
        owner = self._inbox.owner
        return owner if hasattr(owner, "agent_class") else None


def _caused(
    origin: Origin,
    message_id: MessageId,
    payload: Any,
    priority: Priority,
    now: float,
    deadline: float | None,
    answer_to: Reply[Any] | None,
    recipient: str,
) -> PlainEntry:
    """A plain entry sent by an agent, or within a run."""
    cause = origin.entry
    correlation_id, causation_id, run_id, hops = message_id, None, origin.run_id, 0
    if isinstance(cause, tuple):
        causation_id, _, _, _, _, correlation_id, _, run_id, hops, _, _, _ = cause
        hops += 1
    elif cause is not None:
        correlation_id = cause.correlation_id
        causation_id = cause.id
        run_id = cause.run_id
        hops = cause.hops + 1
    return (
        message_id,
        origin.name,
        payload,
        priority._value_,
        now,
        correlation_id,
        causation_id,
        run_id,
        hops,
        deadline,
        answer_to,
        recipient,
    )


def inherited_deadline(origin: Origin | None, deadline: float) -> float:
    """When an ask gives up: never later than the message in hand."""
    cause = None if origin is None else origin.entry
    if cause is None:
        return deadline
    inherited = cause[9] if isinstance(cause, tuple) else cause.deadline
    return deadline if inherited is None or inherited > deadline else inherited
