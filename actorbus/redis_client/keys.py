"""Names as parts of keys."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote, unquote


@lru_cache(maxsize=65_536)
def encoded(name: str) -> str:
    """A name as part of a key: only ``[A-Za-z0-9._~-]``, so none can choose its slot."""
    return quote(name, safe="")


def decoded(part: bytes | str) -> str:
    """The name in a part of a key."""
    return unquote(part.decode() if isinstance(part, bytes) else part)
