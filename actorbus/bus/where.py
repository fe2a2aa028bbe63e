"""Content filters: conditions on the fields of a payload, as data that a transport can ship.

::

    ref.subscribe("orders.>", where={"country": "NO", "total": where.gt(100)})
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

Where = Mapping[str, Any]
"""Field names (dots reach inside) with the value they must equal, or a ``Condition``."""

_MISSING: Final = object()


def _one_of(value: Any, choices: Any) -> bool:
    return value in choices


def _prefix(value: Any, start: Any) -> bool:
    return isinstance(value, str) and value.startswith(start)


def _contains(value: Any, part: Any) -> bool:
    return part in value


_TESTS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "in": _one_of,
    "prefix": _prefix,
    "contains": _contains,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one field."""

    test: str
    value: Any

    def holds(self, value: Any) -> bool:
        """Whether `value` passes. What cannot be compared does not."""
        try:
            return bool(_TESTS[self.test](value, self.value))
        except Exception:  # noqa: BLE001 - one subscriber's filter must not fail the publisher
            return False


def eq(value: Any) -> Condition:
    return Condition("eq", value)


def ne(value: Any) -> Condition:
    return Condition("ne", value)


def gt(value: Any) -> Condition:
    return Condition("gt", value)


def ge(value: Any) -> Condition:
    return Condition("ge", value)


def lt(value: Any) -> Condition:
    return Condition("lt", value)


def le(value: Any) -> Condition:
    return Condition("le", value)


def one_of(*values: Any) -> Condition:
    return Condition("in", values)


def prefix(start: str) -> Condition:
    return Condition("prefix", start)


def contains(part: Any) -> Condition:
    return Condition("contains", part)


def compiled(where: object) -> dict[str, Condition] | None:
    """`where` with every value made a condition; None if there is nothing to test.

    Raises:
        InvalidArgument: it is no mapping of field names, or tests with a function.
    """
    if where is None:
        return None
    if not isinstance(where, Mapping):
        raise InvalidArgument(
            "a filter", where, 'it must be a mapping like {"total": where.gt(100)}'
        )
    conditions = {}
    for field, value in where.items():
        if not isinstance(field, str) or not field:
            raise InvalidArgument("a field", field, "filters test fields by name")
        conditions[field] = _condition(field, value)
    return conditions or None


def _condition(field: str, value: Any) -> Condition:
    condition = value if isinstance(value, Condition) else Condition("eq", value)
    if callable(condition.value):
        raise InvalidArgument(
            f"a condition on {field!r}",
            value,
            "it must be data that can be sent, such as 'NO' or where.gt(100), and no function",
        )
    return condition


def matches(conditions: Mapping[str, Condition] | None, payload: Any) -> bool:
    """Whether every condition holds. A field that is missing passes none."""
    return conditions is None or all(
        (value := field_of(payload, field)) is not _MISSING and condition.holds(value)
        for field, condition in conditions.items()
    )


def field_of(payload: Any, path: str) -> Any:
    """The value at a dotted path through mappings and public attributes, or ``_MISSING``.

    An attribute that raises when it is read is missing.
    """
    value = payload
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name, _MISSING)
        elif name.startswith("_"):
            return _MISSING
        else:
            try:
                value = getattr(value, name, _MISSING)
            except Exception:  # noqa: BLE001 - one subscriber's filter must not fail the publisher
                return _MISSING
        if value is _MISSING:
            return _MISSING
    return value
