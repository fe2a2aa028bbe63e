"""Payloads on their way out: into what msgpack packs as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

from actorbus.codec.names import is_carried, keep, source_name
from actorbus.codec.shapes import shape_of
from actorbus.codec.tags import MAX_DEPTH, PLAIN, Code, tag
from actorbus.codec.uncarried import Uncarried, step, with_article
from actorbus.errors import PayloadTooLarge, UnsupportedPayload

if TYPE_CHECKING:
    from collections.abc import Collection

    from actorbus.codec.type_book import TypeBook

_MIN_INT: Final = -(1 << 63)
_MAX_INT: Final = (1 << 64) - 1
_CAREFULLY_AS_IS: Final = PLAIN - {str, int}
_CARRIED: Final = "send str, number, bytes, list, dict, dataclass or pydantic model"


class Writers:
    """How to write each class of objects. Every class that is written is added to `types`."""

    __slots__ = ("_types", "known")

    def __init__(self, types: TypeBook) -> None:
        self._types = types
        self.known: dict[type[Any], _Write] = {}

    def find(self, value: Any, in_model: bool) -> _Write:
        """The writer of a class that is not known yet.

        Raises:
            Uncarried: objects of that class cannot be carried, or not be rebuilt.
        """
        kind = type(value)
        if isinstance(getattr(value, "__actorbus_ref__", None), str):
            return keep(self.known, kind, _write_ref)
        if not is_carried(kind):
            if in_model:
                return _write_as_pydantic_does
            raise _unknown(value)
        try:
            self._types.add(kind)
            write = _enum_writer(kind) if issubclass(kind, Enum) else _object_writer(kind)
        except UnsupportedPayload as error:
            raise Uncarried(str(error)) from None
        return keep(self.known, kind, write)


def is_plain(value: dict[Any, Any]) -> bool:
    """Whether msgpack packs all of it as it is, so that a walk would come to the same."""
    for key, one in value.items():
        if key.__class__ is not str or one.__class__ not in PLAIN:
            return False
    return True


class Walk:
    """Turns one payload into what msgpack packs as it is.

    `careful` looks at every str and int too: the second walk, once packing has failed.
    It takes at most `limit` values, each of which takes a byte at least: that bounds the time
    that a small payload with very many references to its own parts can take.
    """

    __slots__ = ("_as_is", "_careful", "_limit", "_room", "_writers")

    def __init__(self, writers: Writers, limit: int, careful: bool = False) -> None:
        self._writers = writers
        self._limit = limit
        self._room = limit
        self._careful = careful
        self._as_is = _CAREFULLY_AS_IS if careful else PLAIN

    def value(self, value: Any, depth: int, in_model: bool) -> Any:
        kind = type(value)
        if kind in self._as_is:
            return value
        leaf = _LEAVES.get(kind)
        if leaf is not None:
            return leaf(value)
        if depth >= MAX_DEPTH:
            raise Uncarried(f"nested deeper than {MAX_DEPTH} levels, or holding itself")
        if kind is dict:
            return self.entries(value, depth + 1, in_model)
        if kind is list:
            return self.items(value, depth + 1, in_model)
        if kind in _COLLECTIONS:
            return tag(_COLLECTIONS[kind], self.items(value, depth + 1, in_model))
        write = self._writers.known.get(kind) or self._writers.find(value, in_model)
        return write(self, value, depth + 1)

    def entries(self, value: Mapping[Any, Any], depth: int, in_model: bool) -> dict[Any, Any]:
        self._count(len(value))
        packed = {}
        as_is = self._as_is
        for key, one in value.items():
            try:
                if type(key) is not str or self._careful:
                    _check_key(key)
                packed[key] = one if type(one) in as_is else self.value(one, depth, in_model)
            except Uncarried as error:
                error.path.append(step(key))
                raise
        return packed

    def items(self, value: Collection[Any], depth: int, in_model: bool) -> list[Any]:
        self._count(len(value))
        packed: list[Any] = []
        as_is = self._as_is
        for one in value:
            try:
                packed.append(one if type(one) in as_is else self.value(one, depth, in_model))
            except Uncarried as error:
                error.path.append(f"[{len(packed)}]")
                raise
        return packed

    def _count(self, values: int) -> None:
        self._room -= values
        if self._room < 0:
            raise PayloadTooLarge(self._limit - self._room, self._limit)


def _check_key(key: Any) -> None:
    kind = type(key)
    if kind is str:
        _check_text(key)
    elif kind is int:
        if not _MIN_INT <= key <= _MAX_INT:
            raise Uncarried("a key of more than 64 bits cannot be carried; use a str")
    elif kind is not bytes:
        raise Uncarried(f"{with_article(kind)} cannot be carried as a key; use str, bytes or int")


def _check_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Uncarried(
            "text that is not valid Unicode (a lone surrogate) cannot be carried; send bytes"
        ) from None
    return text


def _pack_int(value: int) -> Any:
    if _MIN_INT <= value <= _MAX_INT:
        return value
    return tag(Code.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_datetime(value: datetime) -> Any:
    """The instant and its offset from UTC; the name of the time zone stays behind."""
    if value.utcoffset() is None:
        raise Uncarried(
            "a datetime without a time zone cannot be carried, as its reader may live in another;"
            " use datetime.now(UTC), or value.astimezone()"
        )
    return tag(Code.DATETIME, value.isoformat())


def _pack_timedelta(value: timedelta) -> Any:
    return tag(Code.TIMEDELTA, value.days, value.seconds, value.microseconds)


_LEAVES: Final[Mapping[type[Any], Callable[[Any], Any]]] = {
    str: _check_text,
    int: _pack_int,
    datetime: _pack_datetime,
    date: lambda value: tag(Code.DATE, value.isoformat()),
    timedelta: _pack_timedelta,
    UUID: lambda value: tag(Code.UUID, value.bytes),
    Decimal: lambda value: tag(Code.DECIMAL, str(value)),
}
_COLLECTIONS: Final[Mapping[type[Any], int]] = {
    tuple: Code.TUPLE,
    set: Code.SET,
    frozenset: Code.FROZENSET,
}

_Write = Callable[[Walk, Any, int], Any]


def _write_ref(_walk: Walk, value: Any, _depth: int) -> Any:
    return tag(Code.REF, value.__actorbus_ref__)


def _enum_writer(cls: type[Enum]) -> _Write:
    name = source_name(cls)

    def write(walk: Walk, value: Enum, depth: int) -> Any:
        return tag(Code.ENUM, name, walk.value(value.value, depth, False))

    return write


def _object_writer(cls: type[Any]) -> _Write:
    shape = shape_of(cls)
    names, take, is_model = shape.names, shape.take, shape.is_model

    def write(walk: Walk, value: Any, depth: int) -> Any:
        fields, were_set = take(value)
        return tag(Code.OBJECT, names, walk.entries(fields, depth, is_model), were_set)

    return write


def _write_as_pydantic_does(_walk: Walk, value: Any, _depth: int) -> Any:
    """A field of a model may hold more than we carry: paths, URLs, IP addresses, times of day.

    They travel as the text that the field's own type validates back.
    """
    if isinstance(value, Secret | SecretStr | SecretBytes):
        raise Uncarried(
            f"{with_article(type(value))} is kept out of messages and their history;"
            " send the name of the secret"
        )
    try:
        text = to_jsonable_python(value)
    except PydanticSerializationError:
        raise _unknown(value) from None
    if type(text) not in (str, int, float):
        raise _unknown(value)
    return text


def _unknown(value: Any) -> Uncarried:
    for base in type(value).__mro__[1:]:
        if base in _LEAVES or base in _COLLECTIONS or base in (float, bytes, list, dict):
            return Uncarried(
                f"{with_article(type(value))} cannot be carried; send the {base.__name__} of it"
            )
    return Uncarried(f"{with_article(type(value))} cannot be carried; {_CARRIED}")
