"""Conversations drawn, each format in a file of its own.

``sequence`` decides what is where, ``wording`` and ``label`` what is said; the rest is spelling.
Nothing that a message holds is obeyed by what shows the drawing, or misleads who reads it.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from actorbus.errors import InvalidQuery
from actorbus.persistence.drawing.chrome_trace import chrome_trace
from actorbus.persistence.drawing.mermaid import mermaid
from actorbus.persistence.drawing.plain import plain
from actorbus.persistence.drawing.sequence import lay_out
from actorbus.persistence.drawing.svg import svg
from actorbus.persistence.drawing.terminal import page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.persistence.answers import MessageView

__all__ = ["Format", "draw", "lay_out", "page"]


class Format(StrEnum):
    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"
    JSON = "json"
    CHROME_TRACE = "chrome-trace"


def draw(views: Sequence[MessageView], format: Format | str, *, width: int = 100) -> str:
    """A conversation in one format, as the text of a whole file.

    `width` is that of ``text``, in columns.

    Raises:
        InvalidQuery: no such format.
    """
    match _format(format):
        case Format.TEXT:
            told = page(lay_out(views), width)
            return "".join("".join(part.text for part in line) + "\n" for line in told)
        case Format.MERMAID:
            return mermaid(lay_out(views))
        case Format.SVG:
            return svg(lay_out(views))
        case Format.JSON:
            return json.dumps([plain(view) for view in views], indent=2) + "\n"
        case Format.CHROME_TRACE:
            return chrome_trace(lay_out(views))
        case unknown:
            assert_never(unknown)


def _format(name: str) -> Format:
    try:
        return Format(name)
    except ValueError:
        known = ", ".join(Format)
        raise InvalidQuery(f"no format {str(name)[:64]!r}: use one of {known}") from None
