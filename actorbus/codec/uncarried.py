"""Why a payload cannot travel, and where in it the value is that cannot."""

from __future__ import annotations

from typing import Any, Final

from actorbus.codec.names import is_carried

_SHOWN_KEY: Final = 40


class Uncarried(Exception):
    """A value that cannot travel; `path` grows from it outwards while the walk unwinds."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []


def step(key: Any) -> str:
    """One step of a path: a field, a key that reads like one, or any other key."""
    if isinstance(key, str) and key.isidentifier() and len(key) <= _SHOWN_KEY:
        return f".{key}"
    shown = ascii(key)
    return f"[{shown if len(shown) <= _SHOWN_KEY else f'{shown[: _SHOWN_KEY - 3]}...'}]"


def with_article(cls: type[Any]) -> str:
    article = "an" if cls.__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {cls.__name__}"


def where(payload: Any, path: list[str]) -> str:
    root = type(payload).__name__ if is_carried(type(payload)) else ""
    return (root + "".join(reversed(path))).removeprefix(".") or "payload"
