"""Payloads out of history: JSON made into the objects that handlers take.

The recorded type name is looked up among the classes that the handlers of the given agents
take or return, then among ``types=``, then in the modules that define those agents. A class is
rebuilt by pydantic's validation and then written out again: only if that gives the recorded
JSON is it taken. A name that nobody knows stays the JSON it is, and the outcome says so.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from actorbus.errors import NotReplayable
from actorbus.message import format_id, type_name
from actorbus.persistence.payloads import encode
from actorbus.replay.said import canonical, said, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from actorbus.actors.agent import Agent
    from actorbus.persistence.answers import MessageView

_REF: Final = re.compile(r"<Ref '([^']{1,128})'>")
_BUILTIN: Final[dict[str, Callable[[Any], Any]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "bytearray": bytearray,
    "float": float,
}
_AS_THEY_ARE: Final = frozenset({"dict", "list", "str", "int", "bool", "NoneType", "bytes"})
_MAX_NAME: Final = 512


class Payloads:
    """Rebuilds payloads. ``unknown`` are the type names that nobody knew."""

    def __init__(
        self,
        agents: Iterable[type[Agent]],
        types: Iterable[type[Any]] = (),
        ref: Callable[[str], Any] | None = None,
    ) -> None:
        self.unknown: set[str] = set()
        self._ref = ref
        self._classes: dict[str, list[type[Any]]] = {}
        self._modules: dict[str, None] = {}
        for agent in agents:
            self.learn(agent)
        for kind in types:
            self._know(kind)

    def learn(self, agent: type[Agent]) -> None:
        """Know the classes of an agent's handlers, and its module."""
        self._modules[agent.__module__] = None
        for handler in agent.handler_table.handlers:
            for kind in (*handler.types, *handler.returns):
                self._know(kind)

    def rebuild(self, view: MessageView) -> Any:
        """The payload of `view` as it was sent.

        Raises:
            NotReplayable: history does not hold it in full, or it is no such class any more.
        """
        try:
            value = self._revived(view.payload)
        except _NotHeld as stopped:
            raise NotReplayable(_missing(view, stopped.word)) from None
        if view.type in _BUILTIN:
            return _BUILTIN[view.type](value)
        classes = self._known(view.type)
        recorded = canonical(view.payload)
        for kind in classes:
            for built in _attempts(kind, value):
                if canonical(json.loads(encode(built))) == recorded:
                    return built
        if classes:
            raise NotReplayable(
                f"message {format_id(view.id)}: its payload is no {view.type} any more;"
                f" was {classes[0].__module__}.{view.type} changed since?"
            )
        if view.type not in _AS_THEY_ARE:
            self.unknown.add(view.type)
        return value

    def _know(self, kind: type[Any]) -> None:
        known = self._classes.setdefault(type_name(kind)[:_MAX_NAME], [])
        if kind not in known:
            known.append(kind)

    def _known(self, name: str) -> list[type[Any]]:
        found = self._classes.get(name, [])
        if name in _AS_THEY_ARE:
            return []
        if found:
            return found
        for module in self._modules:
            value: Any = sys.modules.get(module)
            for part in name.split("."):
                value = getattr(value, part, None)
            if isinstance(value, type):
                return [value]
        return []

    def _revived(self, value: Any) -> Any:
        """`value` with what JSON has no word for put back: bytes, and refs of agents."""
        if isinstance(value, list):
            return [self._revived(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {"$dict"} and isinstance(value["$dict"], dict):
            return {key: self._revived(item) for key, item in value["$dict"].items()}
        if value.keys() == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        named = _REF.fullmatch(str(value["$repr"])) if value.keys() == {"$repr"} else None
        if named is not None and self._ref is not None:
            return self._ref(named[1])
        if word := stand_in(value, deep=False):
            raise _NotHeld(word)
        return {key: self._revived(item) for key, item in value.items()}


class _NotHeld(Exception):
    """History holds something else in place of a part: `word` says what."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def _attempts(kind: type[Any], value: Any) -> Iterator[Any]:
    """`value` as a `kind`, in each way that pydantic can make it one."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
    except Exception:  # noqa: BLE001 - pydantic cannot build every class, and says so in many ways
        return
    computed = getattr(kind, "model_computed_fields", None)
    if computed and isinstance(value, dict):
        value = {name: item for name, item in value.items() if name not in computed}
    with contextlib.suppress(ValidationError, TypeError):
        yield adapter.validate_python(value, by_alias=True, by_name=True)
    # What strict models, and those with bytes in base64, take from JSON only.
    with contextlib.suppress(ValidationError, TypeError):
        yield adapter.validate_json(json.dumps(value), by_alias=True, by_name=True)


def _missing(view: MessageView, word: str) -> str:
    why = {
        "$redacted": "was redacted",
        "$repr": "holds an object that history can only describe",
        "$failed": "could not be written down when it was sent",
    }[word]
    return (
        f"message {format_id(view.id)}, {said(view)}: its payload {why}, so it cannot be sent again"
    )
