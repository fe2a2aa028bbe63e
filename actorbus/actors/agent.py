"""The agent: what users subclass. Read this page first.

An agent is a ``pykka.Actor`` that handles one message at a time. Its methods marked
``@handles`` take payloads by the type of their one argument; everything else it needs, it
finds on itself: ``tell``, ``ask``, ``any``, ``spawn``, ``context`` and so on.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NoReturn, TypeVar

import pykka

from actorbus.actors.handlers import HandlerTable, collect, defining_namespace
from actorbus.actors.handling import Unhandled
from actorbus.actors.pykka_side import PROXY_MESSAGES, PykkaFuture, side_of
from actorbus.actors.ref import Ref
from actorbus.actors.source import source_module
from actorbus.actors.supervision import Supervision
from actorbus.bus.mailbox import MailboxPolicy
from actorbus.bus.origin import CURRENT
from actorbus.errors import ActorbusError, InvalidHandler, InvalidName
from actorbus.message import Message, Priority, check_name, check_pattern

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from actorbus.actors.activation import Activation
    from actorbus.actors.cell import Cell
    from actorbus.actors.reply import Reply
    from actorbus.actors.schedule import Schedule
    from actorbus.actors.targets import AllOf, AnyOf
    from actorbus.context.context import Context
    from actorbus.registry.registry import Registry

DispatcherName = Literal["pool", "loop", "thread"]

A = TypeVar("A", bound="Agent")

_DISPATCHERS: Final = ("pool", "loop", "thread")
_MAY_DEFINE: Final = frozenset(
    {
        "capabilities",
        "subscriptions",
        "mailbox",
        "supervision",
        "dispatcher",
        "concurrency",
        "failover",
        "on_start",
        "on_stop",
        "on_failure",
        "on_restart",
        "on_message",
        "on_receive",
    }
)


if TYPE_CHECKING:
    own = property
else:

    class own(property):  # noqa: N801 - used like property
        """A property of the agent that says so when somebody assigns to it."""

        def __set__(self, agent, value):  # noqa: ANN001, ANN204
            name = self.fget.__name__
            raise InvalidHandler(
                f"self.{name} is the agent's own; keep your value under another name"
            )


class Agent(pykka.Actor):
    """Subclass it, mark methods with ``@handles``, and give it to ``node.spawn``.

    ``__init__`` may take what it likes and need not call ``super().__init__()``. It runs in
    the thread that spawns; hooks and handlers run where the dispatcher puts them, one at a
    time (``concurrency`` of them, where that is above 1).
    """

    __slots__ = ("_cell",)

    capabilities: ClassVar[tuple[str, ...]] = ()
    """What others may look it up by."""
    subscriptions: ClassVar[tuple[str, ...]] = ()
    """Topic patterns it gets events of."""
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()
    supervision: ClassVar[Supervision] = Supervision()
    dispatcher: ClassVar[DispatcherName | None] = None
    """None: the event loop if any handler is ``async def``, else the pool of threads."""
    concurrency: ClassVar[int] = 1
    """Async handlers that may be at work at a time; above 1 there is no order."""
    failover: ClassVar[bool] = False
    """Whether another node may take it over when this one dies."""

    agent_type: ClassVar[str] = "actorbus.Agent"
    runs_on: ClassVar[DispatcherName] = "pool"
    handler_table: ClassVar[HandlerTable] = HandlerTable("Agent", ())

    _cell: Cell | None

    def __new__(cls: type[A], *_args: Any, **_kwargs: Any) -> A:
        agent = super().__new__(cls)
        agent._cell = None
        return agent

    def __init__(self) -> None:
        """Takes nothing: whatever a subclass needs, its own ``__init__`` takes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_reserved(cls)
        cls.agent_type = f"{source_module(cls.__module__)}:{cls.__qualname__}"
        _check_attributes(cls)
        cls.handler_table = collect(cls, {**defining_namespace(2), **vars(cls)})
        add_proxy_handlers(cls.handler_table)
        check_dispatcher(cls)

    # -- who it is

    @own
    def name(self) -> str:
        return self._spawned.name

    @own
    def ref(self) -> Ref:
        """What others may hold of this agent."""
        return self._spawned.ref

    @own
    def message(self) -> Message[Any]:
        """The envelope of the message in hand.

        Raises:
            InvalidHandler: no message is in hand, as in ``on_start``.
        """
        message = self._activation.message
        if message is None:
            raise InvalidHandler(f"agent {self.name!r} has no message in hand here")
        return message

    @own
    def cancelled(self) -> bool:
        """Whether the message in hand was cancelled: a long handler looks here and returns."""
        activation = self._activation
        message = activation.message
        if activation.stopped:
            return True
        if message is None:
            return False
        return message.run_id is not None and (
            message.run_id in self._spawned.runtime.cancelled_runs
        )

    # -- sending

    def tell(
        self,
        to: str | Ref,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        delay: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send without waiting. See ``Ref.tell``."""
        self._ref(to).tell(payload, priority=priority, ttl=ttl, delay=delay, headers=headers)

    def ask(
        self,
        to: str | Ref,
        payload: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        expect: type[Any] | None = None,
    ) -> Reply[Any]:
        """Send and get a reply: ``.get()`` it, or ``await`` it. See ``Ref.ask``.

        An unknown name comes out of the reply too.
        """
        try:
            ref = self._ref(to)
        except InvalidName:
            raise
        except ActorbusError as error:
            return self._spawned.runtime.failed(str(to), error)
        return ref.ask(payload, timeout=timeout, priority=priority, headers=headers, expect=expect)

    def any(self, capability: str) -> AnyOf:
        """The least busy agent with that capability, chosen at each send."""
        return self._spawned.runtime.any(capability)

    def all(self, capability: str) -> AllOf:
        """Every agent with that capability."""
        return self._spawned.runtime.all(capability)

    def broadcast(self, payload: Any, *, priority: Priority = Priority.NORMAL) -> int:
        """Send to everyone but this agent; how many local recipients took it."""
        return self._spawned.runtime.broadcast(payload, priority=priority)

    def publish(self, topic: str, payload: Any, *, priority: Priority = Priority.NORMAL) -> int:
        """Send to the subscribers of `topic`; how many local recipients took it."""
        return self._spawned.runtime.publish(topic, payload, priority=priority)

    def spawn(
        self,
        agent: type[Agent] | Callable[..., Any],
        *args: Any,
        name: str | None = None,
        **kwargs: Any,
    ) -> Ref:
        """A child: it stops when this agent stops or restarts, and may escalate to it."""
        cell = self._spawned
        return cell.runtime.spawn(agent, args, kwargs, name=name, parent=cell)

    def watch(self, ref: Ref | str) -> None:
        """Get ``Terminated(name, reason)`` as a message, exactly once, when that agent stops."""
        cell = self._spawned
        cell.runtime.watch(cell, ref if isinstance(ref, str) else ref.name)

    def schedule(self, *, every: float, payload: Any) -> Schedule:
        """Tell this agent `payload` every so many seconds, until cancelled or it stops."""
        cell = self._spawned
        return cell.runtime.schedule(cell, every, payload)

    # -- shared things

    @own
    def context(self) -> Context:
        """Shared state, seen as this agent."""
        cell = self._spawned
        return cell.runtime.context.bound_to(cell.name)

    @own
    def private(self) -> Context:
        """This agent's own namespace, which outlives its instances."""
        return self.context.namespace(f"agent/{self.name}")

    @own
    def registry(self) -> Registry:
        """Who is alive and what they can do."""
        return self._spawned.runtime.registry

    @own
    def log(self) -> Any:
        """A structlog logger that knows the node, this agent and the message in hand."""
        cell = self._spawned
        return cell.runtime.logger(cell)

    # -- hooks

    def on_start(self) -> Any:
        """Runs before the first message, on every instance. May be ``async def``."""

    def on_stop(self) -> Any:
        """Runs when the agent stops for good, however it came to that. May be ``async def``."""

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Runs on the failing instance, before supervision decides about it."""

    def on_restart(self, reason: BaseException | None, message: Message[Any] | None) -> Any:
        """Runs on the new instance, before its ``on_start``. May be ``async def``.

        `reason` is None when the agent was unparked, `message` is what the old one failed on.
        """

    def on_message(self, message: Message[Any]) -> Any:
        """Gets the envelope of whatever no handler takes; what it returns is the reply.

        By default it goes to ``on_receive``, where an actor written for Pykka has one.
        """
        if type(self).on_receive is not pykka.Actor.on_receive:
            return self.on_receive(message.payload)
        raise Unhandled(self.name, message, self.handler_table.types())

    @classmethod
    def metadata(cls) -> Mapping[str, Any]:
        """What the registry shows of this class: its documentation and the types it handles.

        And what it subscribes to, if it does.
        """
        doc = inspect.cleandoc(cls.__doc__ or "")
        told: dict[str, Any] = {"doc": doc, "handles": tuple(cls.handler_table.types())}
        return told | {"subscriptions": cls.subscriptions} if cls.subscriptions else told

    def __repr__(self) -> str:
        cell = self._cell
        return f"<{type(self).__qualname__} {cell.name!r}>" if cell else super().__repr__()

    # -- Pykka's own face

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Agents need a node: ``node.spawn(Cls, ...)``."""
        raise InvalidHandler(f"start agents with node.spawn({cls.__name__}, ...)")

    @property
    def actor_ref(self) -> pykka.ActorRef[Any]:
        return side_of(self._cell).ref

    @property
    def _actor_ref(self) -> pykka.ActorRef[Any]:  # type: ignore[override]
        return side_of(self._cell).ref

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        return side_of(self._cell).urn

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        return side_of(self._cell).inbox

    @property
    def actor_stopped(self) -> threading.Event:  # type: ignore[override]
        return side_of(self._cell).stopped

    @staticmethod
    def _create_actor_inbox() -> Any:
        raise InvalidHandler("an agent's mailbox is made by its node")

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return PykkaFuture()

    def _start_actor_loop(self) -> None:
        raise InvalidHandler("an agent is run by a dispatcher of its node")

    # -- inside

    @property
    def _spawned(self) -> Cell:
        if self._cell is None:
            raise InvalidHandler(
                f"this {type(self).__name__} was made by hand; node.spawn() gives it a name"
            )
        return self._cell

    @property
    def _activation(self) -> Activation:
        origin: Any = CURRENT.get()
        if origin is None or origin.cell is not self._cell:
            raise InvalidHandler("only a handler, where it runs, has a message in hand")
        activation: Activation = origin
        return activation

    def _ref(self, to: str | Ref) -> Ref:
        return to if isinstance(to, Ref) else self._spawned.runtime.ref(to)


_RESERVED: Final = frozenset(
    name for name in vars(Agent) if not name.startswith("__") and name not in _MAY_DEFINE
) | {"stop"}


def add_proxy_handlers(table: HandlerTable) -> None:
    """Let Pykka's proxy messages through to Pykka's own code."""
    for kind in PROXY_MESSAGES:
        table.calls[kind] = pykka.Actor._handle_receive


def check_dispatcher(cls: type[Agent]) -> None:
    """Refuse a class whose handlers cannot run where it wants to run.

    Raises:
        InvalidHandler: as it says.
    """
    hooks = (cls.on_start, cls.on_stop, cls.on_restart, cls.on_message)
    needs_loop = cls.handler_table.has_async or any(map(inspect.iscoroutinefunction, hooks))
    if inspect.iscoroutinefunction(cls.on_failure):
        raise InvalidHandler(f"{cls.__qualname__}.on_failure cannot be async")
    if needs_loop and cls.dispatcher not in (None, "loop"):
        raise InvalidHandler(
            f"{cls.__qualname__} has async handlers, which run on the event loop;"
            f" leave out dispatcher={cls.dispatcher!r}"
        )
    cls.runs_on = cls.dispatcher or ("loop" if needs_loop else "pool")
    if cls.concurrency > 1 and cls.runs_on != "loop":
        raise InvalidHandler(
            f"{cls.__qualname__}: concurrency = {cls.concurrency} needs `async def` handlers"
        )


def _refuse_reserved(cls: type[Agent]) -> None:
    for name in vars(cls):
        if name in _RESERVED:
            raise InvalidHandler(
                f"{cls.__qualname__}.{name} would hide the agent's own {name!r};"
                " choose another name"
            )


def _check_attributes(cls: type[Agent]) -> None:
    where = cls.__qualname__
    for attribute in ("capabilities", "subscriptions"):
        value = getattr(cls, attribute)
        if isinstance(value, str) or not isinstance(value, tuple | list):
            raise InvalidHandler(f"{where}.{attribute} is a tuple of str, as in ('name',)")
        setattr(cls, attribute, tuple(value))
    for capability in cls.capabilities:
        check_name("a capability", capability)
    for pattern in cls.subscriptions:
        check_pattern(pattern)
    if not isinstance(cls.mailbox, MailboxPolicy):
        raise InvalidHandler(f"{where}.mailbox is a MailboxPolicy, not {cls.mailbox!r}")
    if not isinstance(cls.supervision, Supervision):
        raise InvalidHandler(f"{where}.supervision is a Supervision, not {cls.supervision!r}")
    if cls.dispatcher not in (None, *_DISPATCHERS):
        raise InvalidHandler(
            f"{where}.dispatcher is one of {', '.join(_DISPATCHERS)} or None,"
            f" not {cls.dispatcher!r}"
        )
    concurrency: object = cls.concurrency
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidHandler(f"{where}.concurrency is an int of 1 or more, not {concurrency!r}")
