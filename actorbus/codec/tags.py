"""Tags: maps whose only key is nil, for what msgpack has no word for."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 100
"""Containers in one another. A third of what msgpack's own stack holds, as a tag takes three."""
PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""What msgpack carries as it is."""


class Code:
    """The first argument of a tag. A number once given keeps its meaning for ever."""

    OBJECT: Final = 0
    TUPLE: Final = 1
    SET: Final = 2
    FROZENSET: Final = 3
    BIG_INT: Final = 4
    DATETIME: Final = 5
    DATE: Final = 6
    TIMEDELTA: Final = 7
    UUID: Final = 8
    DECIMAL: Final = 9
    ENUM: Final = 10
    REF: Final = 11


def tag(code: int, *arguments: Any) -> dict[None, list[Any]]:
    return {None: [code, *arguments]}
