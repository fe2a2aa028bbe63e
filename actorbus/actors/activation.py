"""One handler at work: which agent, which message, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.actors.reply import Reply, ring_of
from actorbus.errors import DeadlockDetected
from actorbus.message import envelope

if TYPE_CHECKING:
    import asyncio

    from actorbus.actors.cell import Cell
    from actorbus.message import Entry, Message, MessageId


class Activation:
    """What ``CURRENT`` holds while a handler runs. ``entry`` is None in a hook."""

    __slots__ = ("_cancelled", "cell", "entry", "name", "run_id", "suspended", "task", "waits")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.name: str | None = cell.name
        self.entry: Entry | None = None
        self.run_id: str | None = None
        self.waits: list[Reply[Any]] | None = None
        self.suspended: object = None
        """The coroutine of an async handler that waits, so that it can be cancelled."""
        self.task: asyncio.Task[Any] | None = None
        """The task it waits in."""
        self._cancelled: MessageId | None = None

    @property
    def message(self) -> Message[Any] | None:
        """The message in hand. Its envelope is built when somebody first looks at it."""
        entry = self.entry
        if entry is None or not isinstance(entry, tuple):
            return entry
        message = self.entry = envelope(entry)
        return message

    def look(self) -> Message[Any] | None:
        """The same for other threads: ``entry`` may change while they look, and is not theirs."""
        entry = self.entry
        return None if entry is None else envelope(entry)

    @property
    def stopped(self) -> bool:
        """Whether the message in hand was cancelled."""
        return self._cancelled is not None and self._has_in_hand(self._cancelled)

    def begin_wait(self, reply: Reply[Any]) -> None:
        """The handler is about to wait for `reply`.

        Raises:
            DeadlockDetected: the wait would close a ring. The reply fails with it.
        """
        waits = self.waits
        if waits is None:
            self.waits = [reply]
        else:
            waits.append(reply)
        reply.waiter = self
        target = reply.target
        if target is not None and target is not self.cell:
            at_work = target.activation
            if at_work is None or (at_work.__class__ is Activation and not at_work.waits):
                # The quick look: who waits for nobody closes no ring.
                return
        ring = ring_of(self, reply)
        if ring is not None:
            error = DeadlockDetected(ring)
            self.end_wait(reply)
            reply.fail(error)
            reply.outcome()
            raise error

    def end_wait(self, reply: Reply[Any]) -> None:
        reply.waiter = None
        if self.waits and reply in self.waits:
            self.waits.remove(reply)

    def cancel(self, message: Message[Any]) -> None:
        """Cancel `message` and, recursively, the asks its handler waits for.

        If it is not in hand any more nothing happens: what is has nothing to do with it.
        """
        self._cancelled = message.id
        waits, suspended, task = list(self.waits or ()), self.suspended, self.task
        if not self._has_in_hand(message.id):
            return
        for reply in waits:
            reply.cancel()
        if suspended is not None:
            self.cell.runtime.loop.interrupt(self, suspended, task)

    def _has_in_hand(self, message_id: MessageId) -> bool:
        entry = self.entry
        if entry is None:
            return False
        return (entry[0] if isinstance(entry, tuple) else entry.id) == message_id


class RunScope:
    """Code outside agents that sends as part of one run."""

    __slots__ = ("cell", "entry", "name", "run_id")

    def __init__(self, run_id: str) -> None:
        self.name: str | None = None
        self.cell = None
        self.entry: Entry | None = None
        self.run_id: str | None = run_id

    @property
    def message(self) -> None:
        """Nothing is in hand."""

    def begin_wait(self, reply: Reply[Any]) -> None:
        """Code outside agents can wait for anybody."""

    def end_wait(self, reply: Reply[Any]) -> None:
        """Nothing to undo."""
