"""What is sent: about 300 bytes, a fresh one each time."""

from __future__ import annotations

from typing import Any, Final

AGENTS: Final = 50
SIZE: Final = 300
_TEXT: Final = "x" * (SIZE - 25)


def payload(number: int) -> dict[str, Any]:
    return {"number": number, "text": _TEXT}


def body(number: int) -> bytes:
    """The same for what knows no more than bytes."""
    return b"%025d" % number + _TEXT.encode()
