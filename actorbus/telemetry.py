"""Every event that actorbus emits, with its fields. Parts emit, observability listens.

A part holds a ``Telemetry`` and asks ``if telemetry.active:`` before it builds an event, so a
node to which nobody listens pays one look-up a message. Nothing here formats, counts or
writes: ``observability/`` does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actorbus.message import Ending, Message

Level = Literal["debug", "info", "warning", "error"]

_log = logging.getLogger("actorbus.telemetry")


@dataclass_transform()
class Event:
    """Something that happened. ``level`` is how loud a log says it.

    Subclasses are written like dataclasses; making thirty of them real ones would cost every
    program that imports us several milliseconds.
    """

    level: ClassVar[Level] = "debug"
    fields: ClassVar[Mapping[str, str]] = {}
    """The names of the fields, with their types as written."""

    def __init_subclass__(cls) -> None:
        cls.fields = {
            name: hint
            for name, hint in cls.__annotations__.items()
            if name not in ("level", "fields")
        }

    def __init__(self, *values: Any, **named: Any) -> None:
        given = dict(zip(self.fields, values, strict=False))
        given.update(named)
        if given.keys() != self.fields.keys() or len(values) > len(self.fields):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self.fields)}")
        self.__dict__.update(given)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({shown})"


class NodeStarted(Event):
    level: ClassVar[Level] = "info"
    node: str
    bus: str


class NodeStopped(Event):
    level: ClassVar[Level] = "info"
    node: str
    left_behind: tuple[str, ...]


class AgentStarted(Event):
    agent: str
    agent_type: str


class AgentEnded(Event):
    """An agent stopped; `reason` says why."""

    agent: str
    reason: str


class AgentRestarting(Event):
    """An agent failed and gets a new instance after `delay` seconds."""

    level: ClassVar[Level] = "warning"
    agent: str
    error: BaseException
    attempt: int
    delay: float


class AgentResumed(Event):
    """An agent failed and goes on with the state it has."""

    level: ClassVar[Level] = "warning"
    agent: str
    error: BaseException


class AgentParked(Event):
    """An agent failed too often; its mailbox waits for ``unpark``."""

    level: ClassVar[Level] = "error"
    agent: str
    error: BaseException | None


class AgentUnparked(Event):
    level: ClassVar[Level] = "info"
    agent: str


class HookFailed(Event):
    """A hook of an agent (`on_stop`, `on_failure`, ...) raised."""

    level: ClassVar[Level] = "error"
    agent: str
    hook: str
    error: BaseException


class MessageSent(Event):
    """A message was accepted; `copies` is how many mailboxes took it."""

    message: Message[Any]
    copies: int


class MessageEnded(Event):
    """A delivery ended, well or not; `message` still has the payload."""

    ending: Ending
    message: Message[Any]


class MessageRetried(Event):
    """A handler raised and the message is tried again after `delay` seconds."""

    level: ClassVar[Level] = "warning"
    agent: str
    message: Message[Any]
    error: BaseException
    delay: float


class DeadLettered(Event):
    level: ClassVar[Level] = "warning"
    message: Message[Any]
    recipient: str | None
    reason: str
    error: str | None


class DeadLetterForgotten(Event):
    """The dead letters were at their capacity and the oldest was dropped."""

    level: ClassVar[Level] = "warning"
    message: Message[Any]
    recipient: str | None
    reason: str


class ReplyUnclaimed(Event):
    """An ask failed and nobody fetched its error."""

    level: ClassVar[Level] = "warning"
    recipient: str
    error: BaseException


class SlowHandler(Event):
    """A handler held its thread, or the event loop, for `seconds` so far."""

    level: ClassVar[Level] = "warning"
    agent: str
    seconds: float


class PoolResized(Event):
    threads: int
    blocked: int


class MemberChanged(Event):
    """The registry saw an agent's or node's status change."""

    level: ClassVar[Level] = "info"
    name: str
    status: str
    node: str


class WatcherFailed(Event):
    """A watch callback raised; the watch goes on."""

    level: ClassVar[Level] = "error"
    watch: str
    error: BaseException


class WatcherLagged(Event):
    """A watcher was too far behind and skipped `count` changes, which it was told."""

    level: ClassVar[Level] = "warning"
    watch: str
    count: int


class TimerFailed(Event):
    level: ClassVar[Level] = "error"
    error: BaseException


class TransportAway(Event):
    """The transport's server does not answer. What is sent waits; it goes on trying."""

    level: ClassVar[Level] = "warning"
    error: str


class TransportBack(Event):
    """It answers again, after so many seconds."""

    seconds: float


class TransportTrouble(Event):
    """The transport gave something up."""

    level: ClassVar[Level] = "error"
    error: BaseException


class MessagesLost(Event):
    """The server lost what it had accepted from this node, and it is too old to be sent again."""

    level: ClassVar[Level] = "error"
    recipient: str
    count: int


class ModuleBroken(Event):
    """The loader could not use a module, or an agent in it, and went on without it."""

    level: ClassVar[Level] = "error"
    path: str
    line: int | None
    error: str


class AuditStalled(Event):
    """History cannot be written; `waiting` records wait in memory."""

    level: ClassVar[Level] = "error"
    error: str
    waiting: int


class AuditResumed(Event):
    level: ClassVar[Level] = "info"
    written: int


class AuditSpilled(Event):
    """Records of history wait on disk, `size` bytes at `path`, until the database takes them.

    Told when a stall begins to spill, and when a node stops before all is written.
    """

    level: ClassVar[Level] = "warning"
    path: str
    size: int
    error: str | None


class AuditDamaged(Event):
    """`size` bytes of a spill from `at` on could not be read, and were skipped.

    `records` is how many are missing, if that can be known.
    """

    level: ClassVar[Level] = "error"
    path: str
    at: int
    size: int
    records: int | None
    cause: str


class AnchorFailed(Event):
    """An anchor of a chain of history could not be written; the next one will be tried."""

    level: ClassVar[Level] = "error"
    chain: int
    error: str


class Telemetry:
    """Hands events to whoever listens. One per node."""

    __slots__ = ("_changed", "_listeners", "active", "every_message")

    active: bool
    """Whether anybody listens; look here before you build an event."""
    every_message: bool
    """Whether anybody wants ``MessageSent`` and ``MessageEnded``."""

    def __init__(self) -> None:
        self._listeners: tuple[tuple[Callable[[Event], None], bool], ...] = ()
        self._changed: Callable[[], None] | None = None
        self.active = False
        self.every_message = False

    def when_changed(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the flags may have changed. There is one such callback."""
        self._changed = callback

    def listen(
        self, listener: Callable[[Event], None], *, every_message: bool = True
    ) -> Callable[[], None]:
        """Call `listener` with every event, on the thread that emits it. Returns the way out.

        A listener must be quick and must not raise; one that raises is logged and kept. One
        that can do without the two events of every message spares the node their cost, but
        may get them all the same.
        """
        entry = (listener, every_message)
        self._set((*self._listeners, entry))

        def stop_listening() -> None:
            self._set(tuple(one for one in self._listeners if one is not entry))

        return stop_listening

    def _set(self, listeners: tuple[tuple[Callable[[Event], None], bool], ...]) -> None:
        self._listeners = listeners
        self.active = bool(listeners)
        self.every_message = any(wanted for _, wanted in listeners)
        if self._changed is not None:
            self._changed()

    def emit(self, event: Event) -> None:
        for listener, _ in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener must not hurt what it listens to
                _log.exception("telemetry listener %r failed", listener)
