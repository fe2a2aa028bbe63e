"""The message: what travels, and the words for how it ended.

Times are *node time*: seconds since the epoch that never run backwards, because they are the
monotonic clock plus an offset taken once (``clock.py``). A message is never changed after it
was sent; a retry and a requeue copy it.
"""

from __future__ import annotations

import os
import threading
import time
from enum import IntEnum, StrEnum
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, NewType, Self, TypeVar
from uuid import UUID

from actorbus.errors import InvalidName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

MessageId = NewType("MessageId", int)
"""The 128 bits of a UUIDv7 as an int; ``format_id`` shows it as one."""


class Priority(IntEnum):
    """Which waiting message goes first. A lower number is more urgent."""

    URGENT = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class OpenStrEnum(StrEnum):
    """An enum that accepts words it does not know, so that newer nodes may use new ones."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not value:
            return None
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member


class MessageKind(OpenStrEnum):
    TELL = "tell"
    REQUEST = "request"
    REPLY = "reply"
    ERROR = "error"
    BROADCAST = "broadcast"
    EVENT = "event"


class Reason(OpenStrEnum):
    """Why a message was not handled."""

    NO_SUCH_AGENT = "no-such-agent"
    NO_HANDLER = "no-handler"
    HANDLER_ERROR = "handler-error"
    REJECTED = "rejected"
    EXPIRED = "expired"
    MAILBOX_FULL = "mailbox-full"
    CANCELLED = "cancelled"
    UNDECODABLE = "undecodable"
    CRASHED_OWNER = "crashed-owner"
    REFUSED = "refused"
    RATE_LIMITED = "rate-limited"
    DUPLICATE = "duplicate"
    STOPPED = "stopped"


class Status(OpenStrEnum):
    """How a message stands."""

    ACCEPTED = "accepted"
    """It waits, or is being handled."""
    HANDLED = "handled"
    FAILED = "failed"
    """Its sender got an error."""
    DEAD = "dead"
    """It is a dead letter."""


GUEST_HEADER: Final = "actorbus-guest"
"""In messages of a node that keeps no history, and wants who handles them to record them: its
name."""
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Message(Generic[T]):
    """The envelope round a payload.

    ``created_at`` and ``deadline`` are node time, in seconds. ``recipient`` is None for
    broadcasts and events, ``sender`` is None for code that is not an agent. Only the runtime
    touches the rest: ``answer_to``, where a reply goes; ``delivery``, who wants to know how it
    ends, if it came from outside this process; ``manner``, how history says that one of many
    recipients has handled it.
    """

    __slots__ = (
        "_headers",
        "_type",
        "answer_to",
        "attempt",
        "causation_id",
        "correlation_id",
        "created_at",
        "deadline",
        "delivery",
        "hops",
        "id",
        "kind",
        "manner",
        "payload",
        "priority",
        "recipient",
        "run_id",
        "sender",
        "topic",
    )

    def __init__(
        self,
        id: MessageId,
        kind: MessageKind,
        sender: str | None,
        recipient: str | None,
        topic: str | None,
        payload: T,
        priority: Priority,
        created_at: float,
        deadline: float | None,
        correlation_id: MessageId,
        causation_id: MessageId | None,
        run_id: str | None,
        attempt: int,
        hops: int,
        headers: Mapping[str, str] | None,
        answer_to: Any = None,
        type: str | None = None,
        delivery: Any = None,
    ) -> None:
        self.id = id
        self.kind = kind
        self.sender = sender
        self.recipient = recipient
        self.topic = topic
        self.payload = payload
        self.priority = priority
        self.created_at = created_at
        self.deadline = deadline
        self.correlation_id = correlation_id
        self.causation_id = causation_id
        self.run_id = run_id
        self.attempt = attempt
        self.hops = hops
        self._headers = headers
        self.answer_to = answer_to
        self._type = type
        self.delivery = delivery
        self.manner: Any = None

    @property
    def type(self) -> str:
        """The name of the payload's type."""
        return self._type or type_name(self.payload.__class__)

    @property
    def headers(self) -> Mapping[str, str]:
        """Trace context and the user's own entries."""
        return _NO_HEADERS if self._headers is None else self._headers

    def expired(self, now: float) -> bool:
        return self.deadline is not None and self.deadline <= now

    def copy(self, **changes: Any) -> Message[T]:
        """The same message with some fields changed: how a retry is made."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in _COPIED}
        fields.update(headers=self._headers, type=self._type)
        fields.update(changes)
        return Message(**fields)

    def __repr__(self) -> str:
        to = self.recipient if self.topic is None else f"topic {self.topic}"
        return (
            f"<Message {format_id(self.id)} {self.kind} {self.type}"
            f" {self.sender or '-'} -> {to or 'everyone'} {self.priority.name}>"
        )


_COPIED: Final = tuple(
    name for name in Message.__slots__ if not name.startswith("_") and name != "manner"
)


PlainEntry = tuple[
    MessageId,
    str | None,
    Any,
    int,
    float,
    MessageId,
    MessageId | None,
    str | None,
    int,
    float | None,
    Any,
    str,
]
"""A tell or a request on its way to a mailbox of this process, before anybody asked for its
envelope.

(id, sender, payload, priority, created_at, correlation_id, causation_id, run_id, hops, deadline,
answer_to, recipient): what varies between messages without headers. Most handlers take the payload
and never look at the envelope, so it is built only for those that do; see ``envelope``.
"""


def plain_tell(
    message_id: MessageId, payload: Any, created_at: float, recipient: str
) -> PlainEntry:
    """A tell from outside agents that has nothing else to say."""
    return (
        message_id,
        None,
        payload,
        _NORMAL,
        created_at,
        message_id,
        None,
        None,
        0,
        None,
        None,
        recipient,
    )


_NORMAL: Final = Priority.NORMAL.value
_PRIORITIES: Final = tuple(Priority)

Entry = Message[Any] | PlainEntry
"""What waits in a mailbox."""


def envelope(entry: Entry) -> Message[Any]:
    """The message that `entry` is."""
    if not isinstance(entry, tuple):
        return entry
    (
        message_id,
        sender,
        payload,
        priority,
        created_at,
        correlation_id,
        causation_id,
        run_id,
        hops,
        deadline,
        answer_to,
        recipient,
    ) = entry
    return Message(
        message_id,
        MessageKind.TELL if answer_to is None else MessageKind.REQUEST,
        sender,
        recipient,
        None,
        payload,
        _PRIORITIES[priority],
        created_at,
        deadline,
        correlation_id,
        causation_id,
        run_id,
        1,
        hops,
        None,
        answer_to,
    )


class Ending(NamedTuple):
    """How one delivery of a message ended, without its payload: one entry of the history ring.

    A broadcast or event has one ending per recipient, a request and its reply one each.
    """

    id: MessageId
    kind: MessageKind
    type: str
    """The name of the payload's type."""
    sender: str | None
    recipient: str | None
    topic: str | None
    priority: Priority
    created_at: float
    started_at: float | None
    ended_at: float
    correlation_id: MessageId
    causation_id: MessageId | None
    run_id: str | None
    attempt: int
    status: Status
    reason: Reason | None
    error: str | None
    payload: Any = None

    def __repr__(self) -> str:
        to = self.recipient if self.topic is None else f"{self.recipient} on {self.topic}"
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"<Ending {format_id(self.id)} {self.kind} {self.type}"
            f" {self.sender or '-'} -> {to or '-'}: {self.status}{why}>"
        )


def type_name(cls: type[Any]) -> str:
    """How a payload type is called in messages, logs and history: its qualified name."""
    return cls.__qualname__


def format_id(message_id: int) -> str:
    """An id as people see it: a UUIDv7."""
    return str(UUID(int=message_id))


def parse_id(text: str | int | UUID) -> MessageId:
    """The id that was written as a UUID, or as an int.

    Raises:
        InvalidName: it is neither.
    """
    if isinstance(text, UUID):
        return MessageId(text.int)
    if isinstance(text, int) and 0 <= text < 1 << 128:
        return MessageId(text)
    try:
        return MessageId(UUID(str(text)).int)
    except ValueError:
        raise InvalidName(
            "a message", text, "message ids look like 01990000-0000-7000-8000-000000000000"
        ) from None


_COUNTER_BITS: Final = 26
_NODE_BITS: Final = 48
_UUID_VERSION_7: Final = 0x7 << 76
_UUID_VARIANT: Final = 0b10 << 62


class IdSource:
    """Makes message ids: UUIDv7 (RFC 9562) with a counter, unique over nodes.

    The 74 free bits hold 48 random bits of this source and a 26-bit counter, so an id costs
    one step of a counter; only once a millisecond is the time part made anew. Ids of one
    source rise in the order they were made.

    The hot path does the work of ``make`` itself::

        now = ids.monotonic() + ids.offset
        if now >= ids.until:
            ids.rebase(now)
        message_id = ids.next()
    """

    __slots__ = ("_lock", "_node", "monotonic", "next", "offset", "until")

    next: Callable[[], MessageId]
    until: float
    """Node time at which ``rebase`` is due."""
    monotonic: Callable[[], float]
    offset: float
    """Node time is ``monotonic() + offset``: here because whoever makes ids needs it too."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, offset: float = 0.0
    ) -> None:
        self.monotonic = monotonic
        self.offset = offset
        self._lock = threading.Lock()
        self._node = int.from_bytes(os.urandom(_NODE_BITS // 8))
        self.until = 0.0
        self.rebase(0.0)

    def rebase(self, now: float) -> None:
        """Take the time part from `now` (node time). Safe from any thread."""
        with self._lock:
            if now < self.until:
                return
            milliseconds = int(now * 1000)
            tail = self._node << _COUNTER_BITS
            first = (
                (milliseconds << 80)
                | _UUID_VERSION_7
                | ((tail >> 62) << 64)
                | _UUID_VARIANT
                | (tail & ((1 << 62) - 1))
            )
            self.next = count(first).__next__  # type: ignore[assignment]
            self.until = (milliseconds + 1) / 1000

    def make(self, now: float) -> MessageId:
        """One id; what the hot path does inline."""
        if now >= self.until:
            self.rebase(now)
        return self.next()


_MAX_NAME_BYTES: Final = 128


def check_name(what: str, name: object) -> str:
    """`name`, if it may name an agent or a capability.

    Raises:
        InvalidName: it may not; the error says what would have worked.
    """
    if not isinstance(name, str):
        raise InvalidName(what, name, f"it must be a str, not {type(name).__name__}")
    if why := _why_not(name):
        raise InvalidName(what, name, why)
    return name


def check_topic(topic: object) -> str:
    """`topic`, if it may be published to: tokens joined by dots.

    Raises:
        InvalidName: it may not.
    """
    return _check_tokens("a topic", topic, wildcards=False)


def check_pattern(pattern: object) -> str:
    """`pattern`, if it may be subscribed to: ``*`` is one token, ``>`` one or more at the end.

    Raises:
        InvalidName: it may not.
    """
    return _check_tokens("a topic pattern", pattern, wildcards=True)


def _check_tokens(what: str, topic: object, *, wildcards: bool) -> str:
    if not isinstance(topic, str):
        raise InvalidName(what, topic, f"it must be a str, not {type(topic).__name__}")
    if len(topic.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        raise InvalidName(what, topic, f"at most {_MAX_NAME_BYTES} bytes of UTF-8")
    tokens = topic.split(".")
    for position, token in enumerate(tokens):
        if wildcards and token == "*":
            continue
        if wildcards and token == ">":
            if position + 1 == len(tokens):
                continue
            raise InvalidName(what, topic, "'>' stands for the rest, so it must be the last token")
        if why := _why_not(token):
            raise InvalidName(what, topic, f"in the tokens between the dots, {why}")
    return topic


def _why_not(name: str) -> str | None:
    if not name:
        return "it must not be empty"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it must be valid Unicode"
    if size > _MAX_NAME_BYTES:
        return f"at most {_MAX_NAME_BYTES} bytes of UTF-8, this has {size:,}"
    if not name.isprintable() and any(_is_control(char) for char in name):
        return "control characters are not allowed"
    if name != name.strip():
        return "no white space at either end"
    if name in ("*", ">"):
        return "'*' and '>' are wildcards"
    return None


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029"
