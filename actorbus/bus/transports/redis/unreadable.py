"""What came in and is no message that this node may take: a letter to keep of it.

The letter is a message of its own. The id that the bytes bear may be that of a message that was
handled long ago, and nothing vouches for them: they change no record of that message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import Untrusted
from actorbus.message import IdSource, Message, MessageId, MessageKind, Priority, Reason, format_id

if TYPE_CHECKING:
    from actorbus.bus.transport import Home
    from actorbus.bus.transports.redis.items import Item
    from actorbus.errors import Undecodable

CLAIMED_HEADER: Final = "actorbus-claimed-id"
"""In a letter: the id under which its bytes came."""
_KEPT: Final = 1_024
"""Bytes of it."""


def letter_of(
    raw: bytes,
    claimed: bytes,
    now: float,
    *,
    kind: MessageKind = MessageKind.TELL,
    recipient: str | None = None,
    topic: str | None = None,
) -> Message[Any]:
    """Its first bytes as the payload. `claimed`: the id it bears; `now` is node time."""
    own = IdSource().make(now)
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
        {CLAIMED_HEADER: format_id(MessageId(int.from_bytes(claimed, "big")))},
    )


def reason_of(error: Exception) -> Reason:
    return Reason.REFUSED if isinstance(error, Untrusted) else Reason.UNDECODABLE


def refuse(home: Home, item: Item, recipient: str | None, error: Undecodable | Untrusted) -> None:
    """Keep a letter of what lies in an inbox and cannot be taken."""
    letter = letter_of(item.blob, item.id, home.clock.now(), recipient=recipient)
    home.refuse(letter, recipient, reason_of(error), error)
