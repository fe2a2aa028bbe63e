"""How coroutines wait for replies. Imported by nodes, so that asyncio is not a cost of import."""

from __future__ import annotations

import asyncio
from asyncio import Future, _get_running_loop, get_running_loop
from functools import partial
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
            future: Future[None] = Future(loop=get_running_loop())
            reply.then(partial(wake, future))
            yield from future
        except asyncio.CancelledError:
            reply.cancel()
            raise
        finally:
            if origin is not None:
                origin.end_wait(reply)
    return reply.result()


def wake(future: Future[None]) -> None:
    """Wake the coroutine that waits for `future` on its own loop, from whatever thread this is."""
    loop = future.get_loop()
    if _get_running_loop() is loop:
        if not future.done():
            future.set_result(None)
        return
    try:
        loop.call_soon_threadsafe(_set, future)
    except RuntimeError:
        # The loop is closed, so nobody waits on it any more.
        return


def _set(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
