"""A function is an agent: ``@agent(...)`` over ``def upper(text: str) -> str``."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from actorbus.actors.agent import Agent, add_proxy_handlers, check_dispatcher
from actorbus.actors.handlers import HandlerTable, defining_namespace, describe
from actorbus.errors import InvalidHandler, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.actors.agent import DispatcherName
    from actorbus.actors.supervision import Supervision
    from actorbus.bus.mailbox import MailboxPolicy

F = TypeVar("F", bound="Callable[..., Any]")

_CLASS: Final = "__actorbus_agent__"

_ATTRIBUTES: Final = (
    "capabilities",
    "subscriptions",
    "mailbox",
    "supervision",
    "dispatcher",
    "concurrency",
    "failover",
)


@overload
def agent(function: F, /) -> F: ...


@overload
def agent(
    *,
    capabilities: Sequence[str] = (),
    subscriptions: Sequence[str] = (),
    mailbox: MailboxPolicy | None = None,
    supervision: Supervision | None = None,
    dispatcher: DispatcherName | None = None,
    concurrency: int = 1,
    failover: bool = False,
) -> Callable[[F], F]: ...


def agent(function: Any = None, /, **attributes: Any) -> Any:
    """Make a function an agent that ``node.spawn`` takes. It can still be called as before.

    The hint of its one argument says what it handles, and what it returns is the reply; the
    keywords are the class attributes of ``Agent``.

    Raises:
        InvalidHandler: the hint is missing or cannot be resolved, there is no such attribute, or
            it is no function.
    """
    for name in attributes:
        if name not in _ATTRIBUTES:
            raise InvalidHandler(
                f"@agent takes no {name!r}.{did_you_mean(name, _ATTRIBUTES)}"
                f" Known: {', '.join(_ATTRIBUTES)}."
            )
    namespace = defining_namespace(2)
    given = {name: value for name, value in attributes.items() if value is not None}

    def decorate(function: F) -> F:
        setattr(function, _CLASS, _class_of(function, given, namespace))
        return function

    return decorate if function is None else decorate(function)


def agent_class(given: object) -> type[Agent]:
    """The agent class that `given` is or stands for.

    Raises:
        InvalidHandler: it is neither an Agent subclass nor a function with a type hint.
    """
    if isinstance(given, type) and issubclass(given, Agent):
        if given is Agent:
            raise InvalidHandler("Agent itself handles nothing; subclass it")
        return given
    marked = getattr(given, _CLASS, None)
    if marked is not None:
        return marked  # type: ignore[no-any-return]
    if inspect.isfunction(given):
        return _class_of(given, {}, {})
    raise InvalidHandler(
        f"{given!r} is no agent; spawn takes a subclass of Agent or a function with a type hint"
    )


def is_agent(value: object) -> bool:
    """Whether `value` was made to be an agent: a subclass, or a function marked ``@agent``."""
    if isinstance(value, type):
        return issubclass(value, Agent) and value is not Agent
    return inspect.isfunction(value) and hasattr(value, _CLASS)


def _class_of(
    function: Callable[..., Any], attributes: dict[str, Any], namespace: dict[str, Any]
) -> type[Agent]:
    if isinstance(function, type) or not callable(function) or not hasattr(function, "__name__"):
        raise InvalidHandler(
            f"@agent stands over a function with a type hint, not {function!r};"
            " a class becomes an agent as a subclass of Agent"
        )
    name = function.__name__
    handler = describe("", name, function, namespace, skip=0)

    @functools.wraps(function)
    def call(_agent: Agent, payload: Any) -> Any:
        return function(payload)

    cls: type[Agent] = type(Agent)(  # type: ignore[misc]
        name,
        (Agent,),
        {
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "__doc__": function.__doc__,
            **attributes,
            "concurrency": 1,
        },
    )
    cls.handler_table = HandlerTable(name, (dataclasses.replace(handler, function=call),))
    cls.concurrency = attributes.get("concurrency", 1)
    cls.dispatcher = attributes.get("dispatcher")
    add_proxy_handlers(cls.handler_table)
    check_dispatcher(cls)
    return cls
