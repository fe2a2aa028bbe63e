"""Pykka's own face of an agent: its ``ActorRef``, inbox and futures, on our mailbox.

So Pykka's ``tell``, ``ask`` and ``proxy()`` work beside the bus, in the same order and under
the same bound, and Pykka's traps stay outside: no agent is in ``pykka.ActorRegistry``, a stop
never loses what it overtakes, and no future waits for ever.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Final

import pykka
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from actorbus.actors.reply import Reply
from actorbus.errors import ActorbusError, AgentFailed, AgentStopped, AskTimeout, InvalidHandler
from actorbus.message import MessageKind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pykka._envelope import Envelope

    from actorbus.actors.agent import Agent
    from actorbus.actors.cell import Cell

PROXY_MESSAGES = (ProxyCall, ProxyGetAttr, ProxySetAttr)

ASK_TIMEOUT: Final = 30.0
"""Seconds a Pykka future waits where Pykka would wait for ever."""
_A_DAY: Final = 86_400.0


class PykkaFuture(pykka.ThreadingFuture[Any]):
    """A Pykka future that stands for a reply, and so waits as one.

    It has a deadline, sees a wait that could never end, and can be awaited. What it raises is
    what Pykka would raise.
    """

    reply: Reply[Any] | None = None

    def get(self, *, timeout: float | None = None) -> Any:
        seconds = ASK_TIMEOUT if timeout is None else timeout
        if self.reply is None:
            return super().get(timeout=seconds)
        try:
            return self.reply.get(seconds)
        except (AgentFailed, AgentStopped, AskTimeout) as error:
            shown = _as_pykka_says(error)
        raise shown

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.to_thread(self.get).__await__()


def _as_pykka_says(error: AgentFailed | AgentStopped | AskTimeout) -> BaseException:
    match error:
        case AgentFailed(__cause__=BaseException() as cause):
            return cause
        case AgentStopped():
            return pykka.ActorDeadError(str(error))
        case AskTimeout():
            return pykka.Timeout(str(error))
    return error


class PykkaInbox:
    """What Pykka takes for the actor's queue: puts go into the agent's mailbox."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def put(self, envelope: Envelope[Any], /) -> None:
        future = envelope.reply_to
        if isinstance(envelope.message, _ActorStop):
            self._cell.stop(drain=True, then=_setter(future))
            return
        reply = self._reply_of(future)
        kind = MessageKind.TELL if reply is None else MessageKind.REQUEST
        bus = self._cell.runtime.bus
        message = bus.stamp(kind, self._cell.name, envelope.message, answer_to=reply)
        try:
            stays_here = isinstance(message.payload, PROXY_MESSAGES)
            bus.send(message, self._cell.mailbox, stays_here=stays_here)
        except ActorbusError as error:
            if reply is not None:
                reply.fail(error)
            elif isinstance(error, AgentStopped):
                raise pykka.ActorDeadError(str(error)) from error
            else:
                raise

    def _reply_of(self, future: pykka.Future[Any] | None) -> Reply[Any] | None:
        """The reply that the future of an ask stands for; it has one from ``_create_future``."""
        if not isinstance(future, PykkaFuture):
            return None
        cell = self._cell
        asking = cell.runtime.asking
        now = asking.clock.now()
        # Who gets the future says how long to wait; this only ends what nobody gets.
        future.reply = Reply(asking, cell.name, now, now + _A_DAY, cell)
        return future.reply

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
        cell.pykka_side = self
        # Only now: an agent that ends from here on finds this side and tells it.
        if cell.mailbox.ended:
            self.stopped.set()
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
    if cell.pykka_side is None:
        with cell.runtime.asking.lock:
            return cell.pykka_side or PykkaSide(cell)
    return cell.pykka_side


def _setter(future: pykka.Future[Any] | None) -> Callable[[], object]:
    return (lambda: None) if future is None else (lambda: future.set(None))
