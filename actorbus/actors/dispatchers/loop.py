"""Agents with ``async def`` handlers share one event loop.

A *runner* is a task that gives agents their turns one after another. A handler that never
suspends costs no task and no call to the loop; one that does keeps its runner, and another
runner takes the rest of the run queue. So there are as many tasks as handlers that wait.

That other runner is not woken by the loop, which would take it a round: it is *lent* to the
one whose handler suspends, and begins its turns right there, as the current task and in its own
context (``asyncio`` documents both steps for those who write tasks). A turn that suspends in
its turn goes on in the task it began in. If what the first handler waits for has come
meanwhile, such as the reply to an ask, it goes on at once. So agents that ask each other
need no round of the loop, and after a share of 5 ms the loop gets one all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import types
from asyncio.tasks import _enter_task, _leave_task
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sized
    from contextvars import Context

    from actorbus.actors.activation import Activation
    from actorbus.actors.cell import Cell

    Turn = Coroutine[Any, Any, None]

T = TypeVar("T")

_SHARE: Final = 0.005
"""Seconds of turns after which the loop gets to do what else there is."""
_LOOK_EVERY: Final = 8
"""Turns between two looks at the time."""
_MANY_TURNS: Final = 1_000
"""The share in turns, for a loop whose time stands still."""
_SPARE_RUNNERS: Final = 256
"""Idle runners that are kept: making one costs a few times what waking one does."""


class Runner:
    """A task that gives turns. While it is idle, others may begin a turn in its name."""

    __slots__ = ("begun", "context", "task", "woken")

    def __init__(self, task: asyncio.Task[Any], context: Context) -> None:
        self.task = task
        self.context = context
        self.woken: asyncio.Future[None] = task.get_loop().create_future()
        self.begun: tuple[Cell, Turn, Any] | None = None
        """A turn that waits for something, and what that is."""


class LoopDispatcher:
    """Runs agents on one event loop: the one it is given, or its own on a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._thread_id: int | None = None
        self._ready: deque[Cell] = deque()
        self.enqueue: Callable[[Cell], object] = self._ready.append
        self.queued: Sized = self._ready
        self.nudge: Callable[[], object] = self._nudge
        self._pumped = False
        """Whether somebody sees to the run queue, or was called to."""
        self._idle: list[Runner] = []
        self._turns = 0
        self._until: float | None = None
        self._time: Callable[[], float] = time.monotonic
        self._tasks: set[asyncio.Task[Any]] = set()
        self._at_work: Cell | None = None
        self._closed = False
        self._here = threading.get_ident

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on `loop`, which runs on the calling thread."""
        self._loop = loop
        self._time = loop.time
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
        for runner in self._idle:
            runner.woken.cancel()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start_task(
        self, coroutine: Coroutine[Any, Any, Any], context: Context | None = None
    ) -> None:
        """Run `coroutine` as a task on this loop; called on the loop."""
        if self._loop is not None:
            task = self._loop.create_task(coroutine, context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @types.coroutine
    def drive(
        self, coroutine: Coroutine[Any, Any, T], activation: Activation
    ) -> Generator[Any, Any, T]:
        """Await a handler's `coroutine`, which can be cancelled meanwhile."""
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
        self._time = loop.time
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
        while self._idle:
            runner = self._idle.pop()
            if not runner.woken.done():
                runner.woken.set_result(None)
                return
        context = copy_context()
        self.start_task(self._give_turns(context), context)

    async def _give_turns(self, context: Context) -> None:
        """A runner. While it gives turns, ``nudge`` need not call the loop."""
        ready = self._ready
        while not self._closed:
            self._pumped = True
            self._begin_share()
            while ready:
                if not self._goes_on():
                    await asyncio.sleep(0)
                    break
                begun = self._begin()
                if begun is not None:
                    await self._see_through(*begun)
            self._pumped = False
            if ready:
                continue
            self._at_work = None
            task = asyncio.current_task()
            if len(self._idle) >= _SPARE_RUNNERS or task is None:
                return
            await self._rest(Runner(task, context))

    async def _rest(self, runner: Runner) -> None:
        """Wait to be woken, and go on with the turn that somebody began meanwhile, if any."""
        self._idle.append(runner)
        try:
            await runner.woken
        except asyncio.CancelledError as error:
            if runner.begun is None:
                raise
            await self._see_through(*runner.begun, error)
        else:
            if runner.begun is not None:
                await self._see_through(*runner.begun)

    def _begin(self, context: Context | None = None) -> tuple[Cell, Turn, Any] | None:
        """Give the next agent its turn; None if that is over, else what it waits for as well."""
        cell = self._at_work = self._ready.popleft()
        turn = cell.turn_on_loop()
        try:
            waits_for = turn.send(None) if context is None else context.run(turn.send, None)
        except StopIteration:
            return None
        except BaseException as error:  # noqa: BLE001 - the other agents go on
            cell.broke(error)
            return None
        return cell, turn, waits_for

    @types.coroutine
    def _see_through(
        self, cell: Cell, turn: Turn, waits_for: Any, stopped: BaseException | None = None
    ) -> Generator[Any, Any, None]:
        """Await the rest of a turn. Whenever it waits, others have theirs."""
        try:
            if stopped is not None:
                waits_for = turn.throw(stopped)
            while True:
                if self._ready:
                    self._lend()
                if _has_come(waits_for) and self._goes_on():
                    waits_for._asyncio_future_blocking = False
                    waits_for = turn.send(None)
                    continue
                self._pumped = False
                if self._ready:
                    self._pump()
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001 - thrown into the coroutine
                    waits_for = turn.throw(error)
                else:
                    self._pumped = True
                    self._begin_share()
                    waits_for = turn.send(sent)
        except StopIteration:
            return
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the other agents go on
            cell.broke(error)

    def _lend(self) -> None:
        """Give turns here, in the name of idle runners, as far as those and the share go."""
        idle, ready = self._idle, self._ready
        loop, here, at_work = asyncio.get_running_loop(), asyncio.current_task(), self._at_work
        assert here is not None  # noqa: S101 - turns are given in tasks
        self._pumped = True
        _leave_task(loop, here)
        try:
            while ready and idle and self._goes_on():
                runner = idle.pop()
                _enter_task(loop, runner.task)
                try:
                    runner.begun = self._begin(runner.context)
                finally:
                    _leave_task(loop, runner.task)
                if runner.begun is None:
                    idle.append(runner)
                else:
                    runner.woken.set_result(None)
        finally:
            _enter_task(loop, here)
            self._at_work = at_work

    def _begin_share(self) -> None:
        self._turns = 0
        self._until = None

    def _goes_on(self) -> bool:
        """Whether the loop can wait for one turn more."""
        self._turns += 1
        if self._turns % _LOOK_EVERY:
            return True
        now = self._time()
        if self._until is None:
            self._until = now + _SHARE
        return now < self._until and self._turns < _MANY_TURNS


def _has_come(awaited: Any) -> bool:
    """Whether a coroutine suspended for something that is there now."""
    return getattr(awaited, "_asyncio_future_blocking", False) and awaited.done()


def _uncancel() -> None:
    """A handler was cancelled, and the runner whose task it ran in goes on."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
