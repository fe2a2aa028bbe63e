"""Payloads as JSON text: whatever somebody sent, without ever failing.

What JSON has no word for is an object of one key that starts with a dollar sign:
``{"$bytes": "<base64>"}`` for bytes, ``{"$repr": "..."}`` for an object that no serializer
knows, ``{"$failed": "..."}`` where its own code raised; both cut at 1,000 characters. A dict
that only looks like one of these is ``{"$dict": {...}}``. Models and dataclasses are their
fields, and a model says itself how its bytes look. Text that is not valid Unicode is escaped.
How one part looks does not depend on what else is there.
"""

from __future__ import annotations

import base64
import re
from collections import OrderedDict, defaultdict, deque
from math import isfinite
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from pydantic_core import from_json, to_json, to_jsonable_python

if TYPE_CHECKING:
    from collections.abc import Callable

_REPR_LIMIT: Final = 1_000
_DEPTH: Final = 64
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_DICTS: Final = frozenset({dict, OrderedDict, defaultdict})
_SEQUENCES: Final = frozenset({list, tuple, set, frozenset, deque})
_BYTES: Final = frozenset({bytes, bytearray})
_MOST_DIGITS: Final = 4_300
"""Python reads no longer number, unless it is told to."""
_LONG_NUMBER: Final = re.compile(rf"\d{{{_MOST_DIGITS + 1}}}")
_DIGITS: Final = frozenset("0123456789")
_WORDS: Final = frozenset({"$bytes", "$repr", "$failed", "$redacted", "$dict"})


class Encoded:
    """A payload that is JSON text already."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def encode(payload: Any) -> str:
    """`payload` as JSON text."""
    if payload.__class__ is Encoded:
        text: str = payload.text
        return text
    try:
        return _to_json(_tagged(payload))
    except Exception:  # noqa: BLE001 - a payload's own code may raise anything
        return _encode_slowly(payload)


def _to_json(value: Any) -> str:
    """
    Raises:
        ValueError: there is something in it that could not be read again.
        Exception: the serializer refuses it.
    """
    text = _serialized(value)
    # A single letter is looked for much faster than a word.
    if ("N" in text and "NaN" in text) or ("I" in text and "Infinity" in text):
        from_json(text, allow_inf_nan=False)  # a model may write them as no JSON knows them
    if len(text) > _MOST_DIGITS and _has_long_number(text):
        raise ValueError("there may be a number too long to be read again")
    return text


def _serialized(value: Any) -> str:
    return to_json(
        value,
        inf_nan_mode="strings",
        bytes_mode="base64",
        fallback=_described,
        polymorphic_serialization=True,
    ).decode()


def _has_long_number(text: str) -> bool:
    # One of these steps falls into any run that is long enough: nearly always, none does.
    steps = text[:: _MOST_DIGITS + 1]
    return not _DIGITS.isdisjoint(steps) and _LONG_NUMBER.search(text) is not None


def _tagged(value: Any, depth: int = _DEPTH) -> Any:
    """`value` with its bytes tagged: itself where it holds none, which is nearly always."""
    kind = value.__class__
    if kind in _SCALARS:
        return value
    if depth == 0:
        _serialized(value)  # raises where it contains itself, which would double at each level
        return value
    if kind in _DICTS:
        if len(value) == 1 and _is_worded(value):
            return {"$dict": {key: _tagged(item, depth - 1) for key, item in value.items()}}
        for item in value.values():
            if item.__class__ not in _SCALARS:
                return {key: _tagged(item, depth - 1) for key, item in value.items()}
        return value
    if kind in _SEQUENCES:
        return [_tagged(item, depth - 1) for item in value]
    if kind in _BYTES:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is GeneratorType:
        return _described(value)  # reading it would take it from its recipient
    if hasattr(kind, "__dataclass_fields__"):
        return {name: _tagged(getattr(value, name), depth - 1) for name in _fields(kind)}
    return value


def _is_worded(value: dict[Any, Any]) -> bool:
    """Whether it would be read as one of the words for what JSON has no word for."""
    return len(value) == 1 and not _WORDS.isdisjoint(value)


def _encode_slowly(payload: Any) -> str:
    """For what the serializer refuses: broken Unicode, cycles, bytes in a model, bad code.

    Part by part, so that each part looks as it would alone.
    """
    return _serialized(_plain(payload))


def _plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """`value` as what JSON has words for; `above` are the containers that it is in."""
    kind = value.__class__
    if kind is str:
        return _unicode(value)
    try:
        if kind in _SCALARS:
            return _readable(value)
        if len(above) == _DEPTH or id(value) in above:
            return _described(value)
        inside = (*above, id(value))
        return _plain_parts(value, lambda item: _plain(item, inside))
    except Exception as error:  # noqa: BLE001 - a payload's own code may raise anything
        return {"$failed": _cut(_why(value, error))}


def _plain_parts(value: Any, plain: Callable[[Any], Any]) -> Any:
    kind = value.__class__
    if kind in _DICTS:
        items = _plain_items(value, plain)
        return {"$dict": items} if len(value) == 1 and _is_worded(value) else items
    if kind in _SEQUENCES:
        return [plain(item) for item in value]
    if kind in _BYTES:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is GeneratorType:
        return _described(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in _fields(kind)}
    try:
        return from_json(_to_json(value))
    except Exception:  # noqa: BLE001 - as above
        return _plain_object(value, plain)


def _plain_object(value: Any, plain: Callable[[Any], Any]) -> Any:
    """What the serializer refuses as JSON, in what else it can make of it."""
    if isinstance(value, dict):
        return _plain_items(value, plain)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [plain(item) for item in value]
    is_model = isinstance(value, BaseModel)
    try:
        return _as_written(
            to_jsonable_python(value, fallback=_described, polymorphic_serialization=True),
            null=is_model and value.model_config.get("ser_json_inf_nan", "null") == "null",
        )
    except Exception:  # noqa: BLE001 - as above
        return _plain_items(_kept_fields(value), plain) if is_model else _described(value)


def _plain_items(value: dict[Any, Any], plain: Callable[[Any], Any]) -> dict[str, Any]:
    return {_key(key): plain(item) for key, item in value.items()}


def _kept_fields(model: BaseModel) -> dict[str, Any]:
    """A model's fields, but those that it keeps to itself."""
    fields = {
        name: getattr(model, name)
        for name, field in type(model).model_fields.items()
        if not field.exclude
    }
    return fields | (model.model_extra or {})


def _as_written(value: Any, *, null: bool) -> Any:
    """JSON of a model with its broken Unicode escaped; `null`: it has no word for NaN."""
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, float) and not isfinite(value):
        return None if null else value
    if isinstance(value, list):
        return [_as_written(item, null=null) for item in value]
    if isinstance(value, dict):
        return {_unicode(key): _as_written(item, null=null) for key, item in value.items()}
    return _readable(value)


def _readable(value: Any) -> Any:
    """
    Raises:
        ValueError: it is a number too long to be read again.
    """
    if isinstance(value, int):
        str(value)
    return value


def _key(key: Any) -> str:
    """A key as the serializer writes it."""
    if isinstance(key, str):
        return _unicode(key)
    try:
        written: dict[str, None] = from_json(to_json({key: None}))
    except Exception:  # noqa: BLE001 - as above
        return _unicode(str(key))
    return next(iter(written))


def _fields(kind: Any) -> Any:
    return kind.__dataclass_fields__


def _described(value: Any) -> dict[str, str]:
    return {"$repr": _cut(repr(value))}


def _why(value: Any, error: Exception) -> str:
    name = type(value).__qualname__
    try:
        return f"{name}: {error!r}"
    except Exception:  # noqa: BLE001 - as above
        return f"{name}: {type(error).__qualname__}"


def _cut(text: str) -> str:
    clean = _unicode(text)
    return clean if len(clean) <= _REPR_LIMIT else f"{clean[: _REPR_LIMIT - 1]}…"


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
