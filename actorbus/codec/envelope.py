"""The envelope of a message as the fields of a frame, its payload packed already.

What is another in each message (ids, times, counts) is its *head*, of a fixed form. The rest
(who, to whom, what sort) is the same in many: its *label* is a frame of its own, which is packed
once and read once, and known by its bytes after that.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from actorbus.codec.frames import unpack_frame
from actorbus.codec.uncarried import step
from actorbus.errors import UnsupportedPayload
from actorbus.message import (
    Entry,
    Message,
    MessageId,
    MessageKind,
    Priority,
    check_topic,
    envelope,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MESSAGE_VERSION: Final = 2
"""The version of the format of whole messages."""
ENVELOPE_LIMIT: Final = 64 << 10
"""Bytes that a message may take beside its payload: names, headers, ids."""
MESSAGE_FIELDS: Final = 4
"""Fields of the frame of a message: the version, head, label and payload."""
_LABEL_FIELDS: Final = 9
_MAX_COUNT: Final = (1 << 31) - 1
_HEAD: Final = struct.Struct(">16s16s16sddII")
"""Id, correlation id, causation id (zeros: none), when it was made, its deadline (NaN: none),
attempt, hops."""
_NO_ID: Final = bytes(16)
_NO_DEADLINE: Final = math.nan
_KNOWN_LABELS: Final = 4_096
_LONGEST_KNOWN: Final = 1_024
"""Bytes: so what is remembered of labels that others made takes a few megabytes at most."""
_T = TypeVar("_T")
_KINDS: Final = {str(kind): kind for kind in MessageKind}
_PRIORITIES: Final = {int(priority): priority for priority in Priority}


class _Label(NamedTuple):
    kind: MessageKind
    sender: str | None
    recipient: str | None
    topic: str | None
    priority: Priority
    run_id: str | None
    type: str
    headers: Mapping[str, str] | None


class Envelopes:
    """Packs and reads envelopes. Safe from any thread.

    Args:
        pack: packs a frame.
        agent_name: the name of an agent, checked.
        run_name: the same for a run.
    """

    __slots__ = ("_agent_name", "_labels", "_pack", "_packed", "_run_name")

    def __init__(
        self,
        pack: Callable[[list[Any]], bytes],
        *,
        agent_name: Callable[[str], str],
        run_name: Callable[[str], str],
    ) -> None:
        self._pack = pack
        self._agent_name = agent_name
        self._run_name = run_name
        self._packed: dict[tuple[Any, ...], bytes] = {}
        self._labels: dict[bytes, _Label] = {}

    def fields(self, message: Entry, payload: bytes, shift: float = 0.0) -> list[Any]:
        """What ``read`` reads; `shift` seconds are added to its times.

        Raises:
            UnsupportedPayload: headers that are not text.
        """
        if message.__class__ is tuple:
            (
                message_id,
                sender,
                value,
                priority,
                created_at,
                correlation_id,
                causation_id,
                run_id,
                hops,
                deadline,
                answer_to,
                recipient,
            ) = message
            attempt = 1
            key = (answer_to is None, sender, recipient, priority, run_id, value.__class__)
            label = self._packed.get(key)
            if label is None:
                label = _remember(self._packed, key, self._pack_label(envelope(message), None))
        else:
            message = envelope(message)
            message_id = message.id
            created_at, deadline = message.created_at, message.deadline
            correlation_id, causation_id = message.correlation_id, message.causation_id
            attempt, hops = message.attempt, message.hops
            label = self._label(message)
        own_id = message_id.to_bytes(16, "big")
        return [
            MESSAGE_VERSION,
            _HEAD.pack(
                own_id,
                own_id if correlation_id == message_id else correlation_id.to_bytes(16, "big"),
                _NO_ID if causation_id is None else causation_id.to_bytes(16, "big"),
                created_at + shift,
                _NO_DEADLINE if deadline is None else deadline + shift,
                attempt,
                hops,
            ),
            label,
            payload,
        ]

    def read(self, frame: list[Any], shift: float) -> Message[Any]:
        """The message, its payload still packed, its times less `shift` seconds.

        A wrong field raises one exception or another.
        """
        _, head, label, payload = frame
        own_id, correlation_id, causation_id, created_at, deadline, attempt, hops = _HEAD.unpack(
            head
        )
        known = self._labels.get(label)
        if known is None:
            known = self._read_label(label)
        kind, sender, recipient, topic, priority, run_id, type_name, headers = known
        if payload.__class__ is not bytes or not created_at - created_at == 0.0:
            raise ValueError
        if deadline != deadline:
            deadline = None
        elif math.isinf(deadline):
            raise ValueError
        else:
            deadline -= shift
        if attempt > _MAX_COUNT or hops > _MAX_COUNT:
            raise ValueError
        message_id = _read_id(own_id)
        return Message(
            message_id,
            kind,
            sender,
            recipient,
            topic,
            payload,
            priority,
            created_at - shift,
            deadline,
            message_id if correlation_id == own_id else _read_id(correlation_id),
            None if causation_id == _NO_ID else _read_id(causation_id),
            run_id,
            attempt,
            hops,
            headers,
            None,
            type_name,
        )

    def _label(self, message: Message[Any]) -> bytes:
        headers = message.headers
        if headers:
            return self._pack_label(message, headers)
        # The values of the enums: an enum of Python takes long to hash.
        key = (
            message.kind._value_,
            message.sender,
            message.recipient,
            message.topic,
            message.priority._value_,
            message.run_id,
            message.type,
        )
        packed = self._packed.get(key)
        if packed is None:
            packed = _remember(self._packed, key, self._pack_label(message, None))
        return packed

    def _pack_label(self, message: Message[Any], headers: Mapping[str, str] | None) -> bytes:
        for key, value in (headers or {}).items():
            if type(key) is not str or type(value) is not str:
                raise UnsupportedPayload(f"headers{step(key)}: keys and values of headers are str")
        return self._pack(
            [
                MESSAGE_VERSION,
                message.kind,
                message.sender,
                message.recipient,
                message.topic,
                message.priority,
                message.run_id,
                message.type,
                None if headers is None else dict(headers),
            ]
        )

    def _read_label(self, data: bytes) -> _Label:
        frame = unpack_frame(data, ENVELOPE_LIMIT, fields=_LABEL_FIELDS, version=MESSAGE_VERSION)
        _, kind, sender, recipient, topic, priority, run_id, type_name, headers = frame
        label = _Label(
            kind=_KINDS.get(kind) or MessageKind(_read(str, kind)),
            sender=None if sender is None else self._agent_name(sender),
            recipient=None if recipient is None else self._agent_name(recipient),
            topic=None if topic is None else check_topic(topic),
            priority=_PRIORITIES[_read(int, priority)],
            run_id=None if run_id is None else self._run_name(run_id),
            type=_read(str, type_name),
            headers=None if headers is None else _read_headers(headers),
        )
        if label.headers is None and len(data) <= _LONGEST_KNOWN:
            _remember(self._labels, data, label)
        return label


def _remember(cache: dict[Any, _T], key: Any, value: _T) -> _T:
    if len(cache) >= _KNOWN_LABELS:
        cache.clear()
    cache[key] = value
    return value


def _read(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise TypeError
    return value


def _read_id(value: bytes) -> MessageId:
    return int.from_bytes(value, "big")  # type: ignore[return-value]  # calling a NewType takes as long


def _read_headers(value: Any) -> dict[str, str]:
    headers = _read(dict, value)
    if not all(type(key) is type(one) is str for key, one in headers.items()):
        raise TypeError
    return headers
