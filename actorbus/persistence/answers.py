"""What history answers, where that is more than messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from actorbus.message import MessageId
    from actorbus.persistence.audit import MessageView


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
