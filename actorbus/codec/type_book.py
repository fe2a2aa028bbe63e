"""The book of types: the classes that payloads are rebuilt with."""

from __future__ import annotations

import threading
import typing
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from actorbus.codec.names import KNOWN_CLASSES, is_carried, source_name
from actorbus.codec.shapes import shape_of
from actorbus.errors import UnsupportedPayload

if TYPE_CHECKING:
    from collections.abc import Iterable

_T = TypeVar("_T")


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
        if not isinstance(cls, type) or not is_carried(cls):
            raise UnsupportedPayload(
                f"{cls!r} is no class to rebuild; add a dataclass, pydantic model or enum"
            )
        if not issubclass(cls, Enum):
            shape_of(cls)
        self.add_hint(cls)
        return cls

    def add_hint(self, hint: Any) -> None:
        """Know every class that a type hint names; what is no class to rebuild is passed over."""
        waiting = [hint]
        while waiting:
            one = waiting.pop()
            waiting.extend(typing.get_args(one))
            origin = typing.get_origin(one) or one
            if isinstance(origin, type) and is_carried(origin) and self._enter(origin):
                waiting.extend(_field_hints(origin))

    def _enter(self, cls: type[Any]) -> bool:
        """Whether that is news."""
        name = source_name(cls)
        with self._lock:
            if self._classes.get(name) is cls:
                return False
            if len(self._classes) >= KNOWN_CLASSES and name not in self._classes:
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


def _field_hints(cls: type[Any]) -> Iterable[Any]:
    if issubclass(cls, BaseModel):
        return [field.annotation for field in cls.model_fields.values()]
    if issubclass(cls, Enum):
        return ()
    try:
        return typing.get_type_hints(cls).values()
    except Exception:  # noqa: BLE001 - a hint that does not resolve names no class we could add
        return ()
