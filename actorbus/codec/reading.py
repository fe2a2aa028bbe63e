"""Payloads on their way in: out of what msgpack unpacked, which nobody may trust."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import ValidationError

from actorbus.codec.names import MAX_BASES, keep
from actorbus.codec.shapes import shape_of
from actorbus.codec.tags import MAX_DEPTH, PLAIN, Code
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.codec.shapes import Shape
    from actorbus.codec.type_book import TypeBook

_EQUAL_HASHES: Final = 64
_SHOWN_ERRORS: Final = 10


class Reading:
    """Puts payloads together, of the classes in `types`."""

    __slots__ = ("_agent_name", "_make_ref", "_shapes", "_types")

    def __init__(
        self,
        types: TypeBook,
        *,
        agent_name: Callable[[str], str],
        make_ref: Callable[[str], Any] | None,
    ) -> None:
        self._types = types
        self._shapes: dict[type[Any], Shape] = {}
        self._agent_name = agent_name
        self._make_ref = make_ref

    def open(self, value: Any, depth: int) -> Any:
        """What was packed, from what msgpack made of it; lists and dicts change in place."""
        kind = value.__class__
        if kind in PLAIN:
            return value
        if depth >= MAX_DEPTH:
            raise Undecodable(f"nested deeper than {MAX_DEPTH} levels")
        if kind is tuple:
            return self._open_tag(value, depth)
        for key, one in value.items() if kind is dict else enumerate(value):
            if one.__class__ not in PLAIN:
                value[key] = self.open(one, depth + 1)
        return value

    def _open_tag(self, tag: tuple[Any, ...], depth: int) -> Any:
        match tag:
            case (Code.OBJECT, list() as names, dict() as fields, list() | None as were_set):
                return self._open_object(names, self.open(fields, depth), were_set)
            case (Code.TUPLE, list() as items):
                return tuple(self.open(items, depth))
            case (Code.SET, list() as items):
                return set(_hashable(self.open(items, depth)))
            case (Code.FROZENSET, list() as items):
                return frozenset(_hashable(self.open(items, depth)))
            case (Code.BIG_INT, bytes() as digits):
                return int.from_bytes(digits, "big", signed=True)
            case (Code.DATETIME, str() as text):
                return _aware(datetime.fromisoformat(text))
            case (Code.DATE, str() as text):
                return date.fromisoformat(text)
            case (Code.TIMEDELTA, int() as days, int() as seconds, int() as microseconds):
                return timedelta(days, seconds, microseconds)
            case (Code.UUID, bytes() as sixteen):
                return UUID(bytes=sixteen)
            case (Code.DECIMAL, str() as text):
                return Decimal(text)
            case (Code.ENUM, str() as name, value):
                return self._open_enum(name, self.open(value, depth + 1))
            case (Code.REF, str() as name):
                return self._open_ref(self._agent_name(name))
            case _:
                raise Undecodable("a tag that this version does not know")

    def _open_object(
        self, names: list[Any], fields: dict[Any, Any], were_set: list[Any] | None
    ) -> Any:
        cls = self._types.nearest(names[:MAX_BASES])
        if cls is None or issubclass(cls, Enum):
            return fields
        shape = self._shapes.get(cls) or keep(self._shapes, cls, shape_of(cls))
        try:
            return shape.build(fields, were_set)
        except ValidationError as error:
            raise Undecodable(
                f"{cls.__qualname__} refuses {_refused_fields(error, shape)}"
            ) from None
        except Exception as error:  # noqa: BLE001 - the constructor of any class runs in there
            raise Undecodable(
                f"{cls.__qualname__} cannot be rebuilt: {type(error).__name__}"
            ) from None

    def _open_enum(self, name: str, value: Any) -> Any:
        cls = self._types.get(name)
        return value if cls is None or not issubclass(cls, Enum) else cls(value)

    def _open_ref(self, name: str) -> Any:
        return name if self._make_ref is None else self._make_ref(name)


def _refused_fields(error: ValidationError, shape: Shape) -> str:
    """Which fields and why, in words of the class alone: a key or a value may be a secret."""
    if error.error_count() > _SHOWN_ERRORS:
        return f"{error.error_count():,} of the values in its fields"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return ", ".join(
        f"{loc[0] if (loc := one['loc']) and loc[0] in shape.fields else 'the whole'}"
        f" ({one['type']})"
        for one in problems
    )


def _hashable(items: list[Any]) -> list[Any]:
    """`items`, if a set can be made of them in time that grows as their number does.

    Numbers and UUIDs can be chosen to have one hash, and a set of n such takes n * n / 2
    comparisons: a minute for a megabyte.
    """
    hashes = {hash(one) for one in items}
    if len(items) - len(hashes) > _EQUAL_HASHES:
        raise Undecodable("a set of values chosen to be slow")
    if len(set(items)) != len(items):
        raise Undecodable("a set with the same value twice")
    return items


def _aware(when: datetime) -> datetime:
    if when.utcoffset() is None:
        raise Undecodable("a datetime without a time zone")
    return when
