"""The contract of a transport: what carries messages from a bus to mailboxes.

To a transport everything is an ``Inbox``: the mailbox of an agent in this process, the outbox
towards another node, the log of a topic. The bus offers messages to inboxes and deals with
what they refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.bus.mailbox import Inbox
    from actorbus.bus.routing import Route
    from actorbus.clock import Clock
    from actorbus.message import Message, Reason, Status
    from actorbus.telemetry import Telemetry


class Guarantee(StrEnum):
    """What a transport may promise; each test of the conformance suite names what it needs."""

    AT_LEAST_ONCE = "at-least-once"
    """What was accepted is delivered again until it is acknowledged."""
    SURVIVES = "survives"
    """What was accepted outlives the node."""
    ORDERED = "ordered"
    """FIFO from sender to recipient within a priority."""
    BOUNDED = "bounded"
    """An inbox never holds more than its capacity."""
    REFUSED_AT_ONCE = "refused-at-once"
    """A full inbox says so to whoever sends; elsewhere that is a dead letter later."""
    PRIORITIZED = "prioritized"
    KNOWN_RECIPIENTS = "known-recipients"
    """An unknown recipient is an error at once."""
    FANOUT = "fanout"
    """Broadcasts and topics reach every mailbox that is there."""


@dataclass(frozen=True, slots=True)
class Guarantees:
    """The promises of a transport at run time: the table of promises, one column of it."""

    transport: str
    delivery: str
    survives: str
    order: str
    bounded: str
    unknown_recipient: str
    fanout: str
    given: frozenset[Guarantee]

    def gives(self, guarantee: Guarantee) -> bool:
        return guarantee in self.given


class Home(Protocol):
    """The bus of the node that uses a transport: where what cannot be delivered ends."""

    clock: Clock
    telemetry: Telemetry

    def fail(
        self,
        message: Message[Any],
        recipient: str | None,
        reason: Reason,
        error: BaseException | None = None,
    ) -> None:
        """A message will not be handled: tell its asker, or keep a dead letter."""

    def refuse(
        self,
        message: Message[Any],
        recipient: str | None,
        reason: Reason,
        error: BaseException | None = None,
    ) -> None:
        """``fail`` for what came in and is nobody's message: nothing was recorded of it yet."""


class Delivery(Protocol):
    """A message that came from outside this process, and wants to know how it ends here."""

    def goes_on(self, recipient: str | None, reason: Reason) -> bool:
        """Whether another node will handle it, so that ending for `reason` is no end at all."""

    def over(
        self,
        recipient: str | None,
        status: Status,
        reason: Reason | None,
        error: str | None,
        attempt: int,
    ) -> None:
        """It ended, for `recipient` if many got it."""

    def handled(self, recipient: str | None) -> None:
        """``over`` for what was handled at the first attempt."""


class Transport(Protocol):
    """Moves messages. Every method is safe from any thread; none blocks on an agent."""

    guarantees: Guarantees
    shared: dict[str, Any]
    """What nodes that share this transport share beside it: registry and context."""

    def open(self, home: Home) -> None:
        """A node begins to use it. Others may too, where nodes can share a transport.

        Raises:
            TransportUnavailable: its server did not answer within seconds.
        """

    def entrance(self, inbox: Inbox) -> Inbox:
        """What those who send to `inbox.name` put messages into: `inbox`, or what leads there."""

    def attach(self, inbox: Inbox, subscriptions: Sequence[Route] = ()) -> None:
        """Deliver what is sent to ``inbox.name`` here, and what it subscribes to from the start.

        Raises:
            NameTaken: another inbox has the name.
        """

    def detach(self, inbox: Inbox, *, gone: bool = True) -> None:
        """The inbox takes no more, and its subscriptions end. Idempotent.

        `gone`: whoever had it ended for good; else what waits may be kept for whoever comes.
        """

    def route(self, name: str) -> Inbox | None:
        """Where messages to `name` go; None if nobody has the name."""

    def audience(self, message: Message[Any]) -> Sequence[Inbox]:
        """Who gets a broadcast (no topic) or an event (a topic). Never its sender."""

    def names(self) -> list[str]:
        """Everybody who can be sent to, for errors and listings."""

    def subscribe(self, route: Route) -> None:
        """In effect when it returns."""

    def unsubscribe(self, route: Route) -> None:
        """Idempotent."""

    def pending(self) -> int:
        """Accepted messages for agents here that are not in their mailboxes, and unsent ones."""

    def leave(self) -> None:
        """The node begins to stop: what others can handle is left to them from now on."""

    def flush(self, timeout: float) -> int:
        """Wait until sends are accepted, at most `timeout` seconds. How many are not."""

    def close(self) -> None:
        """Let go of connections and threads. Idempotent."""
