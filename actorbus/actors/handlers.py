"""Which method of an agent takes which payload.

A handler is a method marked ``@handles``, found by the type hint of its one argument. Unions
match each of their members, ``Message[T]`` gives the envelope of a T, and of several that fit
the nearest class in the payload's MRO wins. An abstract class such as ``Mapping``, which need
not be in any MRO, is asked after those. Nothing is coerced (``True`` is no ``int``), but a dict
also goes to the only handler whose model it validates against.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NewType, TypeVar, Union, get_args, get_origin

from actorbus.bus.origin import CURRENT
from actorbus.errors import InvalidHandler
from actorbus.message import Message, type_name

F = TypeVar("F", bound=Callable[..., Any])

Call = Callable[[Any, Any], Any]
"""A handler as the runtime calls it: with the agent and the payload."""

_MARK: Final = "__actorbus_handles__"
_REMEMBERED_TYPES: Final = 1_024


def handles(method: F) -> F:
    """Mark a method as a handler of the payload type that its one argument is annotated with."""
    if not callable(method):
        raise InvalidHandler(f"@handles marks a method, not {method!r}; write it without brackets")
    setattr(method, _MARK, True)
    return method


@dataclasses.dataclass(frozen=True, slots=True)
class Handler:
    """One handler: its name, the types it takes, and whether it wants the envelope."""

    name: str
    function: Callable[..., Any]
    types: tuple[type[Any], ...]
    envelope: bool
    is_async: bool
    returns: tuple[type[Any], ...]


class HandlerTable:
    """The handlers of one agent class. ``calls`` maps payload types to what to call."""

    __slots__ = ("calls", "handlers", "has_async")

    def __init__(self, owner: str, handlers: tuple[Handler, ...]) -> None:
        self.handlers = handlers
        self.has_async = any(handler.is_async for handler in handlers)
        self.calls: dict[type[Any], Call] = {}
        claimed: dict[type[Any], str] = {}
        for handler in handlers:
            for kind in handler.types:
                if kind in claimed:
                    raise InvalidHandler(
                        f"{owner}: {claimed[kind]!r} and {handler.name!r} both handle"
                        f" {type_name(kind)}; keep one, or give them different types"
                    )
                claimed[kind] = handler.name
                self.calls[kind] = _call_of(handler)

    def types(self) -> list[str]:
        """The names of the payload types that are handled."""
        return [type_name(kind) for handler in self.handlers for kind in handler.types]

    def find(self, payload: Any) -> tuple[Call, Any] | None:
        """What to call for `payload`, and with what; None if no handler takes it."""
        kind = payload.__class__
        call = self._nearest(kind)
        if call is not None:
            if len(self.calls) < _REMEMBERED_TYPES:
                self.calls[kind] = call
            return call, payload
        if kind is dict:
            return self._validated(payload)
        return None

    def _nearest(self, kind: type[Any]) -> Call | None:
        for base in kind.__mro__:
            if base in self.calls and base is not object and not (base is int and kind is bool):
                return self.calls[base]
        for handler in self.handlers:
            for one in handler.types:
                # A dict is a Mapping, although Mapping is none of its bases.
                if isinstance(one, ABCMeta) and issubclass(kind, one):
                    return self.calls[one]
        return None if self._is_validated(kind) else self.calls.get(object)

    def _is_validated(self, kind: type[Any]) -> bool:
        """Whether a catch-all must wait: a dict may fit one handler's model better."""
        return kind is dict and any(
            _is_model(one) for handler in self.handlers for one in handler.types
        )

    def _validated(self, payload: dict[Any, Any]) -> tuple[Call, Any] | None:
        fits = [
            (self.calls[kind], value)
            for handler in self.handlers
            for kind in handler.types
            if _is_model(kind) and (value := _validate(kind, payload)) is not None
        ]
        if len(fits) == 1:
            return fits[0]
        if object in self.calls:
            return self.calls[object], payload
        return None


def collect(cls: type[Any], namespace: Mapping[str, Any]) -> HandlerTable:
    """The handlers of an agent class whose hints may use names of `namespace`.

    Raises:
        InvalidHandler: a hint is missing or cannot be resolved, or two handlers clash.
    """
    found = []
    for name, function in _marked(cls):
        found.append(describe(cls.__qualname__, name, function, namespace))
    return HandlerTable(cls.__qualname__, tuple(found))


def describe(
    owner: str,
    name: str,
    function: Callable[..., Any],
    namespace: Mapping[str, Any],
    *,
    skip: int = 1,
) -> Handler:
    """What the hints of `function` say, after `skip` leading arguments (``self``).

    Raises:
        InvalidHandler: they do not say it.
    """
    where = f"{owner}.{name}" if owner else name
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidHandler(f"{where} yields; a handler returns its one reply")
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    required = [one for one in parameters if _is_required(one)]
    if not parameters or len(required) > 1 or parameters[0].kind is parameters[0].KEYWORD_ONLY:
        raise InvalidHandler(
            f"{where} must take exactly one argument, the payload, as in"
            f" `def {name}({'self, ' if skip else ''}text: Text)`"
        )
    argument = parameters[0]
    if argument.annotation is inspect.Parameter.empty:
        raise InvalidHandler(
            f"{where}: the argument {argument.name!r} has no type hint; the hint says which"
            f" payloads it takes, as in `{argument.name}: Text`"
        )
    hints = _resolve(where, function, namespace)
    kinds, envelope = _payload_types(where, hints[argument.name])
    return Handler(
        name=name,
        function=function,
        types=kinds,
        envelope=envelope,
        is_async=inspect.iscoroutinefunction(function),
        returns=tuple(_classes(hints.get("return"))),
    )


def defining_namespace(depth: int) -> dict[str, Any]:
    """The local names of the frame in which a class is being defined, `depth` calls up.

    Frames of metaclasses in between are passed over.
    """
    frame: types.FrameType | None = sys._getframe(depth)
    while frame is not None and frame.f_code.co_name in ("__new__", "__init_subclass__"):
        frame = frame.f_back
    return {} if frame is None else {**frame.f_globals, **frame.f_locals}


def _marked(cls: type[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Marked methods by name, most derived version."""
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if getattr(value, _MARK, False):
                names[name] = None
    for name in names:
        function = getattr(cls, name)
        if not getattr(function, _MARK, False):
            raise InvalidHandler(
                f"{cls.__qualname__}.{name} replaces a handler but is not marked @handles itself"
            )
        yield name, function


def _call_of(handler: Handler) -> Call:
    if not handler.envelope:
        return handler.function
    function = handler.function

    def call_with_envelope(agent: Any, _payload: Any) -> Any:
        origin = CURRENT.get()
        return function(agent, None if origin is None else origin.message)

    return call_with_envelope


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _resolve(
    where: str, function: Callable[..., Any], namespace: Mapping[str, Any]
) -> dict[str, Any]:
    module = sys.modules.get(function.__module__)
    names = {**(vars(module) if module else {}), **namespace}
    names.update({"Message": Message, **names})
    try:
        return typing.get_type_hints(function, globalns=names, localns=names)
    except Exception as error:
        raise InvalidHandler(
            f"{where}: its type hints cannot be resolved: {error}; define or import the class"
            " before the agent"
        ) from error


def _payload_types(where: str, hint: Any) -> tuple[tuple[type[Any], ...], bool]:
    if hint is Message or get_origin(hint) is Message:
        arguments = get_args(hint)
        return _checked(where, arguments[0] if arguments else Any), True
    return _checked(where, hint), False


def _checked(where: str, hint: Any) -> tuple[type[Any], ...]:
    kinds = tuple(dict.fromkeys(_classes(hint)))
    if not kinds or any(getattr(kind, "_is_protocol", False) for kind in kinds):
        raise InvalidHandler(
            f"{where}: {hint!r} is no payload type; use a class, a union of classes,"
            " or Message[...] of one"
        )
    return kinds


def _classes(hint: Any) -> Iterator[type[Any]]:
    """The classes a hint means; nothing for what is no class."""
    if hint is Any:
        yield object
    elif hint is None:
        yield type(None)
    elif isinstance(hint, NewType):
        yield from _classes(hint.__supertype__)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _classes(member)
    elif isinstance(get_origin(hint), type):
        yield typing.cast("type[Any]", get_origin(hint))
    elif hasattr(hint, "__value__"):
        yield from _classes(hint.__value__)
    elif isinstance(hint, type):
        yield hint


def _is_model(kind: type[Any]) -> bool:
    return hasattr(kind, "model_validate") or dataclasses.is_dataclass(kind)


@functools.lru_cache(maxsize=_REMEMBERED_TYPES)
def _validator(kind: type[Any]) -> Callable[[Any], Any]:
    if hasattr(kind, "model_validate"):
        return typing.cast("Callable[[Any], Any]", kind.model_validate)
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python


def _validate(kind: type[Any], payload: dict[Any, Any]) -> Any:
    """`payload` as a `kind`, or None if it is not one."""
    from pydantic import ValidationError

    try:
        return _validator(kind)(payload)  # type: ignore[arg-type]
    except ValidationError:
        return None
