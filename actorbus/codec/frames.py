"""Frames: lists of msgpack whose first field is the version of the format."""

from __future__ import annotations

from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from actorbus.codec.tags import MAX_DEPTH
from actorbus.codec.uncarried import with_article
from actorbus.errors import Undecodable

WIRE_VERSION: Final = 1
PAYLOAD_FIELDS: Final = 2
"""Fields of the frame of a payload alone: the version and itself."""

_WRONG_KEY: Final = "a map with a key other than str, bytes or int"
_FIRST_BUFFER: Final = 4_096
"""Bytes; msgpack's own 256 KiB come from the kernel and go back with every message."""


class Packers:
    """Packs frames, with packers that are used again. Safe from any thread."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle: list[Any] = []

    def pack(self, frame: list[Any]) -> bytes:
        try:
            packer = self._idle.pop()
        except IndexError:
            packer = msgpack.Packer(buf_size=_FIRST_BUFFER)
        # One that raised is not used again, nor one whose buffer has become large.
        data: bytes = packer.pack(frame)
        if len(data) <= _FIRST_BUFFER:
            self._idle.append(packer)
        return data


def unpack_frame(data: bytes, limit: int, *, fields: int, version: int = WIRE_VERSION) -> list[Any]:
    """The list of `fields` that a frame is, the version first.

    Raises:
        Undecodable: for any reason at all.
    """
    if type(data) is not bytes:
        raise Undecodable(f"{with_article(type(data))} where bytes were expected")
    if len(data) > limit:
        raise Undecodable(f"{len(data):,} bytes, the limit is {limit:,}")
    try:
        frame = msgpack.unpackb(
            data,
            object_pairs_hook=_read_map,
            ext_hook=_refuse_extension,
            strict_map_key=False,  # _read_map is stricter
            max_str_len=limit,
            max_bin_len=limit,
            max_array_len=limit,
            max_map_len=limit // 2,
            max_ext_len=0,
        )
    except Undecodable:
        raise
    except Exception as error:  # noqa: BLE001 - the unpacker's errors have no common root
        raise Undecodable(_why_not_msgpack(error)) from None
    if type(frame) is not list or not frame or type(frame[0]) is not int:
        raise Undecodable("not a frame of ours")
    if frame[0] != version:
        raise Undecodable(
            f"wire version {frame[0]}, and this node reads {version}; upgrade the older one"
        )
    if len(frame) != fields:
        raise Undecodable(f"a frame of {len(frame):,} fields where {fields} were expected")
    return frame


def _why_not_msgpack(error: Exception) -> str:
    match error:
        case msgpack.ExtraData():
            return "bytes after the end"
        case msgpack.StackError():
            return f"nested deeper than {MAX_DEPTH} levels"
        case UnicodeDecodeError():
            return "text that is not UTF-8"
        case _:
            return f"not msgpack, or cut short: {type(error).__name__}"


def _read_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any] | tuple[Any, ...]:
    """A dict, or the arguments of a tag as a tuple, which nothing else becomes."""
    try:
        read = dict(pairs)
    except TypeError:
        raise Undecodable(_WRONG_KEY) from None
    for key in read:
        if key.__class__ is not str:
            return _read_unusual_map(pairs, read)
    if len(read) != len(pairs):
        raise Undecodable("a map with the same key twice")
    return read


def _read_unusual_map(
    pairs: list[tuple[Any, Any]], read: dict[Any, Any]
) -> dict[Any, Any] | tuple[Any, ...]:
    for key, value in pairs:
        if key is None and type(value) is list and len(pairs) == 1:
            return tuple(value)
        if type(key) not in (str, bytes, int):
            raise Undecodable(_WRONG_KEY)
    if len(read) != len(pairs):
        raise Undecodable("a map with the same key twice")
    return read


def _refuse_extension(code: int, data: bytes) -> Any:
    raise Undecodable("a msgpack extension type")
