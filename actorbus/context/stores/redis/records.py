"""Versions of keys as bytes, as the scripts read them: see ``scripts/space.lua``.

What a script has to know stands in front as text; the value is msgpack, which scripts never
read, but for numbers that can be added exactly there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.context.store import Change
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from actorbus.codec import Codec

_EXACT: Final = 2**53
"""Below this, doubles are exact integers: all that a script can count with."""

_NUMBERS: Final = {b"i": int, b"f": float}


class Value(NamedTuple):
    """A value on its way: ``kind`` says what the bytes are."""

    kind: str
    data: bytes


GONE: Final = Value("-", b"")


def written(value: Any, codec: Codec) -> Value:
    """A value as bytes.

    Raises:
        UnsupportedPayload, PayloadTooLarge: it cannot be carried.
    """
    if type(value) is int and abs(value) < _EXACT:
        return Value("i", b"%d" % value)
    if type(value) is float and math.isfinite(value):
        return Value("f", repr(value).encode())
    return Value("m", codec.encode_payload(value))


def amount(by: float) -> Value:
    """What is to be added; kind ``m`` where no script can."""
    if type(by) is int and abs(by) < _EXACT:
        return Value("i", b"%d" % by)
    if type(by) is float:
        return Value("f", repr(by).encode())
    return Value("m", b"")


def signature(author: str | None) -> bytes:
    """Who wrote it, as it stands in a record."""
    if author is None:
        return b"-\n"
    name = author.encode()
    return b"%d\n%b" % (len(name), name)


def change_in(key: bytes, record: bytes, codec: Codec) -> Change:
    """The version of a key that a record holds.

    Raises:
        Undecodable: its value is none that can be read here, or the bytes are no record.
    """
    head, _, rest = record.partition(b"\n")
    try:
        version, stamp, kind, size = head.split(b" ")
        author = None if size == b"-" else rest[: int(size)].decode()
        data = rest if author is None else rest[int(size) :]
        return Change(
            key.decode(),
            value_of(kind, data, codec),
            int(version),
            author,
            seconds(stamp),
            deleted=kind == b"-",
        )
    except ValueError:
        raise Undecodable("not a version of a key") from None


def value_of(kind: bytes, data: bytes, codec: Codec) -> Any:
    """The value that `data` stands for."""
    if kind == b"-":
        return None
    number = _NUMBERS.get(kind)
    return codec.decode_payload(data) if number is None else number(data)


def seconds(stamp: bytes) -> float:
    """Server microseconds as seconds since the epoch."""
    return int(stamp) / 1_000_000


def microseconds(ttl: float | None) -> bytes:
    """A ttl in seconds as the scripts take it: empty for none, never 0."""
    return b"" if ttl is None else b"%d" % max(1, math.ceil(ttl * 1_000_000))
