"""What history answers: messages with what became of them, and what is told of many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from actorbus.message import MessageId, MessageKind, Priority, Reason, Status


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one delivery of a message ended. Times are in UTC."""

    recipient: str | None
    status: Status
    reason: Reason | None
    error: str | None
    attempt: int
    started_at: datetime | None
    ended_at: datetime
    node: str
    """Where it ended, which need not be where the message was sent."""


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as history knows it, with what became of it.

    Of a message to one recipient the last delivery counts. Of a broadcast or event the worst
    does, over the last of each recipient. ``payload`` is what its JSON decodes to. ``node`` sent
    it. ``attempts`` counts as well what ran again because a node died before it could say that
    it was done: then each run that ended is a delivery of its own.
    """

    id: MessageId
    kind: MessageKind
    type: str
    sender: str | None
    recipient: str | None
    topic: str | None
    payload: Any
    headers: Mapping[str, str]
    priority: Priority
    run_id: str | None
    node: str
    correlation_id: MessageId
    causation_id: MessageId | None
    hops: int
    created_at: datetime
    deadline: datetime | None
    status: Status
    reason: Reason | None
    error: str | None
    attempts: int
    started_at: datetime | None
    ended_at: datetime | None
    deliveries: tuple[Delivery, ...]

    @property
    def waited(self) -> float | None:
        """Seconds from sending until a handler began; 0 where the clocks of two nodes disagree
        on which came first."""
        return _seconds(self.created_at, self.started_at)

    @property
    def took(self) -> float | None:
        """Seconds from when a handler began until the last one ended."""
        return _seconds(self.started_at, self.ended_at)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the messages that match, newest first.

    ``next`` is the cursor of the page after it, None where history ends. A page that looked at
    as much as one page may can hold fewer messages than asked for, even none, and still have a
    next one.
    """

    messages: list[MessageView]
    next: str | None


@dataclass(frozen=True, slots=True)
class Effect:
    """A message that another one led to, so many steps below it (1: caused by itself)."""

    message: MessageView
    depth: int


@dataclass(frozen=True, slots=True)
class Tree:
    """What caused a message, and what it caused.

    ``causes`` go from the first of all to the one just before ``message``. Effects stand each
    below its cause, in the order they were sent; where there are more than were asked for,
    those nearest to the message are there.
    """

    causes: tuple[MessageView, ...]
    message: MessageView
    effects: tuple[Effect, ...]
    left_out: int
    """Effects that are known and not in here."""
    complete: bool
    """False if the conversation is so long that only its first part was looked through."""
    lost_cause: MessageId | None
    """The cause of the first of ``causes``, where history does not have it, or not so far up."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """How often one agent sent to another. None stands for the world outside."""

    sender: str | None
    recipient: str | None
    count: int
    failures: int
    """Of those, how many ended as failed or dead at that recipient."""
    last: datetime


@dataclass(frozen=True, slots=True)
class Spread:
    """A duration over many deliveries, in seconds; percentiles are of the nearest rank."""

    p50: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class Times:
    """How long deliveries of a type took at a recipient: from sending to start, start to end."""

    recipient: str | None
    type: str
    count: int
    waited: Spread
    took: Spread


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages there are, in all and by what."""

    messages: int
    by_status: Mapping[Status, int]
    by_kind: Mapping[MessageKind, int]
    by_type: Mapping[str, int]


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())
