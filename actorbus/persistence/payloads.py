"""Payloads as JSON text: whatever somebody sent, without ever failing.

What JSON has no word for is an object of one key that starts with a dollar sign:
``{"$bytes": "<base64>"}`` for bytes, ``{"$repr": "..."}`` for an object that no serializer
knows, ``{"$failed": "..."}`` where its own code raised; both cut at 1,000 characters. Models
and dataclasses are their fields, and a model says itself how its bytes look. Text that is not
valid Unicode is escaped.
"""

from __future__ import annotations

import base64
from types import GeneratorType
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json

_REPR_LIMIT: Final = 1_000
_DEPTH: Final = 64
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


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
        return _to_json(_tagged(payload, _DEPTH))
    except Exception:  # noqa: BLE001 - a payload's own code may raise anything
        return _encode_slowly(payload)


def _to_json(value: Any) -> str:
    return to_json(
        value,
        inf_nan_mode="strings",
        bytes_mode="base64",
        fallback=_described,
        polymorphic_serialization=True,
    ).decode()


def _tagged(value: Any, depth: int) -> Any:
    """`value` with its bytes tagged: itself where it holds none, which is nearly always."""
    kind = value.__class__
    if kind in _SCALARS or depth == 0:
        return value
    if kind is dict:
        for item in value.values():
            if item.__class__ not in _SCALARS:
                return {key: _tagged(item, depth - 1) for key, item in value.items()}
        return value
    if kind is list or kind is tuple:
        return [_tagged(item, depth - 1) for item in value]
    if kind is bytes or kind is bytearray:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is GeneratorType:
        return _described(value)  # reading it would take it from its recipient
    if hasattr(kind, "__dataclass_fields__"):
        return {name: _tagged(getattr(value, name), depth - 1) for name in _fields(kind)}
    return value


def _encode_slowly(payload: Any) -> str:
    """For what the serializer refuses: broken Unicode, cycles, bytes in a model, bad code."""
    try:
        return _to_json(_plain(payload, _DEPTH))
    except Exception as error:  # noqa: BLE001 - as above; the record itself must be kept
        return _to_json({"$failed": _cut(f"{type(payload).__qualname__}: {error!r}")})


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _unicode(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if depth == 0:
        return _described(value)
    if isinstance(value, dict):
        return {_unicode(str(key)): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, BaseModel):
        return {name: _plain(item, depth - 1) for name, item in value}
    if hasattr(type(value), "__dataclass_fields__"):
        return {name: _plain(getattr(value, name), depth - 1) for name in _fields(type(value))}
    return _described(value)


def _fields(kind: Any) -> Any:
    return kind.__dataclass_fields__


def _described(value: Any) -> dict[str, str]:
    return {"$repr": _cut(repr(value))}


def _cut(text: str) -> str:
    clean = _unicode(text)
    return clean if len(clean) <= _REPR_LIMIT else f"{clean[: _REPR_LIMIT - 1]}…"


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
