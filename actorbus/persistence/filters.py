"""Which messages are wanted: what users say, checked, and as questions take it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

from actorbus.errors import InvalidQuery
from actorbus.message import MessageKind, Reason, Status, parse_id

if TYPE_CHECKING:
    from uuid import UUID

    from actorbus.message import MessageId

MOST: Final = 10_000
"""Messages in one answer."""


class Filters(TypedDict, total=False):
    """What a question may be narrowed to; messages match every one given.

    ``recipient`` matches those that a broadcast reached too, ``agent`` the sender or a
    recipient, ``conversation`` a ``correlation_id``, ``text`` any part of payload or error in
    any case. ``since`` is included, ``until`` is not; both are aware datetimes or seconds since
    the epoch. Of ``status`` and ``reason`` those count that a message has by now.
    """

    sender: str | None
    recipient: str | None
    agent: str | None
    type: str | None
    topic: str | None
    kind: MessageKind | str | None
    status: Status | str | None
    reason: Reason | str | None
    run: str | None
    node: str | None
    conversation: MessageId | str | UUID | None
    since: datetime | float | None
    until: datetime | float | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages are wanted; None leaves a field open."""

    sender: str | None = None
    recipient: str | None = None
    agent: str | None = None
    type: str | None = None
    topic: str | None = None
    kind: MessageKind | None = None
    status: Status | None = None
    reason: Reason | None = None
    run: str | None = None
    node: str | None = None
    conversation: MessageId | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None


def checked(
    *,
    sender: str | None = None,
    recipient: str | None = None,
    agent: str | None = None,
    type: str | None = None,
    topic: str | None = None,
    kind: MessageKind | str | None = None,
    status: Status | str | None = None,
    reason: Reason | str | None = None,
    run: str | None = None,
    node: str | None = None,
    conversation: MessageId | str | UUID | None = None,
    since: datetime | float | None = None,
    until: datetime | float | None = None,
    text: str | None = None,
) -> Filter:
    """The filter that is meant.

    Raises:
        InvalidQuery: one cannot be meant.
        InvalidName: `conversation` is no id.
    """
    return Filter(
        sender=_text("sender", sender),
        recipient=_text("recipient", recipient),
        agent=_text("agent", agent),
        type=_text("type", type),
        topic=_text("topic", topic),
        kind=_member("kind", kind, MessageKind),
        status=_member("status", status, Status),
        reason=None if reason is None else Reason(_text("reason", reason) or ""),
        run=_text("run", run),
        node=_text("node", node),
        conversation=None if conversation is None else parse_id(conversation),
        since=_moment("since", since),
        until=_moment("until", until),
        text=_text("text", text),
    )


def checked_limit(limit: int, most: int = MOST) -> int:
    if not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidQuery(
            f"limit is {limit!r:.64}: it must be from 1 to {most:,}; page with before= or a cursor"
        )
    return limit


def _text(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidQuery(f"{name} is {value!r:.64}: it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidQuery(f"{name} is {value[:64]!a}: that is no Unicode text") from None
    if "\0" in value:
        raise InvalidQuery(f"{name} is {value[:64]!r}: no text in history holds a NUL")
    return value


def _member(name: str, value: Any, enum: Any) -> Any:
    if value is None:
        return None
    if value not in enum.__members__.values():
        known = ", ".join(enum)
        raise InvalidQuery(f"no {name} {str(value)[:64]!r}: use one of {known}")
    return enum(value)


def _moment(name: str, value: datetime | float | None) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidQuery(f"{name} has no time zone: use datetime.now(UTC) or seconds")
        return value.astimezone(UTC)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        raise InvalidQuery(f"{name} is {value!r}: that is no time in seconds") from None
