"""Cursors: where a reader stands, as one opaque word that may be kept and given back.

Base64 of a byte that says which kind it is, a digest of the question, and the place. A cursor
of another question would give an answer with gaps, so it is refused.
"""

from __future__ import annotations

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2s
from typing import TYPE_CHECKING, Final

from actorbus.errors import InvalidQuery
from actorbus.message import MessageId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorbus.persistence.filters import Filter

_PAGE: Final = b"p"
_FOLLOW: Final = b"f"
_DIGEST: Final = 4
_PLACE: Final = struct.Struct(">IQ")
_LONGEST: Final = 1 << 20
"""Characters: a place in 65,000 chains."""


def of_page(wanted: Filter, last: MessageId) -> str:
    """The cursor of the page that begins below `last`."""
    return _written(_PAGE, _digest(wanted) + last.to_bytes(16))


def page_start(cursor: str, wanted: Filter) -> MessageId:
    """Where the page begins.

    Raises:
        InvalidQuery: it is no cursor, or one of another question.
    """
    body = _read(_PAGE, cursor, "Page.next")
    if len(body) != _DIGEST + 16:
        raise _malformed(cursor, "Page.next")
    if body[:_DIGEST] != _digest(wanted):
        raise InvalidQuery(
            "that cursor belongs to another question: give the filters of the page it came with,"
            " or no cursor for the first page"
        )
    return MessageId(int.from_bytes(body[_DIGEST:]))


def of_places(places: Mapping[int, int]) -> str:
    """The cursor of a follower: how far it has read each chain."""
    return _written(_FOLLOW, b"".join(_PLACE.pack(*place) for place in sorted(places.items())))


def places(cursor: str) -> dict[int, int]:
    """How far each chain was read.

    Raises:
        InvalidQuery: it is no cursor of a follower.
    """
    body = _read(_FOLLOW, cursor, "follow(...).cursor")
    if len(body) % _PLACE.size:
        raise _malformed(cursor, "follow(...).cursor")
    return dict(_PLACE.iter_unpack(body))


def _written(kind: bytes, body: bytes) -> str:
    return urlsafe_b64encode(kind + body).rstrip(b"=").decode()


def _read(kind: bytes, cursor: str, source: str) -> bytes:
    if not isinstance(cursor, str) or len(cursor) > _LONGEST:
        raise _malformed(cursor, source)
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (ValueError, binascii.Error):
        raise _malformed(cursor, source) from None
    if _written(raw[:1], raw[1:]) != cursor or raw[:1] != kind:
        raise _malformed(cursor, source)
    return raw[1:]


def _malformed(cursor: object, source: str) -> InvalidQuery:
    return InvalidQuery(f"{cursor!r:.64} is no cursor: use one from {source} as it came, or none")


def _digest(wanted: Filter) -> bytes:
    return blake2s(repr(wanted).encode(), digest_size=_DIGEST).digest()
