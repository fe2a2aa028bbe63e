"""The envelope of a message as the fields of a frame, its payload packed already."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from actorbus.codec.frames import WIRE_VERSION
from actorbus.codec.uncarried import step
from actorbus.errors import UnsupportedPayload
from actorbus.message import Message, MessageId, MessageKind, Priority, check_topic

if TYPE_CHECKING:
    from collections.abc import Callable

ENVELOPE_LIMIT: Final = 64 << 10
"""Bytes that a message may take beside its payload: names, headers, ids."""
_MAX_COUNT: Final = (1 << 31) - 1
_T = TypeVar("_T")

MESSAGE_FIELDS: Final = 17
_KINDS: Final = {str(kind): kind for kind in MessageKind}
_PRIORITIES: Final = {int(priority): priority for priority in Priority}


def envelope_fields(message: Message[Any], payload: bytes, shift: float = 0.0) -> list[Any]:
    """What ``read_envelope`` reads; `shift` seconds are added to its times."""
    headers = message.headers
    for key, value in headers.items():
        if type(key) is not str or type(value) is not str:
            raise UnsupportedPayload(f"headers{step(key)}: keys and values of headers are str")
    causation = message.causation_id
    return [
        WIRE_VERSION,
        message.id.to_bytes(16, "big"),
        message.kind,
        message.sender,
        message.recipient,
        message.topic,
        message.priority,
        message.created_at + shift,
        None if message.deadline is None else message.deadline + shift,
        message.correlation_id.to_bytes(16, "big"),
        None if causation is None else causation.to_bytes(16, "big"),
        message.run_id,
        message.attempt,
        message.hops,
        dict(headers) or None,
        message.type,
        payload,
    ]


def read_envelope(
    frame: list[Any], agent_name: Callable[[str], str], run_name: Callable[[str], str]
) -> Message[Any]:
    """The message, its payload still packed. A wrong field raises one exception or another."""
    (
        _,
        id,  # noqa: A001
        kind,
        sender,
        recipient,
        topic,
        priority,
        created_at,
        deadline,
        correlation_id,
        causation_id,
        run_id,
        attempt,
        hops,
        headers,
        type_name,
        payload,
    ) = frame
    own_id = _read_id(id)
    return Message(
        id=own_id,
        kind=_KINDS.get(kind) or MessageKind(_read(str, kind)),
        sender=None if sender is None else agent_name(sender),
        recipient=None if recipient is None else agent_name(recipient),
        topic=None if topic is None else check_topic(topic),
        payload=_read(bytes, payload),
        priority=_PRIORITIES[priority],
        created_at=_read_time(created_at),
        deadline=None if deadline is None else _read_time(deadline),
        correlation_id=own_id if correlation_id == id else _read_id(correlation_id),
        causation_id=None if causation_id is None else _read_id(causation_id),
        run_id=None if run_id is None else run_name(run_id),
        attempt=_read_count(attempt),
        hops=_read_count(hops),
        headers=None if headers is None else _read_headers(headers),
        type=_read(str, type_name),
    )


def _read(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise TypeError
    return value


def _read_id(value: Any) -> MessageId:
    if type(value) is not bytes or len(value) != 16:
        raise ValueError
    return int.from_bytes(value, "big")  # type: ignore[return-value]


def _read_time(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _read_count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise ValueError
    return value


def _read_headers(value: Any) -> dict[str, str]:
    headers = _read(dict, value)
    if not all(type(key) is type(one) is str for key, one in headers.items()):
        raise TypeError
    return headers
