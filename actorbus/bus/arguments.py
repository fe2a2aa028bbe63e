"""What callers pass to a send, checked: each error says what would have worked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from actorbus.errors import InvalidArgument, MessageExpired
from actorbus.message import Priority, check_name


def checked_priority(priority: object) -> Priority:
    """`priority` as a ``Priority``; its number or its name will do.

    Raises:
        InvalidArgument: it is neither.
    """
    try:
        if isinstance(priority, bool):
            raise ValueError  # noqa: TRY004 - it is answered like every other value that is none
        if isinstance(priority, str):
            return Priority[priority.upper()]
        return Priority(priority)  # type: ignore[arg-type]
    except (KeyError, ValueError):
        words = ", ".join(f"Priority.{level.name}" for level in Priority)
        raise InvalidArgument("a priority", priority, f"it must be one of {words}") from None


def checked_ttl(ttl: object) -> float:
    """`ttl` in seconds.

    Raises:
        InvalidArgument: it is no number.
        MessageExpired: nothing is left of it.
    """
    seconds = _seconds("a ttl", ttl)
    if seconds <= 0:
        raise MessageExpired(f"a ttl of {seconds:g} s is over before the message is sent")
    return seconds


def checked_delay(delay: object) -> float:
    seconds = _seconds("a delay", delay)
    if seconds < 0:
        raise InvalidArgument("a delay", delay, "it must be 0 seconds or more")
    return seconds


def checked_timeout(timeout: object) -> float:
    seconds = _seconds("a timeout", timeout)
    if seconds < 0:
        raise InvalidArgument("a timeout", timeout, "it must be 0 seconds or more")
    return seconds


def checked_class(expect: object) -> type:
    """`expect` as a class that a reply can be checked against.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        if not isinstance(expect, type):
            raise TypeError
        isinstance(None, expect)  # what a Protocol that is not runtime_checkable refuses
    except TypeError:
        raise InvalidArgument(
            "the class of a reply", expect, "it must be a class, as in expect=dict"
        ) from None
    return expect


def _seconds(what: str, value: object) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds):
            return seconds
    raise InvalidArgument(what, value, "it must be a finite number of seconds")


def checked_headers(headers: object) -> Mapping[str, str]:
    """A copy of `headers`.

    Raises:
        InvalidArgument: not a mapping of str to str.
    """
    if isinstance(headers, Mapping) and all(
        isinstance(name, str) and isinstance(value, str) for name, value in headers.items()
    ):
        return dict(headers)
    raise InvalidArgument("headers", headers, "they must be a mapping of str to str")


def checked_pairs(messages: object) -> Iterator[tuple[str, Any]]:
    """The name and the payload of each of `messages`.

    Raises:
        InvalidArgument: they are no pairs, or one of them is none; it says which, from 0.
    """
    if not isinstance(messages, Iterable):
        raise InvalidArgument("messages", messages, "they must be pairs like ('scribe', payload)")
    for index, pair in enumerate(messages):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            why = "it must be a pair like ('scribe', payload)"
            raise InvalidArgument(f"message {index}", pair, why)
        name, payload = pair
        yield check_name(f"the recipient of message {index}", name), payload
