"""Effects on every message: wrappers that the bus does not know.

A middleware takes the next step and returns its own::

    def with_deadline(handle: Handle) -> Handle:
        def handle_in_time(message: Message) -> Outcome:
            if message.expired(clock.now()):
                return Dead(Reason.EXPIRED)
            return handle(message)
        return handle_in_time

``Node(middleware=[Send(...), Deliver(...)])`` says on which side: before a message is accepted,
or before its handler starts. What a middleware remembers belongs outside of the function that
takes `handle`: a delayed message comes through a chain of its own.

On the send side a middleware may decide until the next step has accepted the message. What it
returns after that changes nothing, be it ``Dead`` or ``Retry``: the message is on its way, and
ends as its recipients end it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from actorbus.bus.origin import CURRENT
from actorbus.errors import InvalidSettings
from actorbus.message import Message, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.clock import Clock
    from actorbus.message import MessageId


@dataclass(frozen=True, slots=True)
class Accepted:
    """The message waits in `copies` mailboxes."""

    copies: int = 1


@dataclass(frozen=True, slots=True)
class Handled:
    """The handler returned; `value` goes to whoever asked."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the message again after so many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Dead:
    """The message will not be handled: a dead letter, or an error to whoever asked."""

    reason: Reason
    why: str = ""
    error: BaseException | None = None


class Pending:
    """An async handler is at work; what it comes to is known later.

    A middleware that wants to see the end of every message writes
    ``return then(handle(message), look)``: see ``then``.
    """

    __slots__ = ("coroutine", "looks")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.looks: list[Callable[[Outcome], Outcome]] = []


Outcome: TypeAlias = Accepted | Handled | Retry | Dead | Pending
Handle: TypeAlias = Callable[[Message[Any]], Outcome]
Middleware: TypeAlias = Callable[[Handle], Handle]


def then(outcome: Outcome, look: Callable[[Outcome], Outcome]) -> Outcome:
    """Let `look` see, and change, how it really ended: now, or when an async handler is through."""
    if isinstance(outcome, Pending):
        outcome.looks.append(look)
        return outcome
    return look(outcome)


class Timed:
    """Base of a middleware that reads time: its node gives it `clock` before any message."""

    clock: Clock


def give_clock(middlewares: Iterable[object], clock: Clock) -> None:
    """Let those middlewares that read time read it off `clock`."""
    for middleware in middlewares:
        if isinstance(middleware, Timed):
            middleware.clock = clock


def taker(message: Message[Any]) -> str | None:
    """The agent that has `message` in hand; None on the send side, where nobody has it yet."""
    origin = CURRENT.get()
    in_hand = None if origin is None else origin.message
    return origin.name if origin and in_hand and in_hand.id == message.id else None


def destination(message: Message[Any]) -> str:
    """Whom `message` is for: an agent, else a topic, else ``"*"``.

    On the deliver side that is the agent that has it in hand, of broadcasts and events too.
    """
    return taker(message) or message.recipient or message.topic or "*"


class Send:
    """These middlewares see a message before it is accepted, the first one first."""

    __slots__ = ("middlewares",)

    def __init__(self, *middlewares: Middleware) -> None:
        self.middlewares = middlewares


class Deliver:
    """These middlewares see a message before its handler starts, the first one first."""

    __slots__ = ("middlewares",)

    def __init__(self, *middlewares: Middleware) -> None:
        self.middlewares = middlewares


def sides(given: object) -> tuple[list[Middleware], list[Middleware]]:
    """The send side and the deliver side of what ``Node(middleware=...)`` was given.

    Raises:
        InvalidSettings: an entry does not say its side, or cannot be called.
    """
    send: list[Middleware] = []
    deliver: list[Middleware] = []
    for entry in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(entry, Send | Deliver):
            raise InvalidSettings(
                f"middleware {entry!r} does not say its side: wrap it in Send(...) or Deliver(...)"
            )
        for middleware in entry.middlewares:
            if not callable(middleware):
                raise InvalidSettings(f"middleware {middleware!r} cannot be called with a handle")
            (send if isinstance(entry, Send) else deliver).append(middleware)
    return send, deliver


def chain(middlewares: list[Middleware], handle: Handle) -> Handle:
    """`handle` inside its middlewares; the first of the list sees a message first."""
    for middleware in reversed(middlewares):
        handle = middleware(handle)
    return handle


def sending(middlewares: list[Middleware], accept: Handle) -> Handle:
    """The chain of a send: once `accept` has taken a message, no middleware ends it once more."""
    taken: dict[MessageId, Outcome | None] = {}

    def accept_once(message: Message[Any]) -> Outcome:
        outcome = accept(message)
        if message.id in taken:
            taken[message.id] = outcome
        return outcome

    handle = chain(middlewares, accept_once)

    def send(message: Message[Any]) -> Outcome:
        taken[message.id] = None
        try:
            outcome = handle(message)
        finally:
            accepted = taken.pop(message.id, None)
        return outcome if accepted is None or isinstance(outcome, Accepted) else accepted

    return send
