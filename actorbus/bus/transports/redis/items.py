"""A message as it lies in an inbox's log: expiry, a flag, its id, and its bytes."""

from __future__ import annotations

from typing import Final, NamedTuple

LEVELS: Final = range(4)
ID_SIZE: Final = 16
_EXPIRY: Final = 13
HEAD: Final = _EXPIRY + 1
"""Expiry in server milliseconds and a flag, before a message's id and bytes."""
_NO_EXPIRY: Final = b"0" * HEAD
BESIDE: Final = HEAD + ID_SIZE
"""Bytes that a message takes in the log beside its blob."""


class Item(NamedTuple):
    """A message as it lies in the log. ``expiry`` in server milliseconds; 0: never."""

    level: int
    position: int
    id: bytes
    expiry: int
    blob: bytes


def item_of(message_id: bytes, blob: bytes) -> bytes:
    """A message as it lies in the log, if it does not expire."""
    return _NO_EXPIRY + message_id + blob


_made: Final = tuple.__new__


def read_item(level: int, position: int, item: bytes) -> Item:
    expiry = item[:HEAD]
    if expiry == _NO_EXPIRY and len(item) >= BESIDE:
        # Not by the name of the class, whose own __new__ takes half as long again.
        return _made(Item, (level, position, item[HEAD:BESIDE], 0, item[BESIDE:]))
    if len(item) < BESIDE or not expiry[:_EXPIRY].isdigit():
        # Not ours: it comes out as a message of no bytes, which nobody can decode.
        return Item(level, position, item[HEAD:BESIDE], 0, b"")
    return Item(level, position, item[HEAD:BESIDE], int(expiry[:_EXPIRY]), item[BESIDE:])
