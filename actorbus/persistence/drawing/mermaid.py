"""The diagram in Mermaid's words, as Markdown hosts draw it.

What people wrote goes in as Mermaid's own entity codes but for letters, digits and a few
marks, so that nothing in it is syntax: no line end, no comment, no directive, no ``end``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from actorbus.persistence.drawing.label import label, lane_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.persistence.drawing.sequence import Arrow, Diagram, End

_CELLS: Final = 80
_MOST: Final = 50_000
"""Characters that Mermaid draws unless it is told otherwise."""

_SYNTAX: Final = re.compile(r"[^\w .,()/·…-]|_|\bend\b", re.ASCII | re.IGNORECASE)


def mermaid(diagram: Diagram) -> str:
    """A ``sequenceDiagram``; a message to many is one line per recipient."""
    lines = [
        "sequenceDiagram",
        *(
            f"    participant p{lane} as {_plain(lane_name(name, _CELLS))}"
            for lane, name in enumerate(diagram.lanes)
        ),
        *(f"    {line}" for arrow in diagram.arrows for line in _lines(arrow)),
    ]
    text = "\n".join(lines) + "\n"
    return text if len(text) <= _MOST else _told_long(text)


def _told_long(text: str) -> str:
    return f"%% over {_MOST:,} characters: raise maxTextSize where this is drawn\n{text}"


def _lines(arrow: Arrow) -> Iterator[str]:
    said = _plain(str(label(arrow, 2 * _CELLS)))
    if not arrow.ends:
        yield f"Note over p{arrow.source}: {said}"
    for end in arrow.ends:
        yield f"p{arrow.source}{_sign(arrow, end)}p{end.lane}: {said}"


def _sign(arrow: Arrow, end: End) -> str:
    line = "--" if arrow.answer else "-"
    if arrow.wrong or end.wrong:
        return f"{line}x"
    return f"{line})" if arrow.waits else f"{line}>>"


def _plain(text: str) -> str:
    return _SYNTAX.sub(_coded, text)


def _coded(found: re.Match[str]) -> str:
    """The first character as an entity code, which is enough to break a word."""
    text = found.group()
    return text if not text.isascii() else f"#{ord(text[0])};{text[1:]}"
