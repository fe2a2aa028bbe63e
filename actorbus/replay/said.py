"""What was said: the part of a message that two runs must have in common."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actorbus.message import Message, MessageKind, format_id
from actorbus.persistence.payloads import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.message import MessageId
    from actorbus.persistence.answers import MessageView

_TO_MANY: Final = frozenset({MessageKind.BROADCAST, MessageKind.EVENT})
_STAND_INS: Final = ("$redacted", "$repr", "$failed")
"""What history holds in place of a payload that it does not have, or not any more."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message without what differs from run to run: ids and times. ``payload`` is JSON."""

    id: MessageId
    kind: MessageKind
    type: str
    sender: str | None
    recipient: str | None
    topic: str | None
    payload: Any

    @property
    def to(self) -> str:
        if self.topic is not None:
            return f"topic {self.topic}"
        if self.recipient is not None:
            return self.recipient
        return "everyone" if self.kind in _TO_MANY else "(outside)"

    def same_as(self, other: Said) -> bool:
        """Whether both say the same.

        Of a payload that history does not hold in full (redacted, or an object that JSON has
        no words for) only the type is compared.
        """
        if (self.kind, self.type, self.sender, self.recipient, self.topic) != (
            other.kind,
            other.type,
            other.sender,
            other.recipient,
            other.topic,
        ):
            return False
        if stand_in(self.payload) or stand_in(other.payload):
            return True
        return canonical(self.payload) == canonical(other.payload)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": format_id(self.id),
            "kind": str(self.kind),
            "type": self.type,
            "sender": self.sender,
            "recipient": self.recipient,
            "topic": self.topic,
            "payload": self.payload,
        }

    def __str__(self) -> str:
        return f"{self.sender or '(outside)'} -> {self.to}: {self.kind} {self.type}"


def said(source: Message[Any] | MessageView) -> Said:
    """What a message says, be it one that was just sent or one of history."""
    payload = source.payload
    if isinstance(source, Message):
        payload = json.loads(encode(payload))
    return Said(
        source.id,
        source.kind,
        source.type,
        source.sender,
        source.recipient,
        source.topic,
        payload,
    )


def canonical(value: Any) -> str:
    """JSON text that is the same for the same value, and tells ``true`` from ``1``."""
    return json.dumps(value, sort_keys=True)


def stand_in(value: Any, *, deep: bool = True) -> str | None:
    """What stands in for a value that history does not have; `deep`: anywhere in `value`."""
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        if value.keys() == {"$dict"} and isinstance(value["$dict"], dict):
            value = value["$dict"]
        elif word := next((word for word in _STAND_INS if word in value), None):
            return word
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    return next(filter(None, map(stand_in, parts)), None) if deep else None
