"""Agents with ``async def`` handlers share one event loop.

A *runner* is a task that gives agents their turns one after another. A handler that never
suspends costs no task and no call to the loop; one that does keeps its runner, and another
runner takes the rest of the run queue. So there are as many tasks as handlers that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import types
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from actorbus.actors.activation import Activation
    from actorbus.actors.cell import Cell

T = TypeVar("T")

_SHARE: Final = 0.005
"""Seconds of turns after which the loop gets to do what else there is."""
_LOOK_EVERY: Final = 8
"""Turns between two looks at the time."""
_MANY_TURNS: Final = 1_000
"""The share in turns, for a loop whose time stands still."""
_SPARE_RUNNERS: Final = 256
"""Idle runners that are kept: making one costs a few times what waking one does."""


class LoopDispatcher:
    """Runs agents on one event loop: the one it is given, or its own on a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._thread_id: int | None = None
        self._ready: deque[Cell] = deque()
        self.enqueue: Callable[[Cell], object] = self._ready.append
        self.nudge: Callable[[], object] = self._nudge
        self._pumped = False
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._at_work: Cell | None = None
        self._closed = False
        self._here = threading.get_ident

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on `loop`, which runs on the calling thread."""
        self._loop = loop
        self._thread_id = threading.get_ident()

    def _nudge(self) -> None:
        if self._pumped:
            return
        if self._here() == self._thread_id:
            self._pump()
            return
        try:
            self._pumped = True
            self._call_soon()
        except BaseException:
            self._pumped = False
            raise

    def close(self, timeout: float) -> list[str]:
        """End the loop if it is ours; a loop that was given is left as it is."""
        self._closed = True
        loop, thread = self._loop, self._thread
        if loop is None:
            return []
        if thread is None:
            for task in self._tasks:
                task.cancel()
            return []
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout)
        if thread.is_alive():
            return [self._at_work.name] if self._at_work is not None else ["the event loop"]
        return []

    async def aclose(self) -> None:
        """End the runners on the loop that was given."""
        self._closed = True
        for future in self._idle:
            if not future.done():
                future.cancel()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run `coroutine` as a task on this loop; called on the loop."""
        if self._loop is not None:
            task = self._loop.create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @types.coroutine
    def drive(
        self, coroutine: Coroutine[Any, Any, T], activation: Activation
    ) -> Generator[Any, Any, T]:
        """Await `coroutine`; once it suspends, let another runner take over the run queue."""
        try:
            waits_for = coroutine.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        return (yield from self.drive_on(coroutine, waits_for, activation))

    @types.coroutine
    def drive_on(
        self, coroutine: Coroutine[Any, Any, T], waits_for: Any, activation: Activation
    ) -> Generator[Any, Any, T]:
        """``drive`` for a coroutine that was started and has suspended for the first time."""
        activation.suspended = coroutine
        activation.task = asyncio.current_task()
        self._pumped = False
        if self._ready:
            self._pump()
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001 - thrown into the coroutine
                    waits_for = coroutine.throw(error)
                else:
                    waits_for = coroutine.send(sent)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            activation.suspended = None
            if activation.stopped:
                _uncancel()

    def interrupt(
        self, activation: Activation, suspended: object, task: asyncio.Task[Any] | None
    ) -> None:
        """Cancel the one handler that is `suspended`, and no other that its runner comes to."""

        def cancel() -> None:
            if activation.suspended is suspended and task is not None:
                task.cancel()

        if self._loop is not None:
            self._loop.call_soon_threadsafe(cancel)

    def _call_soon(self) -> None:
        """Have the run queue seen to, from another thread."""
        try:
            self._running_loop().call_soon_threadsafe(self._pump)
        except RuntimeError:
            # The loop has ended, and with it every turn: a stopped node drops the agents.
            self._ready.clear()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The loop; for the first agent that needs one, it is made with a thread of its own."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._run, args=(loop,), name="actorbus-loop", daemon=True
                )
                thread.start()
                self._own(loop, thread)
            return self._loop or loop

    def _own(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        """These are ours from now on. The lock is held."""
        self._thread = thread
        self._thread_id = thread.ident
        self._loop = loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            # A KeyboardInterrupt may have come to whoever started this thread, who then does
            # not know of it, and perhaps there is another one by now.
            if self._loop is None:
                self._own(loop, threading.current_thread())
            if self._loop is not loop:
                loop.close()
                return
        asyncio.set_event_loop(loop)
        try:
            while not self._closed:
                # A task that a handler made may raise SystemExit or KeyboardInterrupt: whoever
                # awaits it gets that, and the loop goes on.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _pump(self) -> None:
        """Have a runner see to the run queue."""
        if not self._ready or self._closed:
            self._pumped = False
            return
        self._pumped = True
        idle = self._idle
        while idle:
            future = idle.pop()
            if not future.done():
                future.set_result(None)
                return
        self.start_task(self._give_turns())

    async def _give_turns(self) -> None:
        """A runner. While it gives turns, ``nudge`` need not call the loop."""
        ready = self._ready
        loop = asyncio.get_running_loop()
        while not self._closed:
            self._pumped = True
            until = None
            left = _MANY_TURNS
            while ready:
                left -= 1
                if not left % _LOOK_EVERY:
                    if until is None:
                        until = loop.time() + _SHARE
                    elif not left or loop.time() >= until:
                        await asyncio.sleep(0)
                        break
                cell = ready.popleft()
                self._at_work = cell
                try:
                    await cell.turn_on_loop()
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001 - the other agents go on
                    cell.broke(error)
            self._pumped = False
            if ready:
                continue
            self._at_work = None
            if len(self._idle) >= _SPARE_RUNNERS:
                return
            future: asyncio.Future[None] = asyncio.Future(loop=loop)
            self._idle.append(future)
            await future


def _uncancel() -> None:
    """A handler was cancelled, and the runner whose task it ran in goes on."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
