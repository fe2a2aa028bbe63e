"""What lies in a stream, the newest first: for people, who look at few of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

_FIRST: Final = 16
_MOST: Final = 500
_BYTES: Final = 4 << 20
"""Of a page, about: nobody else is served while it is copied."""


def newest_of(client: Redis, key: str, field: bytes) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Entries, in pages whose size follows from that of `field` in the page before."""
    before, count = "+", _FIRST
    while True:
        page: Any = client.xrevrange(key, before, "-", count=count)
        yield from page
        if len(page) < count:
            return
        before = f"({page[-1][0].decode()}"
        size = sum(len(fields[field]) for _, fields in page)
        count = max(1, min(_MOST, _BYTES * len(page) // max(1, size)))
