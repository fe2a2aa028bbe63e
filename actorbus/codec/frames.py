"""Frames: lists of msgpack whose first field is the version of the format.

What a frame costs its reader is bounded before it is built. An empty list is a byte on the wire
and 500 ns of work, an array that says it is long takes its memory before its values come. So of a
frame that is not small it is first seen that it is whole (in C, and building nothing), and that
it holds no more lists and dicts than a count that its limit in bytes gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgpack  # type: ignore[import-untyped]

from actorbus.codec.tags import MAX_DEPTH, PLAIN
from actorbus.codec.uncarried import with_article
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

_Container = TypeVar("_Container")

WIRE_VERSION: Final = 1
PAYLOAD_FIELDS: Final = 2
"""Fields of the frame of a payload alone: the version and itself."""

SMALL: Final = 16_384
"""Bytes: no more is looked into, and so many containers are always allowed."""
_BYTES_EACH: Final = 8
"""Of the limit, for each container."""
_MAY_BEGIN_ONE: Final = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
"""The bytes that a list or a map may begin with; others may hold them too."""
_FLAT: Final = {bytes((0x92, WIRE_VERSION, 0x80 | size)): size for size in range(1, 16)}
"""How the frame of a small dict begins, and how many keys that says it has."""
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
        frame = _unpack(data) if len(data) <= SMALL else _unpack_large(data, limit)
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


def unpack_flat_dict(data: bytes, limit: int) -> dict[str | bytes, Any] | None:
    """The payload in `data`, if that is a small dict of plain values; else None: ``unpack_frame``.

    msgpack makes it in half the time without a hook. It takes no key but str and bytes then; that
    a key comes twice shows in how many are left.
    """
    if data.__class__ is not bytes or len(data) > SMALL or len(data) > limit:
        return None
    if (size := _FLAT.get(data[:3])) is None:
        return None
    try:
        payload: dict[str | bytes, Any] = msgpack.unpackb(data)[1]
    except Exception:  # noqa: BLE001 - unpack_frame says why
        return None
    if len(payload) != size:
        return None
    for value in payload.values():
        if value.__class__ not in PLAIN:
            return None
    return payload


def check_cost(data: bytes, limit: int) -> None:
    """See that msgpack costs its reader no more than `limit` bytes may.

    Raises:
        Undecodable: it holds too many lists and dicts, or is cut short.
    """
    if len(data) <= SMALL:
        return
    try:
        _check_whole(data)
    except Exception as error:  # noqa: BLE001 - the unpacker's errors have no common root
        raise Undecodable(_why_not_msgpack(error)) from None
    most = _most_containers(limit)
    if _may_hold_more(data, most):
        _unpack_counting(data, most)


def _unpack_large(data: bytes, limit: int) -> Any:
    _check_whole(data)
    most = _most_containers(limit)
    return _unpack_counting(data, most) if _may_hold_more(data, most) else _unpack(data)


def _check_whole(data: bytes) -> None:
    """Go through it once in C, so that nothing is made for values that do not come."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()


def _most_containers(limit: int) -> int:
    return max(limit // _BYTES_EACH, SMALL)


def _may_hold_more(data: bytes, most: int) -> bool:
    return len(data) > most and len(data) - len(data.translate(None, _MAY_BEGIN_ONE)) > most


def _unpack_counting(data: bytes, most: int) -> Any:
    """A tag counts as the lists and dicts in it."""
    left = most

    def count(container: _Container) -> _Container:
        nonlocal left
        left -= 1
        if left < 0:
            raise Undecodable(
                f"more than {most:,} lists and dicts, where a tuple counts as two and an object"
                " as three: send bytes, or one list for each field, or raise the setting"
                f" payload_limit, which allows one for every {_BYTES_EACH} bytes"
            )
        return container

    def read_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any] | tuple[Any, ...]:
        read = _read_map(pairs)
        return read if type(read) is tuple else count(read)

    return _unpack(data, read_map, count)


def _unpack(
    data: bytes,
    read_map: Callable[[list[tuple[Any, Any]]], Any] | None = None,
    read_list: Callable[[list[Any]], Any] | None = None,
) -> Any:
    return msgpack.unpackb(
        data,
        object_pairs_hook=read_map or _read_map,
        list_hook=read_list,
        ext_hook=_refuse_extension,
        strict_map_key=False,  # _read_map is stricter
        max_ext_len=0,
    )


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
    read = {}
    for key, value in pairs:
        if key.__class__ is not str:
            return _read_unusual_map(pairs)
        read[key] = value
    if len(read) != len(pairs):
        raise Undecodable("a map with the same key twice")
    return read


def _read_unusual_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any] | tuple[Any, ...]:
    for key, value in pairs:
        if key is None and type(value) is list and len(pairs) == 1:
            return tuple(value)
        if type(key) not in (str, bytes, int):
            raise Undecodable(_WRONG_KEY)
    read = dict(pairs)
    if len(read) != len(pairs):
        raise Undecodable("a map with the same key twice")
    return read


def _refuse_extension(code: int, data: bytes) -> Any:
    raise Undecodable("a msgpack extension type")
