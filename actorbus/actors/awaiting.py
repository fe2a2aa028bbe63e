"""How coroutines wait for replies. Imported by nodes, so that asyncio is not a cost of import."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    from collections.abc import Generator

    from actorbus.actors.reply import Reply


def suspend(reply: Reply[Any]) -> Generator[Any, None, Any]:
    """Suspend until `reply` is settled. Cancelling the task that waits cancels the ask."""
    if not reply.settled:
        origin: Any = CURRENT.get()
        if origin is not None:
            origin.begin_wait(reply)
        try:
            wakeup = Wakeup(asyncio.get_running_loop())
            reply.then(wakeup.wake)
            yield from wakeup.future
        except asyncio.CancelledError:
            reply.cancel()
            raise
        finally:
            if origin is not None:
                origin.end_wait(reply)
    return reply.result()


class Wakeup:
    """Wakes a coroutine on its own loop, from whatever thread the reply is settled on."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        if asyncio._get_running_loop() is self._loop:
            self._set()
            return
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            # The loop is closed, so nobody waits on it any more.
            return

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)
