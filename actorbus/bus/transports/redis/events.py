"""Events and broadcasts at a node: what is read from the log of topics goes to its agents.

A message is made of each entry once, however many agents it is for; each agent's ending is told
apart.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from actorbus.bus.mailbox import Refusal
from actorbus.bus.transports.redis.letters import UnreadablePayload
from actorbus.bus.transports.redis.unreadable import letter_of, reason_of
from actorbus.errors import AgentStopped, Undecodable, Untrusted
from actorbus.message import IdSource, Message, MessageKind, Priority, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actorbus.bus.gap import Gap
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.stays import Stay
    from actorbus.bus.transports.redis.topics.log import Broken, Entry
    from actorbus.bus.transports.redis.topics.reader import TopicReader

    Open = Callable[[Entry], Message[Any]]
    """The message in an entry, in node time; raises ``Undecodable`` or ``Untrusted``."""


class EventDelivery:
    """An event in the hands of one or many agents of this node.

    Each agent is done with it once it has ended there and what its handler sent is in the
    inboxes of others.
    """

    __slots__ = ("_events", "_id", "_lock", "_over", "_owed")

    def __init__(self, events: Events, event_id: bytes) -> None:
        self._events = events
        self._id = event_id
        self._lock = threading.Lock()
        self._owed: dict[str | None, int] = {}
        self._over: set[str | None] = set()

    def owe(self, agent: str | None) -> None:
        with self._lock:
            self._owed[agent] = self._owed.get(agent, 0) + 1

    def settled(self, agent: str | None) -> None:
        with self._lock:
            self._owed[agent] -= 1
            done = not self._owed[agent] and agent in self._over
        if done:
            self._events.done(agent, self._id)

    def goes_on(self, recipient: str | None, reason: Reason) -> bool:
        return reason is Reason.STOPPED and self._events.goes_on(recipient)

    def over(
        self,
        recipient: str | None,
        status: Status,
        reason: Reason | None,
        error: str | None,
        attempt: int,
    ) -> None:
        self.handled(recipient)

    def handled(self, recipient: str | None) -> None:
        with self._lock:
            self._over.add(recipient)
            done = not self._owed.get(recipient)
        if done:
            self._events.done(recipient, self._id)


class Events:
    """Where the reader of the log brings what it read.

    Args:
        stays: the agents that run here, and their mailboxes.
        opened: gives the message in an entry.
    """

    def __init__(
        self,
        home: Home,
        stays: Mapping[str, Stay],
        opened: Open,
    ) -> None:
        self.reader: TopicReader
        self._home = home
        self._here = stays
        self._open = opened
        self._ids = IdSource()
        self._last: tuple[bytes, Message[Any] | Exception] | None = None

    def payload(self, entry: Entry) -> Any:
        """What a filter looks at.

        Raises:
            Undecodable: it cannot be read, or nobody who is trusted vouches for it.
        """
        try:
            return self._opened(entry).payload
        except Untrusted as error:
            raise Undecodable(str(error)) from None

    def take_event(self, agents: Sequence[str], entry: Entry, now: int) -> None:
        try:
            message = self._opened(entry)
        except (Undecodable, Untrusted) as error:
            if isinstance(error, UnreadablePayload):
                unread = Undecodable(str(error))
                self._home.fail(error.message, None, Reason.UNDECODABLE, unread)
            else:
                self._refuse(entry.topic, entry.id, entry.blob, error)
            for agent in agents:
                self.reader.done(agent, entry.id)
            return
        if entry.expiry:
            message.deadline = self._home.clock.now() + (entry.expiry - now) / 1_000
        message.delivery = EventDelivery(self, entry.id)
        for agent in agents:
            self._put(agent, message)

    def take_gap(self, agent: str, gap: Gap, gap_id: bytes) -> None:
        now = self._home.clock.now()
        message_id = self._ids.make(now)
        message: Message[Any] = Message(
            message_id,
            MessageKind.EVENT,
            None,
            agent,
            None,
            gap,
            Priority.NORMAL,
            now,
            None,
            message_id,
            None,
            None,
            1,
            0,
            None,
            delivery=EventDelivery(self, gap_id),
        )
        self._put(agent, message)

    def broken_event(self, broken: Broken) -> None:
        self._refuse(None, broken.id, broken.raw, Undecodable("no event of ours"))

    def done(self, agent: str | None, event_id: bytes) -> None:
        if agent is not None:
            self.reader.done(agent, event_id)

    def goes_on(self, agent: str | None) -> bool:
        """Whether another node will have the agent, and what it did not get to here."""
        stay = self._here.get(agent or "")
        return stay is None or stay.goes_on

    def _put(self, agent: str, message: Message[Any]) -> None:
        found = self._here.get(agent)
        if found is None:
            return  # it left, and whoever has it now gets this
        inbox = found.inbox
        offered = inbox.offer(message)
        if (offered is Refusal.FULL or offered is message) and inbox.insist(message):
            offered = None
        if offered is not None:
            self._home.fail(message, agent, Reason.STOPPED, AgentStopped(agent))

    def _opened(self, entry: Entry) -> Message[Any]:
        """The message, made once; a filter and the delivery may both want it."""
        last = self._last
        if last is None or last[0] != entry.id:
            try:
                found: Message[Any] | Exception = self._open(entry)
            except (Undecodable, Untrusted) as error:
                found = error
            last = self._last = (entry.id, found)
        if isinstance(last[1], Exception):
            raise last[1]
        return last[1]

    def _refuse(self, topic: str | None, event_id: bytes, raw: bytes, error: Exception) -> None:
        now = self._home.clock.now()
        letter = letter_of(raw, event_id, now, kind=MessageKind.EVENT, topic=topic)
        self._home.refuse(letter, None, reason_of(error), error)
