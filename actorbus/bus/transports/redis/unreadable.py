"""What came in and is no message that this node may take: a letter to keep of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import Untrusted
from actorbus.message import Message, MessageId, MessageKind, Priority, Reason

if TYPE_CHECKING:
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.log import Item
    from actorbus.errors import Undecodable

_KEPT: Final = 1_024
"""Bytes of it."""


def letter_of(
    raw: bytes,
    message_id: bytes,
    now: float,
    *,
    kind: MessageKind = MessageKind.TELL,
    recipient: str | None = None,
    topic: str | None = None,
) -> Message[Any]:
    """Its first bytes as the payload. `now` is node time."""
    own = MessageId(int.from_bytes(message_id, "big"))
    return Message(
        own,
        kind,
        None,
        recipient,
        topic,
        raw[:_KEPT],
        Priority.NORMAL,
        now,
        None,
        own,
        None,
        None,
        1,
        0,
        None,
    )


def reason_of(error: Exception) -> Reason:
    return Reason.REFUSED if isinstance(error, Untrusted) else Reason.UNDECODABLE


def refuse(home: Home, item: Item, recipient: str | None, error: Undecodable | Untrusted) -> None:
    """Keep a letter of what lies in an inbox and cannot be taken."""
    letter = letter_of(item.blob, item.id, home.clock.now(), recipient=recipient)
    home.refuse(letter, recipient, reason_of(error), error)
