"""Records as frames of a file: what is spilled, and what of a damaged file can still be read.

A frame is a mark, the length of its body, a CRC-32 of all that follows it, the number of its
first record, how many it holds, and the body: records in msgpack, one after another. Nothing
that is read back is ever executed, and a payload is the JSON text that its row will hold.

A length may be as wrong as anything else. So where no frame stands, reading goes on at the
next mark with a frame behind it; the numbers tell how many records stood between.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgpack  # type: ignore[import-untyped]

from actorbus.message import Entry, Message, MessageId, MessageKind, Priority, envelope
from actorbus.persistence.payloads import Encoded, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actorbus.persistence.masking import Mask
    from actorbus.persistence.rows import Outcome

_MARK: Final = b"\xabspl"
_HEAD: Final = struct.Struct(">4sII")
_NUMBERS: Final = struct.Struct(">QI")
_LEAST: Final = _HEAD.size + _NUMBERS.size
_ENOUGH: Final = 1 << 20
"""A frame ends with the record that reaches this many bytes."""
_MOST_INT: Final = 1 << 63

Pair: TypeAlias = "tuple[Entry, Outcome | None]"
Happening: TypeAlias = "tuple[MessageId, Outcome]"


class Frame(NamedTuple):
    """Some records, the first of which has the number `first`."""

    first: int
    records: int
    body: bytes

    def packed(self) -> bytes:
        rest = _NUMBERS.pack(self.first, self.records) + self.body
        # The length is in the checksum: a file's end full of zeros is no empty frame.
        checksum = zlib.crc32(rest, len(rest))
        return _HEAD.pack(_MARK, len(rest), checksum) + rest


class Hole(NamedTuple):
    """`size` bytes from `at` on that are no frame; `torn` if no frame follows."""

    at: int
    size: int
    torn: bool


class Unreadable(ValueError):
    """A frame that holds something else than records."""


def frames(data: bytes, start: int = 0) -> Iterator[Frame | Hole]:
    """The frames of a file from `start` on, and where there are none."""
    at = start
    while at < len(data):
        frame = _frame(data, at)
        if frame is not None:
            yield frame
            at += _LEAST + len(frame.body)
            continue
        found = _next_frame(data, at + 1)
        yield Hole(at, found - at, torn=found == len(data))
        at = found


def _frame(data: bytes, at: int) -> Frame | None:
    if len(data) - at < _LEAST:
        return None
    mark, length, checksum = _HEAD.unpack_from(data, at)
    start, end = at + _HEAD.size, at + _HEAD.size + length
    if mark != _MARK or length < _NUMBERS.size or end > len(data):
        return None
    rest = data[start:end]
    if zlib.crc32(rest, length) != checksum:
        return None
    first, count = _NUMBERS.unpack_from(rest)
    return Frame(first, count, rest[_NUMBERS.size :])


def _next_frame(data: bytes, at: int) -> int:
    while (at := data.find(_MARK, at)) >= 0:
        if _frame(data, at) is not None:
            return at
        at += 1
    return len(data)


def pack(
    pairs: Iterable[Pair], events: Iterable[Happening], *, mask: Mask | None = None
) -> Iterator[tuple[int, bytes]]:
    """Bodies of frames, each with how many records it holds; at least one record a frame."""
    count, body = 0, bytearray()
    for record in _records(pairs, events, mask):
        body += record
        count += 1
        if len(body) >= _ENOUGH:
            yield count, bytes(body)
            count, body = 0, bytearray()
    if count:
        yield count, bytes(body)


def unpack(body: bytes) -> tuple[list[Pair], list[Happening]]:
    """The records of a frame, as ``Rows`` takes them.

    Raises:
        Unreadable: they are none.
    """
    reader = msgpack.Unpacker(
        max_buffer_size=len(body), unicode_errors="surrogatepass", strict_map_key=False
    )
    reader.feed(body)
    pairs: list[Pair] = []
    events: list[Happening] = []
    try:
        for record in reader:
            if not isinstance(record, list):
                raise Unreadable(f"no records: a {type(record).__name__}")
            if len(record) == 2:  # an event: its id and how it ended
                events.append((_id(record[0]), _outcome(record[1])))
            else:
                pairs.append(
                    (_message(record), None if record[-1] is None else _outcome(record[-1]))
                )
    except (ValueError, TypeError, LookupError, AttributeError, msgpack.UnpackException) as error:
        raise Unreadable(f"no records: {error}") from None
    return pairs, events


def _records(
    pairs: Iterable[Pair], events: Iterable[Happening], mask: Mask | None
) -> Iterator[bytes]:
    for entry, outcome in pairs:
        yield _packed(_of_message(envelope(entry), mask, outcome))
    for event_id, outcome in events:
        yield _packed((_bytes(event_id), _of_outcome(outcome, mask)))


def _of_message(message: Message[Any], mask: Mask | None, outcome: Outcome | None) -> Any:
    causation, payload = message.causation_id, encode(message.payload)
    headers = dict(message.headers) or None
    if mask is not None:
        payload = mask.document(payload)
        headers = headers and {mask.text(str(key)): mask.text(str(headers[key])) for key in headers}
    return (
        _bytes(message.id),
        message.kind._value_,
        message.type,
        message.sender,
        message.recipient,
        message.topic,
        message.priority._value_,
        payload,
        headers,
        _bytes(message.correlation_id),
        None if causation is None else _bytes(causation),
        message.hops,
        message.created_at,
        message.deadline,
        message.run_id,
        message.attempt,
        None if outcome is None else _of_outcome(outcome, mask),
    )


def _message(record: list[Any]) -> Message[Encoded]:
    causation = record[10]
    return Message(
        id=_id(record[0]),
        kind=MessageKind(record[1]),
        type=record[2],
        sender=record[3],
        recipient=record[4],
        topic=record[5],
        priority=Priority(record[6]),
        payload=Encoded(record[7]),
        headers=record[8],
        correlation_id=_id(record[9]),
        causation_id=None if causation is None else _id(causation),
        hops=record[11],
        created_at=record[12],
        deadline=record[13],
        run_id=record[14],
        attempt=record[15],
    )


def _of_outcome(outcome: Outcome, mask: Mask | None) -> tuple[Any, ...]:
    message_id, recipient, status, reason, error, *rest = outcome
    if mask is not None and error is not None:
        error = mask.text(error)
    return (_bytes(message_id), recipient, status, reason, error, *rest)


def _outcome(record: list[Any]) -> Outcome:
    message_id, recipient, status, reason, error, attempt, started_at, ended_at, *rest = record
    run = rest[0] if rest else None  # what was spilled before it was told has none
    return (_id(message_id), recipient, status, reason, error, attempt, started_at, ended_at, run)


def _packed(record: Any) -> bytes:
    try:
        return _msgpack(record)
    except (OverflowError, ValueError):
        return _msgpack(_narrow(record))


def _msgpack(record: Any) -> bytes:
    packed: bytes = msgpack.packb(record, default=str, unicode_errors="surrogatepass")
    return packed


def _narrow(value: Any) -> Any:
    """`value` with words for numbers that msgpack has no room for."""
    if isinstance(value, (tuple, list)):
        return [_narrow(item) for item in value]
    if isinstance(value, int) and not -_MOST_INT <= value < _MOST_INT:
        return str(value)
    return value


def _bytes(id: MessageId) -> bytes:
    return id.to_bytes(16)


def _id(packed: bytes) -> MessageId:
    return MessageId(int.from_bytes(packed))
