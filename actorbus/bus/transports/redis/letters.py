"""What lies in inboxes: messages for agents, and what nodes tell each other.

The first byte says which. Everything after it is checked before it is used; what is wrong is
``Undecodable``. Times on the way are the server's.

=====  =========================================================================================
MAIL   nothing more: the message, as the codec packs it
ASK    one byte, the length of the name of the node that asks; that name; the message
VALUE  the id of the request, 16 bytes; the payload it came to, as the codec packs it
ERROR  the id of the request; msgpack of the error's class, text and fields
CANCEL  the id of the request, which nobody waits for any more
STOP   16 bytes that mean nothing; 1 if what waits is to be handled first, else 0; an agent's name
REFUSED  the id of the request, which the node that read it did not trust; why, as text
=====  =========================================================================================
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]

from actorbus.bus.transports.errors_in_transit import (
    LONGEST_ERROR,
    error_fields,
    read_error,
)
from actorbus.errors import InvalidName, Undecodable, Untrusted
from actorbus.message import MessageId, check_name

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.items import Item
    from actorbus.codec import Codec
    from actorbus.errors import ActorbusError
    from actorbus.message import Entry, Message

NOTE_LEVEL: Final = 1
"""The level of what nodes tell each other."""
_ID: Final = 16
_LONGEST_WHY: Final = 1_024
"""Bytes of a refusal's reason."""


class Word(IntEnum):
    MAIL = 1
    ASK = 2
    VALUE = 3
    ERROR = 4
    CANCEL = 5
    STOP = 6
    REFUSED = 7


_MAIL: Final = bytes([Word.MAIL])
_MAIL_WORD: Final = int(Word.MAIL)


class Outcome(NamedTuple):
    """What a request came to."""

    request: MessageId
    value: Any = None
    error: ActorbusError | None = None


class Cancelled(NamedTuple):
    """Nobody waits for the answer to a request any more."""

    request: MessageId


class Refused(NamedTuple):
    """A request was not trusted where it came. Whoever forged one may have caused this, too."""

    request: MessageId
    why: str


class StopAgent(NamedTuple):
    """An agent of this node is to stop."""

    name: str
    drain: bool


Note = Outcome | Cancelled | StopAgent | Refused
"""What nodes tell each other."""


def notes_of(node: str) -> str:
    """The inbox of a node. No agent can be called so: a name begins with no space."""
    return f" {node}"


def is_notes(name: str) -> bool:
    return name.startswith(" ")


def pack_message(codec: Codec, message: Entry, shift: float, asker: str | None) -> bytes:
    """`shift`: the server's time less node time, in seconds. `asker`: the node to answer to.

    Raises:
        UnsupportedPayload, PayloadTooLarge: it cannot be carried.
    """
    data = codec.encode(message, shift=shift)
    if asker is None:
        return _MAIL + data
    name = asker.encode()
    return bytes([Word.ASK, len(name)]) + name + data


class UnreadablePayload(Undecodable):
    """The envelope of a message is sound, and its payload cannot be rebuilt here.

    `message` is that envelope, the payload still packed; `asker` the node to answer to.
    """

    def __init__(self, why: str, message: Message[Any], asker: str | None) -> None:
        super().__init__(why)
        self.message = message
        self.asker = asker

    def under(self, message_id: bytes) -> Undecodable:
        """This, if it lies under its own id; else nobody can tell whose record it belongs to."""
        if self.message.id.to_bytes(_ID, "big") == message_id:
            return self
        return Undecodable(str(self))


def read_message(codec: Codec, blob: bytes, shift: float) -> tuple[Message[Any], str | None]:
    """The message, in node time, and the node that waits for an answer to it.

    Raises:
        UnreadablePayload: but for its payload it can be read.
        Undecodable: for any other reason at all.
    """
    asker, data = _opened(blob)
    message = codec.envelope(data, shift=shift)
    try:
        message.payload = codec.decode_payload(message.payload)
    except Undecodable as error:
        raise UnreadablePayload(str(error), message, asker) from None
    return message, asker


def read_envelope(codec: Codec, blob: bytes, shift: float) -> tuple[Message[Any], str | None]:
    """``read_message``, but for the payload, which is still packed.

    Raises:
        Undecodable: for any reason at all.
    """
    asker, data = _opened(blob)
    return codec.envelope(data, shift=shift), asker


def packed(blob: bytes) -> bytes:
    """The message alone, as the codec packed it.

    Raises:
        Undecodable: it is none.
    """
    return _opened(blob)[1]


def as_mail(data: bytes) -> bytes:
    """What the codec packed, as a message that nobody waits for an answer to."""
    return _MAIL + data


def _opened(blob: bytes) -> tuple[str | None, bytes]:
    if blob and blob[0] == _MAIL_WORD:
        return None, blob[1:]
    if len(blob) < 2 or blob[0] != Word.ASK:
        raise Undecodable("no message for an agent")
    start = 2 + blob[1]
    try:
        return blob[2:start].decode(), blob[start:]
    except UnicodeDecodeError:
        raise Undecodable("the name of the node that asks is no text") from None


def check_claims(message: Message[Any], asker: str | None, node: str, item: Item) -> None:
    """See that what stands beside a sealed message is what the sealed one says.

    Raises:
        Untrusted: it has another id, or an answer is wanted by another node than `node`.
    """
    if message.id.to_bytes(_ID, "big") != item.id:
        raise Untrusted("forged", "its place in the log is under another id", node)
    if asker is not None and asker.rpartition("~")[0] != node:
        raise Untrusted("forged", f"the answer is wanted by node {asker!r}", node)


def pack_value(codec: Codec, request: MessageId, value: Any) -> bytes:
    """
    Raises:
        UnsupportedPayload, PayloadTooLarge: it cannot be carried.
    """
    return bytes([Word.VALUE]) + request.to_bytes(_ID, "big") + codec.encode_payload(value)


def pack_error(request: MessageId, error: BaseException) -> bytes:
    packed: bytes = msgpack.packb(error_fields(error))
    return bytes([Word.ERROR]) + request.to_bytes(_ID, "big") + packed


def pack_cancel(request: MessageId) -> bytes:
    return bytes([Word.CANCEL]) + request.to_bytes(_ID, "big")


def pack_refused(request: MessageId, why: str) -> bytes:
    return bytes([Word.REFUSED]) + request.to_bytes(_ID, "big") + why.encode()[:_LONGEST_WHY]


def pack_stop(name: str, *, drain: bool) -> bytes:
    return bytes([Word.STOP]) + bytes(_ID) + bytes([drain]) + name.encode()


def read_note(codec: Codec, blob: bytes, agent_of: Any) -> Note:
    """What another node tells this one. `agent_of` names the agent that a request went to.

    Raises:
        Undecodable: for any reason at all.
    """
    if len(blob) <= _ID:
        raise Undecodable("no note between nodes")
    request = MessageId(int.from_bytes(blob[1 : 1 + _ID], "big"))
    rest = blob[1 + _ID :]
    match blob[0]:
        case Word.VALUE:
            return Outcome(request, codec.decode_payload(rest))
        case Word.ERROR:
            return Outcome(request, error=_read_error(agent_of(request), rest))
        case Word.CANCEL:
            return Cancelled(request)
        case Word.STOP:
            return _read_stop(rest)
        case Word.REFUSED:
            return Refused(request, rest[:_LONGEST_WHY].decode(errors="replace"))
        case other:
            raise Undecodable(f"a note of kind {other}, which this node does not know")


def _read_stop(data: bytes) -> StopAgent:
    try:
        return StopAgent(check_name("an agent", data[1:].decode()), data[0] == 1)
    except (UnicodeDecodeError, InvalidName) as error:
        raise Undecodable(f"no agent to stop: {type(error).__name__}") from None


def _read_error(agent: str, data: bytes) -> ActorbusError:
    if len(data) > LONGEST_ERROR:
        raise Undecodable(f"an error of {len(data):,} bytes, the limit is {LONGEST_ERROR:,}")
    try:
        fields = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
    except Exception as error:  # noqa: BLE001 - the unpacker's errors have no common root
        raise Undecodable(f"no error of ours: {type(error).__name__}") from None
    match fields:
        case [str() as name, str() as text, dict() as more]:
            return read_error(agent, name, text, more)
        case _:
            raise Undecodable("no error of ours")
