"""How a drawing says things: text that nothing obeys, cut to a width in cells."""

from __future__ import annotations

import unicodedata
from typing import Final

_MARKS_SHOWN: Final = 2
"""Marks stack on their letter without limit, over the rows above it if they may."""
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400


def inert(text: str, *, lines: bool = False) -> str:
    """`text` with all that a terminal, a parser or the eye would obey shown as an escape.

    That is control characters, what changes the direction of writing, half surrogates, and
    piles of combining marks; `lines` lets line breaks through.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if _is_mark(char) else 0
        plain = char.isprintable() or (lines and char == "\n")
        shown.append(char if plain and marks <= _MARKS_SHOWN else _escaped(char))
    return "".join(shown)


def counted(count: int, noun: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def cells(text: str) -> int:
    """How many columns of a fixed pitch `text` takes."""
    return len(text) if text.isascii() else sum(_cell(char) for char in text)


def elided(text: str, width: int) -> str:
    """`text`, inert, in at most `width` cells; what does not fit is left out of the middle."""
    if len(text) > 4 * width:
        text = text[: 2 * width] + text[-2 * width :]
    text = inert(text)
    if cells(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{_first(text, width - 1 - tail)}…{_first(text[::-1], tail)[::-1]}"


def clipped(text: str, length: int) -> str:
    """`text`, inert but for line breaks, cut after `length` characters."""
    return inert(text, lines=True) if len(text) <= length else f"{clipped(text[:length], length)}…"


def duration(seconds: float) -> str:
    """A time as people say it, with two or three digits that matter."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.01:
        return f"{seconds * 1e3:.2f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.2f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def _first(text: str, width: int) -> str:
    taken = 0
    for position, char in enumerate(text):
        taken += _cell(char)
        if taken > width:
            return text[:position]
    return text


def _cell(char: str) -> int:
    if char.isascii():
        return 1
    return 0 if _is_mark(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _is_mark(char: str) -> bool:
    return not char.isascii() and unicodedata.category(char) in ("Mn", "Me")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
