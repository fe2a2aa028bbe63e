"""Pykka's own face of an agent: its ``ActorRef``, inbox and futures, on our mailbox.

So Pykka's ``tell``, ``ask`` and ``proxy()`` work beside the bus, in the same order and under
the same bound, and Pykka's traps stay outside: no agent is in ``pykka.ActorRegistry``, a stop
never loses what it overtakes, and no future waits for ever.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pykka
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from actorbus.errors import ActorbusError, AgentFailed, AgentStopped, InvalidHandler, MailboxFull
from actorbus.message import MessageKind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pykka._envelope import Envelope

    from actorbus.actors.agent import Agent
    from actorbus.actors.cell import Cell
    from actorbus.actors.reply import Reply

PROXY_MESSAGES = (ProxyCall, ProxyGetAttr, ProxySetAttr)

ASK_TIMEOUT = 30.0
"""Seconds a Pykka future waits where Pykka would wait for ever."""


class PykkaFuture(pykka.ThreadingFuture[Any]):
    """A Pykka future with a deadline, that can be awaited without blocking the loop."""

    def get(self, *, timeout: float | None = None) -> Any:
        return super().get(timeout=ASK_TIMEOUT if timeout is None else timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.to_thread(self.get).__await__()


class PykkaAnswer:
    """Where the reply to a Pykka ask goes: its future."""

    __slots__ = ("_future", "settled")

    def __init__(self, future: pykka.Future[Any]) -> None:
        self._future = future
        self.settled = False

    def resolve(self, value: Any) -> bool:
        self.settled = True
        self._future.set(value)
        return True

    def fail(self, error: BaseException) -> bool:
        """Pykka's callers see the handler's own exception, and Pykka's own for a dead actor."""
        self.settled = True
        shown: BaseException = error
        if isinstance(error, AgentFailed) and error.__cause__ is not None:
            shown = error.__cause__
        elif isinstance(error, AgentStopped):
            shown = pykka.ActorDeadError(str(error))
        self._future.set_exception((type(shown), shown, shown.__traceback__))
        return True

    def forward(self, inner: Reply[Any]) -> None:
        inner.then(partial(self._adopt, inner))

    def _adopt(self, inner: Reply[Any]) -> None:
        value, error = inner.outcome()
        if error is None:
            self.resolve(value)
        else:
            self.fail(error)


class PykkaInbox:
    """What Pykka takes for the actor's queue: puts go into the agent's mailbox."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def put(self, envelope: Envelope[Any], /) -> None:
        cell = self._cell
        future = envelope.reply_to
        if isinstance(envelope.message, _ActorStop):
            cell.stop(drain=True, then=_setter(future))
            return
        answer = None if future is None else PykkaAnswer(future)
        kind = MessageKind.TELL if answer is None else MessageKind.REQUEST
        bus = cell.runtime.bus
        message = bus.stamp(kind, cell.name, envelope.message, answer_to=answer)
        try:
            bus.send(message, cell.mailbox)
        except AgentStopped as error:
            if answer is None:
                raise pykka.ActorDeadError(str(error)) from error
            answer.fail(error)
        except MailboxFull as error:
            if answer is None:
                raise
            answer.fail(error)

    def get(self) -> Envelope[Any]:
        raise ActorbusError("an agent's mailbox is read by its dispatcher")

    def empty(self) -> bool:
        return len(self._cell.mailbox) == 0


class PykkaSide:
    """Made when somebody first asks for ``actor_ref``; survives restarts of the agent."""

    __slots__ = ("inbox", "ref", "stopped", "urn")

    def __init__(self, cell: Cell) -> None:
        self.urn = uuid.uuid4().urn
        self.inbox = PykkaInbox(cell)
        self.stopped = threading.Event()
        if cell.mailbox.ended:
            self.stopped.set()
        cell.pykka_side = self
        self.ref: pykka.ActorRef[Any] = pykka.ActorRef(cell.agent)

    def rebind(self, agent: Agent) -> None:
        """The agent has a new instance."""
        self.ref._actor_weakref = weakref.ref(agent)


def side_of(cell: Cell | None) -> PykkaSide:
    """The Pykka face of an agent.

    Raises:
        InvalidHandler: the agent was not spawned by a node.
    """
    if cell is None:
        raise InvalidHandler("this agent was not spawned; use node.spawn()")
    return cell.pykka_side or PykkaSide(cell)


def _setter(future: pykka.Future[Any] | None) -> Callable[[], object]:
    return (lambda: None) if future is None else (lambda: future.set(None))
