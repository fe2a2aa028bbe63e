"""What is sent: about 300 bytes, a fresh one each time."""

from __future__ import annotations

from typing import Any, Final

AGENTS: Final = 50
SIZE: Final = 300
_REST: Final = 25
_TEXT: Final = "x" * (SIZE - _REST)


def payload(number: int, text: str = _TEXT) -> dict[str, Any]:
    return {"number": number, "text": text}


def text_of(size: int) -> str:
    """What makes a payload so many bytes."""
    return "x" * (size - _REST)


def body(number: int) -> bytes:
    """The same for what knows no more than bytes."""
    return b"%025d" % number + _TEXT.encode()
