"""What may be asked of shared state: each check returns its argument or raises."""

from __future__ import annotations

import inspect
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar, get_args

from actorbus.context.store import PRIVATE, Rights
from actorbus.errors import InvalidName, InvalidOperation, did_you_mean
from actorbus.message import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.context.store import Operation

F = TypeVar("F", bound="Callable[..., Any]")

_MAX_KEY_BYTES: Final = 256
_SURELY_SHORT: Final = _MAX_KEY_BYTES // 4
"""So many characters fit whatever they are: UTF-8 takes at most 4 bytes for one."""

_CONTROLS: Final = ("Cc", "Zl", "Zp")

_SHOWN: Final = 64

MAX_TTL: Final = 100 * 365 * 86_400
"""In seconds. Past this an expiry is a mistake, and waiting for it overflows."""


def check_key(key: object) -> str:
    """`key`, if it may be one: 1 to 256 bytes of UTF-8 without control characters.

    Raises:
        InvalidName: it may not.
    """
    if isinstance(key, str) and not key:
        raise InvalidName("a context key", key, "it must not be empty")
    return _check_text("a context key", key)


def check_prefix(prefix: object) -> str:
    """`prefix`, if keys can start so; the empty one stands for all.

    Raises:
        InvalidName: no key can.
    """
    return _check_text("a prefix of context keys", prefix)


def check_namespace(name: object) -> str:
    """`name`, if a namespace may have it: a name, or ``agent/`` and the name of an agent.

    Raises:
        InvalidName: none may.
    """
    if isinstance(name, str) and name.startswith(PRIVATE):
        return PRIVATE + check_name("an agent", name.removeprefix(PRIVATE))
    return check_name("a namespace", name)


def check_principal(name: object) -> str | None:
    """`name`, if it is an agent's, or None for code outside an agent.

    Raises:
        InvalidName: it is neither.
    """
    return None if name is None else check_name("an agent", name)


def check_ttl(ttl: object) -> float | None:
    """`ttl`, if a key can live so long: None for ever, or seconds.

    Raises:
        InvalidOperation: it cannot.
    """
    if ttl is None or (_is_number(ttl) and 0 < ttl <= MAX_TTL):
        return ttl
    raise InvalidOperation(
        f"a ttl is a number of seconds above 0 and up to {MAX_TTL:,}, or None for no end,"
        f" not {_shown(ttl)}"
    )


def check_version(version: object) -> int:
    """`version`, if a key can be at it: 0 where it is absent, else 1 and up.

    Raises:
        InvalidOperation: it cannot.
    """
    if isinstance(version, int) and not isinstance(version, bool) and version >= 0:
        return version
    raise InvalidOperation(
        f"a version is an int, 0 where the key is absent, else 1 and up, not {_shown(version)}"
    )


def check_amount(by: object) -> float:
    """`by`, if it can be added: a finite number.

    Raises:
        InvalidOperation: it cannot.
    """
    if _is_number(by) and (isinstance(by, int) or math.isfinite(by)):
        return by
    raise InvalidOperation(f"an increment is a finite number, not {_shown(by)}")


def check_rights(rights: object) -> Rights:
    """`rights`, if there are such.

    Raises:
        InvalidOperation: there are not.
    """
    known: tuple[Rights, ...] = get_args(Rights)
    for right in known:
        if right == rights:
            return right
    hint = did_you_mean(rights, known) if isinstance(rights, str) else ""
    raise InvalidOperation(f"rights are {', '.join(map(repr, known))}, not {_shown(rights)}.{hint}")


def check_function(what: str, function: F) -> F:
    """`function`, if it can be called.

    Raises:
        InvalidOperation: it cannot.
    """
    if not callable(function):
        raise InvalidOperation(f"{what} must be a function, not {_shown(function)}")
    return function


def check_callback(what: str, function: F) -> F:
    """`function`, if it can be called and is done when it returns.

    Raises:
        InvalidOperation: it is no function, or an `async def`, which nobody here would await.
    """
    if inspect.iscoroutinefunction(check_function(what, function)):
        raise InvalidOperation(f"{what} must be a plain function, not an `async def`")
    return function


def check_mapping(what: str, mapping: object) -> Mapping[str, Any]:
    """`mapping`, if it maps keys to something; None is an empty one.

    Raises:
        InvalidOperation: it is no mapping.
        InvalidName: one of its keys is none of ours.
    """
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise InvalidOperation(f"{what}= takes a mapping by key, not {_shown(mapping)}")
    for key in mapping:
        check_key(key)
    return mapping


def check_keys(what: str, keys: object) -> tuple[str, ...]:
    """`keys`, if they are several keys: one str would be taken apart.

    Raises:
        InvalidOperation: they are not.
        InvalidName: one of them may not be a key.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidOperation(f"{what}= takes a list of keys, not {_shown(keys)}")
    return tuple(check_key(key) for key in keys)


def check_once(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """`operations`, if each has a key of its own.

    Raises:
        InvalidOperation: two have the same, so one of them would be for nothing.
    """
    by_key: dict[str, Operation] = {}
    for operation in operations:
        other = by_key.setdefault(operation.key, operation)
        if other is not operation:
            raise InvalidOperation(
                f"one commit has both {_verb(other)} and {_verb(operation)} for the key"
                f" {operation.key!r}; leave one out"
            )
    return tuple(by_key.values())


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def _verb(operation: Operation) -> str:
    return type(operation).__name__.lower()


def _check_text(what: str, text: object) -> str:
    if not isinstance(text, str):
        raise InvalidName(what, text, f"it must be a str, not {type(text).__name__}")
    if len(text) <= _SURELY_SHORT and text.isprintable():
        return text
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidName(what, text, "it must be valid Unicode") from None
    if size > _MAX_KEY_BYTES:
        raise InvalidName(what, text, f"at most {_MAX_KEY_BYTES} bytes of UTF-8, this has {size:,}")
    if any(unicodedata.category(char) in _CONTROLS for char in text):
        raise InvalidName(what, text, "control characters are not allowed")
    return text
