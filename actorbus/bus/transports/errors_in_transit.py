"""Errors on their way to a node that asked: as class, sentence and plain data."""

from __future__ import annotations

from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from actorbus import errors
from actorbus.errors import ActorbusError, AgentFailed

LONGEST_ERROR: Final = 100_000
"""Bytes that an error takes at most, less than any node refuses to read."""
_LONGEST_TEXT: Final = 16_384
"""Bytes, the last ones: a traceback ends with what matters."""
_PLAIN: Final = (str, int, float, bool, type(None))


def error_fields(error: BaseException) -> tuple[str, str, dict[str, Any]]:
    """An error as its class, sentence and plain data; what msgpack cannot carry is left out.

    Together they are no more than ``LONGEST_ERROR`` bytes.
    """
    fields: dict[str, Any] = {}
    room = LONGEST_ERROR - 2 * _LONGEST_TEXT
    for name, given in vars(error).items():
        value = _readable(given)
        size = _size_of([name, value])
        if not name.startswith("_") and size is not None and size <= room:
            fields[name] = value
            room -= size
    return _readable(type(error).__name__), _readable(str(error)), fields


def read_error(agent: str, name: str, text: str, fields: dict[Any, Any]) -> ActorbusError:
    """The error again if it is one of ours, else ``AgentFailed``. Nothing named is imported."""
    cls = vars(errors).get(name)
    if not (isinstance(cls, type) and issubclass(cls, ActorbusError)):
        return AgentFailed(agent, name, text, "")
    error: ActorbusError = cls.__new__(cls)
    error.args = (text,)
    known = (item for item in fields.items() if type(item[0]) is str and item[0].isidentifier())
    error.__dict__.update({key: value for key, value in known if not key.startswith("_")})
    return error


def _readable(value: Any) -> Any:
    """Text without what is no Unicode, and no longer than anybody reads."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")[-_LONGEST_TEXT:].decode("utf-8", "ignore")
    return value


def _size_of(field: list[Any]) -> int | None:
    """Bytes that a name and its plain value take; None if they cannot travel."""
    value = field[1]
    among = value if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(one, _PLAIN) for one in among):
        return None
    try:
        return len(msgpack.packb(field))
    except (OverflowError, UnicodeEncodeError):
        return None
