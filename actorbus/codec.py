"""Payloads and messages as bytes: what travels, and what may come back.

The wire is msgpack in one frame of ``[version, ...]``, so every frame names its format.

*A tag* carries what msgpack has no word for: a map whose only key is nil, over a list of a code
and its arguments, such as ``{nil: [7, <16 bytes>]}`` for a UUID. No dict of a user can look like
one, because nil is no key we carry. There are no msgpack extension types at all.

*A class* travels as the names of itself and its bases, nearest first, each ``module:qualname``
(``source_name``). A name on the wire is only ever looked up in a ``TypeBook``, never imported; the
nearest base known there is built, and an object of classes nobody knows arrives as the dict of
its fields (an enum member as its value). Fields unknown to the class that is built are dropped,
and those it knows but did not get take their defaults, so that two versions of a program can
talk. A pydantic model checks what arrives; a dataclass believes it, but for ``__post_init__``.

*Bytes are not to be trusted.* Size is looked at before anything is unpacked and depth before
anything is built; whatever is wrong is ``Undecodable``, whose text never shows the bytes.

========================  =======================================================================
duplicate keys in a map   refused: a reader that keeps the last and one that keeps the first
                          would see two different messages
keys                      str, bytes, and ints of 64 bits: others can be made to collide
NaN and infinities        carried as the floats they are, refused as times of a message
bytes after the frame     refused
extension types           refused, msgpack's own timestamp too
depth                     at most ``MAX_DEPTH`` containers in one another, on either side
========================  =======================================================================
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import threading
import typing
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import msgpack  # type: ignore[import-untyped]
from pydantic import (
    MISSING,
    BaseModel,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
)
from pydantic_core import PydanticSerializationError, to_jsonable_python

from actorbus.errors import PayloadTooLarge, Undecodable, UnsupportedPayload
from actorbus.message import (
    Message,
    MessageId,
    MessageKind,
    Priority,
    check_name,
    check_topic,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

WIRE_VERSION: Final = 1
MAX_DEPTH: Final = 100
"""Containers in one another. A third of what msgpack's own stack holds, as a tag takes three."""
ENVELOPE_LIMIT: Final = 64 << 10
"""Bytes that a message may take beside its payload: names, headers, ids."""

_KNOWN_CLASSES: Final = 10_000
_MAX_BASES: Final = 32
_EQUAL_HASHES: Final = 64
_SHOWN_KEY: Final = 40
_SHOWN_ERRORS: Final = 10
_MAX_COUNT: Final = (1 << 31) - 1
_FIRST_BUFFER: Final = 4_096
"""Bytes; msgpack's own 256 KiB come from the kernel and go back with every message."""
_MIN_INT: Final = -(1 << 63)
_MAX_INT: Final = (1 << 64) - 1
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
_CAREFULLY_AS_IS: Final = _PLAIN - {str, int}
_CARRIED: Final = "send str, number, bytes, list, dict, dataclass or pydantic model"

_T = TypeVar("_T")


class _Code:
    """The first argument of a tag. A number once given keeps its meaning for ever."""

    OBJECT: Final = 0
    TUPLE: Final = 1
    SET: Final = 2
    FROZENSET: Final = 3
    BIG_INT: Final = 4
    DATETIME: Final = 5
    DATE: Final = 6
    TIMEDELTA: Final = 7
    UUID: Final = 8
    DECIMAL: Final = 9
    ENUM: Final = 10
    REF: Final = 11


def source_name(cls: type[Any]) -> str:
    """``module:qualname`` of a class, the same however its source file was started.

    A class of the program itself (``python shop.py``, ``python -m shop``, or a process that
    ``multiprocessing`` spawned from either) has the module name it would have if imported.
    """
    module = cls.__module__
    if module in ("__main__", "__mp_main__"):
        module = _name_of_program(module)
    return f"{module}:{cls.__qualname__}"


def _name_of_program(module: str) -> str:
    program = sys.modules.get(module)
    spec = getattr(program, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(program, "__file__", None)
    if not file:
        return module
    path = Path(file)
    parts = [path.stem]
    for folder in path.absolute().parents:
        if not (folder / "__init__.py").is_file():
            break
        parts.append(folder.name)
    return ".".join(reversed(parts))


class TypeBook:
    """The classes this process rebuilds from the wire. Safe from any thread.

    Of two classes with one name, the one added last is built: so a class that a notebook defines
    anew replaces the old one. A class made inside a function has ``<locals>`` in its name and is
    known by it like any other; of the classes that one function made, that is the last added.
    At most 10,000 names are kept; past that, the one added first is forgotten.
    """

    __slots__ = ("_classes", "_lock")

    def __init__(self) -> None:
        self._classes: dict[str, type[Any]] = {}
        self._lock = threading.Lock()

    def add(self, cls: type[_T]) -> type[_T]:
        """Know `cls`, and every class that the hints of its fields name. Usable as a decorator.

        Raises:
            UnsupportedPayload: `cls` is no dataclass, pydantic model or enum, or its objects
                cannot be rebuilt.
        """
        if not isinstance(cls, type) or not _is_carried(cls):
            raise UnsupportedPayload(
                f"{cls!r} is no class to rebuild; add a dataclass, pydantic model or enum"
            )
        if not issubclass(cls, Enum):
            _shape_of(cls)
        self.add_hint(cls)
        return cls

    def add_hint(self, hint: Any) -> None:
        """Know every class that a type hint names; what is no class to rebuild is passed over."""
        waiting = [hint]
        while waiting:
            one = waiting.pop()
            waiting.extend(typing.get_args(one))
            origin = typing.get_origin(one) or one
            if isinstance(origin, type) and _is_carried(origin) and self._enter(origin):
                waiting.extend(_field_hints(origin))

    def _enter(self, cls: type[Any]) -> bool:
        """Whether that is news."""
        name = source_name(cls)
        with self._lock:
            if self._classes.get(name) is cls:
                return False
            if len(self._classes) >= _KNOWN_CLASSES and name not in self._classes:
                del self._classes[next(iter(self._classes))]
            self._classes[name] = cls
        return True

    def get(self, name: str) -> type[Any] | None:
        return self._classes.get(name)

    def nearest(self, names: Iterable[str]) -> type[Any] | None:
        """The first of `names` that is known."""
        known = self._classes
        for name in names:
            if name in known:
                return known[name]
        return None


def _is_carried(cls: type[Any]) -> bool:
    if cls is BaseModel or cls is RootModel:
        return False
    return issubclass(cls, BaseModel | Enum) or dataclasses.is_dataclass(cls)


def _field_hints(cls: type[Any]) -> Iterable[Any]:
    if issubclass(cls, BaseModel):
        return [field.annotation for field in cls.model_fields.values()]
    if issubclass(cls, Enum):
        return ()
    try:
        return typing.get_type_hints(cls).values()
    except Exception:  # noqa: BLE001 - a hint that does not resolve names no class we could add
        return ()


def _names_of(cls: type[Any]) -> list[str]:
    return [source_name(base) for base in cls.__mro__ if _is_carried(base)][:_MAX_BASES]


class _ModelShape:
    """How a pydantic model is taken apart and put together: fields by name, never by alias.

    What is put together is validated. Private attributes and fields marked ``exclude`` stay
    behind.
    """

    __slots__ = ("_cls", "_is_root", "_optional", "_takes_extra", "fields", "names")

    is_model = True

    def __init__(self, cls: type[BaseModel]) -> None:
        kept = {name: field for name, field in cls.model_fields.items() if not field.exclude}
        for name, field in cls.model_fields.items():
            if field.exclude and field.is_required():
                raise UnsupportedPayload(
                    f"{cls.__qualname__}.{name} is marked exclude, so it stays behind,"
                    " and has no default to be rebuilt with; give it one"
                )
        self._cls = cls
        self.names = _names_of(cls)
        self.fields = frozenset(kept)
        self._takes_extra = cls.model_config.get("extra") == "allow"
        self._optional = any(field.default is MISSING for field in kept.values())
        self._is_root = issubclass(cls, RootModel)

    def take(self, value: BaseModel) -> tuple[Mapping[str, Any], list[str] | None]:
        """The fields; and the names of those that were set, where not all were."""
        held = value.__dict__
        if self._optional or held.keys() != self.fields:
            held = {
                name: one
                for name, one in held.items()
                if name in self.fields and one is not MISSING
            }
        if value.__pydantic_extra__:
            held = {**held, **value.__pydantic_extra__}
        were_set = value.__pydantic_fields_set__
        return held, None if len(were_set) >= len(held) else sorted(were_set)

    def build(self, fields: dict[str, Any], were_set: list[str] | None) -> Any:
        if not (self._takes_extra or fields.keys() <= self.fields):
            fields = {name: one for name, one in fields.items() if name in self.fields}
        made = self._cls.__pydantic_validator__.validate_python(
            fields["root"] if self._is_root else fields, by_alias=False, by_name=True
        )
        if were_set is not None:
            made.__pydantic_fields_set__.intersection_update(were_set)
        return made


class _DataclassShape:
    """How a dataclass is: by its own ``__init__``, then given the fields which that leaves out."""

    __slots__ = ("_cls", "_in_init", "fields", "names")

    is_model = False

    def __init__(self, cls: type[Any]) -> None:
        fields = dataclasses.fields(cls)
        self._cls = cls
        self.names = _names_of(cls)
        self.fields = tuple(field.name for field in fields)
        self._in_init = frozenset(field.name for field in fields if field.init)
        _check_init(cls, self._in_init)

    def take(self, value: Any) -> tuple[Mapping[str, Any], list[str] | None]:
        try:
            return {name: getattr(value, name) for name in self.fields}, None
        except AttributeError as error:
            raise _Uncarried(f"a field without a value cannot be carried ({error})") from None

    def build(self, fields: dict[str, Any], were_set: list[str] | None) -> Any:
        made = self._cls(**{name: one for name, one in fields.items() if name in self._in_init})
        for name in self.fields:
            if name not in self._in_init and name in fields:
                object.__setattr__(made, name, fields[name])
        return made


_Shape = _ModelShape | _DataclassShape


def _shape_of(cls: type[Any]) -> _Shape:
    return _ModelShape(cls) if issubclass(cls, BaseModel) else _DataclassShape(cls)


def _check_init(cls: type[Any], in_init: frozenset[str]) -> None:
    """An object can be rebuilt only if its constructor takes its fields, and needs no more."""
    parameters = inspect.signature(cls).parameters.values()
    named = {
        one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    needed = {
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    wrong = (needed - in_init) | (set() if takes_any else in_init - named)
    if wrong:
        raise UnsupportedPayload(
            f"{cls.__qualname__} cannot be rebuilt: {', '.join(sorted(wrong))} is not both a field"
            " and an argument of its constructor"
        )


class _Uncarried(Exception):
    """A value that cannot travel; `path` grows from it outwards while the walk unwinds."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []


def _step(key: Any) -> str:
    """One step of a path: a field, a key that reads like one, or any other key."""
    if isinstance(key, str) and key.isidentifier() and len(key) <= _SHOWN_KEY:
        return f".{key}"
    shown = ascii(key)
    return f"[{shown if len(shown) <= _SHOWN_KEY else f'{shown[: _SHOWN_KEY - 3]}...'}]"


def _named(cls: type[Any]) -> str:
    article = "an" if cls.__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {cls.__name__}"


class _Walk:
    """Turns one payload into what msgpack packs as it is.

    `careful` looks at every str and int too: the second walk, once packing has failed.
    `room` is how many values may still come, each of which takes a byte at least: it bounds the
    time that a small payload with very many references to its own parts can take.
    """

    __slots__ = ("as_is", "careful", "codec", "room")

    def __init__(self, codec: Codec, *, careful: bool = False) -> None:
        self.codec = codec
        self.room = codec.limit
        self.careful = careful
        self.as_is = _CAREFULLY_AS_IS if careful else _PLAIN

    def value(self, value: Any, depth: int, in_model: bool) -> Any:
        kind = type(value)
        if kind in self.as_is:
            return value
        leaf = _LEAVES.get(kind)
        if leaf is not None:
            return leaf(value)
        if depth >= MAX_DEPTH:
            raise _Uncarried(f"nested deeper than {MAX_DEPTH} levels, or holding itself")
        if kind is dict:
            return self.entries(value, depth + 1, in_model)
        if kind is list:
            return self.items(value, depth + 1, in_model)
        if kind in _COLLECTIONS:
            return _tag(_COLLECTIONS[kind], self.items(value, depth + 1, in_model))
        write = self.codec.writers.get(kind) or self.codec.writer_of(value, in_model)
        return write(self, value, depth + 1)

    def entries(self, value: Mapping[Any, Any], depth: int, in_model: bool) -> dict[Any, Any]:
        self._count(len(value))
        packed = {}
        as_is = self.as_is
        for key, one in value.items():
            try:
                if type(key) is not str or self.careful:
                    _check_key(key)
                packed[key] = one if type(one) in as_is else self.value(one, depth, in_model)
            except _Uncarried as error:
                error.path.append(_step(key))
                raise
        return packed

    def items(self, value: Collection[Any], depth: int, in_model: bool) -> list[Any]:
        self._count(len(value))
        packed: list[Any] = []
        as_is = self.as_is
        for one in value:
            try:
                packed.append(one if type(one) in as_is else self.value(one, depth, in_model))
            except _Uncarried as error:
                error.path.append(f"[{len(packed)}]")
                raise
        return packed

    def _count(self, values: int) -> None:
        self.room -= values
        if self.room < 0:
            limit = self.codec.limit
            raise PayloadTooLarge(limit - self.room, limit)


def _check_key(key: Any) -> None:
    kind = type(key)
    if kind is str:
        _check_text(key)
    elif kind is int:
        if not _MIN_INT <= key <= _MAX_INT:
            raise _Uncarried("a key of more than 64 bits cannot be carried; use a str")
    elif kind is not bytes:
        raise _Uncarried(f"{_named(kind)} cannot be carried as a key; use str, bytes or int")


def _check_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Uncarried(
            "text that is not valid Unicode (a lone surrogate) cannot be carried; send bytes"
        ) from None
    return text


def _tag(code: int, *arguments: Any) -> dict[None, list[Any]]:
    return {None: [code, *arguments]}


def _pack_int(value: int) -> Any:
    if _MIN_INT <= value <= _MAX_INT:
        return value
    return _tag(_Code.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_datetime(value: datetime) -> Any:
    """The instant and its offset from UTC; the name of the time zone stays behind."""
    if value.utcoffset() is None:
        raise _Uncarried(
            "a datetime without a time zone cannot be carried, as its reader may live in another;"
            " use datetime.now(UTC), or value.astimezone()"
        )
    return _tag(_Code.DATETIME, value.isoformat())


def _pack_timedelta(value: timedelta) -> Any:
    return _tag(_Code.TIMEDELTA, value.days, value.seconds, value.microseconds)


_LEAVES: Final[Mapping[type[Any], Callable[[Any], Any]]] = {
    str: _check_text,
    int: _pack_int,
    datetime: _pack_datetime,
    date: lambda value: _tag(_Code.DATE, value.isoformat()),
    timedelta: _pack_timedelta,
    UUID: lambda value: _tag(_Code.UUID, value.bytes),
    Decimal: lambda value: _tag(_Code.DECIMAL, str(value)),
}
_COLLECTIONS: Final[Mapping[type[Any], int]] = {
    tuple: _Code.TUPLE,
    set: _Code.SET,
    frozenset: _Code.FROZENSET,
}

_Write = Callable[[_Walk, Any, int], Any]


def _write_ref(_walk: _Walk, value: Any, _depth: int) -> Any:
    return _tag(_Code.REF, value.__actorbus_ref__)


def _enum_writer(cls: type[Enum]) -> _Write:
    name = source_name(cls)

    def write(walk: _Walk, value: Enum, depth: int) -> Any:
        return _tag(_Code.ENUM, name, walk.value(value.value, depth, False))

    return write


def _object_writer(shape: _Shape) -> _Write:
    names, take, is_model = shape.names, shape.take, shape.is_model

    def write(walk: _Walk, value: Any, depth: int) -> Any:
        fields, were_set = take(value)
        return _tag(_Code.OBJECT, names, walk.entries(fields, depth, is_model), were_set)

    return write


def _write_as_pydantic_does(_walk: _Walk, value: Any, _depth: int) -> Any:
    """A field of a model may hold more than we carry: paths, URLs, IP addresses, times of day.

    They travel as the text that the field's own type validates back.
    """
    if isinstance(value, Secret | SecretStr | SecretBytes):
        raise _Uncarried(
            f"{_named(type(value))} is kept out of messages and their history;"
            " send the name of the secret"
        )
    try:
        text = to_jsonable_python(value)
    except PydanticSerializationError:
        raise _unknown(value) from None
    if type(text) not in (str, int, float):
        raise _unknown(value)
    return text


def _unknown(value: Any) -> _Uncarried:
    for base in type(value).__mro__[1:]:
        if base in _LEAVES or base in _COLLECTIONS or base in (float, bytes, list, dict):
            return _Uncarried(
                f"{_named(type(value))} cannot be carried; send the {base.__name__} of it"
            )
    return _Uncarried(f"{_named(type(value))} cannot be carried; {_CARRIED}")


class Codec:
    """Turns payloads and messages into bytes and back. Safe from any thread.

    `limit` is the most bytes a payload may take. `make_ref` makes a Ref of the name of an agent;
    without it a Ref arrives as that name. Whatever has a str as ``__actorbus_ref__`` is a Ref.

    Every class that is encoded is added to `types`: who sends a class knows it.
    """

    __slots__ = ("_agent_name", "_make_ref", "_shapes", "limit", "types", "writers")

    def __init__(
        self, types: TypeBook, *, limit: int, make_ref: Callable[[str], Any] | None = None
    ) -> None:
        self.types = types
        self.limit = limit
        self.writers: dict[type[Any], _Write] = {}
        self._shapes: dict[type[Any], _Shape] = {}
        self._make_ref = make_ref
        self._agent_name = lru_cache(_KNOWN_CLASSES)(partial(check_name, "an agent"))

    def encode_payload(self, payload: Any) -> bytes:
        """The payload alone, in a frame of its own.

        Raises:
            UnsupportedPayload: a value that cannot be carried; the error says where it is.
            PayloadTooLarge: more bytes than the limit.
        """
        try:
            data = self._pack(payload)
        except _Uncarried as error:
            raise UnsupportedPayload(f"{_where(payload, error.path)}: {error.why}") from None
        except RecursionError:
            raise UnsupportedPayload(
                "the stack has no room left to pack the payload; send it from less deep a call"
            ) from None
        if len(data) > self.limit:
            raise PayloadTooLarge(len(data), self.limit)
        return data

    def _pack(self, payload: Any) -> bytes:
        try:
            return _packb([WIRE_VERSION, _Walk(self).value(payload, 0, False)])
        except (OverflowError, UnicodeEncodeError):
            walk = _Walk(self, careful=True)
            return _packb([WIRE_VERSION, walk.value(payload, 0, False)])

    def decode_payload(self, data: bytes) -> Any:
        """The payload that `data` was made of, as near as the known classes allow.

        Raises:
            Undecodable: for any reason at all.
        """
        frame = _unpack(data, self.limit, fields=_PAYLOAD_FIELDS)
        try:
            return self._open(frame[1], 0)
        except Undecodable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever wrong arguments of a tag trip over
            raise Undecodable(f"a value cannot be rebuilt: {type(error).__name__}") from None

    def check(self, payload: Any) -> None:
        """Hold a payload that stays in memory to what every transport asks of it.

        Raises:
            UnsupportedPayload: it cannot be carried, or not be rebuilt from what is carried.
            PayloadTooLarge: more bytes than the limit.
        """
        data = self.encode_payload(payload)
        try:
            self.decode_payload(data)
        except Undecodable as error:
            raise UnsupportedPayload(
                f"{_named(type(payload))} can be packed but not rebuilt: {error}"
            ) from None

    def encode(self, message: Message[Any]) -> bytes:
        """A whole message. Times stay as they are: who sends over a clock's border maps them.

        Raises:
            UnsupportedPayload: as for the payload, or for headers that are not text.
            PayloadTooLarge: more bytes than the limit.
        """
        payload = self.encode_payload(message.payload)
        try:
            data = _packb(_envelope(message, payload))
        except UnicodeEncodeError:
            raise UnsupportedPayload(
                "the headers hold text that is not valid Unicode (a lone surrogate)"
            ) from None
        if len(data) > len(payload) + ENVELOPE_LIMIT:
            raise UnsupportedPayload(
                f"the message takes {len(data) - len(payload):,} bytes beside its payload, the"
                f" limit is {ENVELOPE_LIMIT:,}; send less in its headers"
            )
        return data

    def decode(self, data: bytes) -> Message[Any]:
        """The message that `data` was made of. A reply to it has nowhere to go yet.

        Raises:
            Undecodable: for any reason at all.
        """
        frame = _unpack(data, self.limit + ENVELOPE_LIMIT, fields=_MESSAGE_FIELDS)
        try:
            message = _read_envelope(frame, self._agent_name)
        except Exception as error:  # noqa: BLE001 - whatever a wrong envelope trips over
            raise Undecodable(f"a wrong envelope: {type(error).__name__}") from None
        message.payload = self.decode_payload(message.payload)
        return message

    def writer_of(self, value: Any, in_model: bool) -> _Write:
        kind = type(value)
        if isinstance(getattr(value, "__actorbus_ref__", None), str):
            return _keep(self.writers, kind, _write_ref)
        if not _is_carried(kind):
            if in_model:
                return _write_as_pydantic_does
            raise _unknown(value)
        try:
            self.types.add(kind)
            write = (
                _enum_writer(kind) if issubclass(kind, Enum) else _object_writer(self._shape(kind))
            )
        except UnsupportedPayload as error:
            raise _Uncarried(str(error)) from None
        return _keep(self.writers, kind, write)

    def _shape(self, cls: type[Any]) -> _Shape:
        return self._shapes.get(cls) or _keep(self._shapes, cls, _shape_of(cls))

    def _open(self, value: Any, depth: int) -> Any:
        """What was packed, from what msgpack made of it; lists and dicts change in place."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if depth >= MAX_DEPTH:
            raise Undecodable(f"nested deeper than {MAX_DEPTH} levels")
        if kind is tuple:
            return self._open_tag(value, depth)
        for key, one in value.items() if kind is dict else enumerate(value):
            if type(one) not in _PLAIN:
                value[key] = self._open(one, depth + 1)
        return value

    def _open_tag(self, tag: tuple[Any, ...], depth: int) -> Any:
        match tag:
            case (_Code.OBJECT, list() as names, dict() as fields, list() | None as were_set):
                return self._open_object(names, self._open(fields, depth), were_set)
            case (_Code.TUPLE, list() as items):
                return tuple(self._open(items, depth))
            case (_Code.SET, list() as items):
                return set(_hashable(self._open(items, depth)))
            case (_Code.FROZENSET, list() as items):
                return frozenset(_hashable(self._open(items, depth)))
            case (_Code.BIG_INT, bytes() as digits):
                return int.from_bytes(digits, "big", signed=True)
            case (_Code.DATETIME, str() as text):
                return _aware(datetime.fromisoformat(text))
            case (_Code.DATE, str() as text):
                return date.fromisoformat(text)
            case (_Code.TIMEDELTA, int() as days, int() as seconds, int() as microseconds):
                return timedelta(days, seconds, microseconds)
            case (_Code.UUID, bytes() as sixteen):
                return UUID(bytes=sixteen)
            case (_Code.DECIMAL, str() as text):
                return Decimal(text)
            case (_Code.ENUM, str() as name, value):
                return self._open_enum(name, self._open(value, depth + 1))
            case (_Code.REF, str() as name):
                return self._open_ref(self._agent_name(name))
            case _:
                raise Undecodable("a tag that this version does not know")

    def _open_object(
        self, names: list[Any], fields: dict[Any, Any], were_set: list[Any] | None
    ) -> Any:
        cls = self.types.nearest(names[:_MAX_BASES])
        if cls is None or issubclass(cls, Enum):
            return fields
        shape = self._shape(cls)
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
        cls = self.types.get(name)
        return value if cls is None or not issubclass(cls, Enum) else cls(value)

    def _open_ref(self, name: str) -> Any:
        return name if self._make_ref is None else self._make_ref(name)


def _keep(cache: dict[type[Any], _T], cls: type[Any], value: _T) -> _T:
    """Programs that make classes without end must not fill the memory with what we know of them."""
    if len(cache) >= _KNOWN_CLASSES:
        cache.clear()
    cache[cls] = value
    return value


def _where(payload: Any, path: list[str]) -> str:
    root = type(payload).__name__ if _is_carried(type(payload)) else ""
    return (root + "".join(reversed(path))).removeprefix(".") or "payload"


def _refused_fields(error: ValidationError, shape: _Shape) -> str:
    """Which fields and why, in words of the class alone: a key or a value may be a secret."""
    if error.error_count() > _SHOWN_ERRORS:
        return f"{error.error_count():,} of the values in its fields"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return ", ".join(
        f"{loc[0] if (loc := one['loc']) and loc[0] in shape.fields else 'the whole'}"
        f" ({one['type']})"
        for one in problems
    )


def _packb(frame: list[Any]) -> bytes:
    return typing.cast("bytes", msgpack.packb(frame, buf_size=_FIRST_BUFFER))


def _unpack(data: bytes, limit: int, *, fields: int) -> list[Any]:
    """The list of `fields` that a frame is, the version first.

    Raises:
        Undecodable: for any reason at all.
    """
    if type(data) is not bytes:
        raise Undecodable(f"{_named(type(data))} where bytes were expected")
    if len(data) > limit:
        raise Undecodable(f"{len(data):,} bytes, the limit is {limit:,}")
    try:
        frame = msgpack.unpackb(
            data,
            object_pairs_hook=_read_map,
            ext_hook=_refuse_extension,
            strict_map_key=False,  # _read_map is stricter
            max_str_len=limit,
            max_bin_len=limit,
            max_array_len=limit,
            max_map_len=limit // 2,
            max_ext_len=0,
        )
    except Undecodable:
        raise
    except Exception as error:  # noqa: BLE001 - the unpacker's errors have no common root
        raise Undecodable(_why_not_msgpack(error)) from None
    if type(frame) is not list or not frame or type(frame[0]) is not int:
        raise Undecodable("not a frame of ours")
    if frame[0] != WIRE_VERSION:
        raise Undecodable(
            f"wire version {frame[0]}, and this node reads {WIRE_VERSION}; upgrade the older one"
        )
    if len(frame) != fields:
        raise Undecodable(f"a frame of {len(frame):,} fields where {fields} were expected")
    return frame


def _why_not_msgpack(error: Exception) -> str:
    match error:
        case msgpack.ExtraData():
            return "bytes after the end"
        case msgpack.StackError():
            return f"nested deeper than {MAX_DEPTH} levels"
        case UnicodeDecodeError():
            return "text that is not UTF-8"
        case _:
            return f"not msgpack, or cut short: {type(error).__name__}"


def _read_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any] | tuple[Any, ...]:
    """A dict, or the arguments of a tag as a tuple, which nothing else becomes."""
    for key, value in pairs:
        if type(key) is str:
            continue
        if key is None and type(value) is list and len(pairs) == 1:
            return tuple(value)
        if type(key) is not bytes and type(key) is not int:
            raise Undecodable("a map with a key other than str, bytes or int")
    read = dict(pairs)
    if len(read) != len(pairs):
        raise Undecodable("a map with the same key twice")
    return read


def _refuse_extension(code: int, data: bytes) -> Any:
    raise Undecodable("a msgpack extension type")


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


_PAYLOAD_FIELDS: Final = 2
_MESSAGE_FIELDS: Final = 17
_KINDS: Final = {str(kind): kind for kind in MessageKind}
_PRIORITIES: Final = {int(priority): priority for priority in Priority}


def _envelope(message: Message[Any], payload: bytes) -> list[Any]:
    """What ``_read_envelope`` reads."""
    headers = message.headers
    for key, value in headers.items():
        if type(key) is not str or type(value) is not str:
            raise UnsupportedPayload(f"headers{_step(key)}: keys and values of headers are str")
    causation = message.causation_id
    return [
        WIRE_VERSION,
        message.id.to_bytes(16, "big"),
        message.kind,
        message.sender,
        message.recipient,
        message.topic,
        message.priority,
        message.created_at,
        message.deadline,
        message.correlation_id.to_bytes(16, "big"),
        None if causation is None else causation.to_bytes(16, "big"),
        message.run_id,
        message.attempt,
        message.hops,
        dict(headers) or None,
        message.type,
        payload,
    ]


def _read_envelope(frame: list[Any], agent_name: Callable[[str], str]) -> Message[Any]:
    """The message, its payload still packed. A wrong field raises one exception or another."""
    (
        _,
        id,  # noqa: A001
        kind,
        sender,
        recipient,
        topic,
        priority,
        created_at,
        deadline,
        correlation_id,
        causation_id,
        run_id,
        attempt,
        hops,
        headers,
        type_name,
        payload,
    ) = frame
    return Message(
        id=_read_id(id),
        kind=_KINDS.get(kind) or MessageKind(_read(str, kind)),
        sender=None if sender is None else agent_name(sender),
        recipient=None if recipient is None else agent_name(recipient),
        topic=None if topic is None else check_topic(topic),
        payload=_read(bytes, payload),
        priority=_PRIORITIES[priority],
        created_at=_read_time(created_at),
        deadline=None if deadline is None else _read_time(deadline),
        correlation_id=_read_id(correlation_id),
        causation_id=None if causation_id is None else _read_id(causation_id),
        run_id=None if run_id is None else _read(str, run_id),
        attempt=_read_count(attempt),
        hops=_read_count(hops),
        headers=None if headers is None else _read_headers(headers),
        type=_read(str, type_name),
    )


def _read(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise TypeError
    return value


def _read_id(value: Any) -> MessageId:
    if type(value) is not bytes or len(value) != 16:
        raise ValueError
    return MessageId(int.from_bytes(value, "big"))


def _read_time(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _read_count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise ValueError
    return value


def _read_headers(value: Any) -> dict[str, str]:
    headers = _read(dict, value)
    if not all(type(key) is type(one) is str for key, one in headers.items()):
        raise TypeError
    return headers
