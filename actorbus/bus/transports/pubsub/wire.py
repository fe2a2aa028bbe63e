"""What nodes say to each other: a batch of frames.

A batch is msgpack of ``[version, node, [frame, ...]]``, a frame a list that begins with its
``Word``. Frames that a node does not know are left out by ``read_batch``, wrong ones refused.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]

from actorbus.codec.frames import check_cost
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION: Final = 1

Frame = list[Any]


class Word(IntEnum):
    """The first field of a frame, and so what the others are."""

    MESSAGE = 1
    """(message): of a codec; a request is answered to the batch's node."""
    REPLY = 2
    """(id, payload)"""
    ERROR = 3
    """(id, class, text, fields)"""
    CANCEL = 4
    """(id): nobody waits for that answer any more."""
    UP = 5
    """(revision, name): the node has that agent now."""
    DOWN = 6
    """(revision, name)"""
    TABLE = 7
    """(revision, part, parts, names): everyone the node has."""
    WHO = 8
    """(): send me your table."""
    BEAT = 9
    """(revision)"""
    BYE = 10
    """(): the node stops."""
    ECHO = 11
    """(number): whoever sent it has heard all that was said before."""


FIELDS: Final[Mapping[Word, tuple[type, ...]]] = {
    Word.MESSAGE: (bytes,),
    Word.REPLY: (bytes, bytes),
    Word.ERROR: (bytes, str, str, dict),
    Word.CANCEL: (bytes,),
    Word.UP: (int, str),
    Word.DOWN: (int, str),
    Word.TABLE: (int, int, int, list),
    Word.WHO: (),
    Word.BEAT: (int,),
    Word.BYE: (),
    Word.ECHO: (int,),
}


def pack_batch(node: str, frames: Sequence[Frame]) -> bytes:
    data: bytes = msgpack.packb([VERSION, node, frames])
    return data


def read_batch(data: bytes, limit: int) -> tuple[str, list[Frame]]:
    """Who sent it, and its frames.

    Raises:
        Undecodable: for any reason at all.
    """
    if len(data) > limit:
        raise Undecodable(f"{len(data):,} bytes, the limit is {limit:,}")
    check_cost(data, limit)
    try:
        batch = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
    except Exception as error:  # noqa: BLE001 - the unpacker's errors have no common root
        raise Undecodable(f"no batch of ours: {type(error).__name__}") from None
    match batch:
        case [int() as version, *_] if version != VERSION:
            raise Undecodable(f"pub/sub version {version}, and this node reads {VERSION}")
        case [_, str() as node, list() as frames]:
            return node, [frame for frame in frames if _is_known(frame)]
        case _:
            raise Undecodable("no batch of ours")


def _is_known(frame: Any) -> bool:
    if type(frame) is not list or not frame or type(frame[0]) is not int:
        raise Undecodable("no frame of ours")
    try:
        wanted = FIELDS[Word(frame[0])]
    except ValueError:
        return False
    if tuple(type(field) for field in frame[1:]) != wanted:
        raise Undecodable(f"wrong fields of {Word(frame[0]).name}")
    return True
