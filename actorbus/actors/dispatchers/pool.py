"""A few threads share all agents.

Theory. The run queue holds agents, not messages. One thread, the *leader*, takes an agent from
it, gives it its turn, and takes the next; while there is none it sleeps until it is woken. In one
interpreter only one thread can compute, so while turns are short more threads would only take
the lock from each other. The others help where the leader is held: they sleep apart, are woken
one by one, empty the queue and sleep again. Who wakes them:

- a sender, if the leader has been in one turn for over a millisecond, or waits in its handler;
- a handler that is about to wait for a reply or for room, if agents are queued;
- the monitor, that looks every few milliseconds while anybody is at work. If nobody is left to
  wake, agents wait, and every thread has been in one turn for longer than it may take, it
  doubles the pool.

A helper that nobody needed for long ends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from actorbus.bus.waker import Waker
from actorbus.errors import PoolExhausted
from actorbus.telemetry import PoolResized, SlowHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from actorbus.actors.cell import Cell
    from actorbus.bus.waiting import Hearing
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_HELD: Final = 0.001


class _Worker:
    """One thread: when its turn began (None: idle), of which agent, and whether it waits."""

    __slots__ = ("blocked", "cell", "reported", "since", "thread", "wake")

    def __init__(self) -> None:
        self.since: float | None = None
        self.cell: Cell | None = None
        self.blocked = False
        self.reported = False
        self.wake = threading.Lock()
        self.wake.acquire()
        self.thread: threading.Thread


class PoolDispatcher:
    """Runs agents whose handlers are plain functions."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._ready: deque[Cell] = deque()
        self.enqueue: Callable[[Cell], object] = self._ready.append
        self.queued: Sized = self._ready
        self.nudge: Callable[[], object] = self._nudge
        self.hearing: Hearing | None = None
        """What comes from other nodes, for the leader to hear while it has nothing to do."""
        self._lock = threading.Lock()
        self._workers: dict[_Worker, None] = {}
        self._mine = threading.local()
        self._leader = _Worker()
        self._ring: Callable[[], object]
        self._asleep = False
        """Whether the leader sleeps until it is woken, and nobody has rung yet."""
        self._idle: list[_Worker] = []
        self._monitor: threading.Thread | None = None
        self._work_begun = threading.Event()
        self._watching = False
        self._closed = False
        self._over = threading.Event()
        """Set when it closes: the monitor's sleep may be long."""

    def start(self) -> None:
        """Start the threads that are always there."""
        waker = Waker()
        self._ring = waker.ring
        with self._lock:
            self._start_thread(self._leader, partial(self._lead, waker))
            for _ in range(min(self._settings.pool_core, self._settings.pool_threads) - 1):
                self._add_helper()
            self._monitor = threading.Thread(
                target=self._watch, name="actorbus-pool-monitor", daemon=True
            )
            self._monitor.start()

    def _nudge(self) -> None:
        if self._asleep:
            # As in Mailbox._enqueue_owner: between these two Python must not look for signals.
            self._asleep = False
            self._ring()
            return
        leader = self._leader
        since = leader.since
        if since is None or not self._idle:
            return
        if leader.blocked or time.monotonic() - since > _HELD:
            self._wake_helper()

    def close(self, timeout: float) -> list[str]:
        with self._lock:
            self._closed = True
            workers = list(self._workers)
            idle, self._idle = self._idle, []
        self._nudge()
        self._over.set()
        self._work_begun.set()
        for worker in idle:
            worker.wake.release()
        give_up = time.monotonic() + timeout
        for worker in workers:
            if worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, give_up - time.monotonic()))
        if self._monitor is not None:
            self._monitor.join(max(0.05, give_up - time.monotonic()))
        return [
            worker.cell.name
            for worker in workers
            if worker.cell is not None
            and worker.since is not None
            and worker.thread.is_alive()
            and worker.thread is not threading.current_thread()
        ]

    @property
    def threads(self) -> int:
        return len(self._workers)

    def before_block(self) -> Callable[[], None] | None:
        """The calling worker is about to block: make sure that others can still run.

        Returns what to call when it goes on; None if the caller is no worker of this pool.

        Raises:
            PoolExhausted: every other thread is blocked already, and no more may be made.
        """
        worker: _Worker | None = getattr(self._mine, "worker", None)
        if worker is None:
            return None
        with self._lock:
            if not self._idle:
                self._make_up_for(worker)
            worker.blocked = True
        if self._ready:
            self._wake_helper()

        def unblocked() -> None:
            worker.blocked = False

        return unblocked

    def _make_up_for(self, worker: _Worker) -> None:
        """Add a helper in place of a thread that blocks. The lock is held."""
        if len(self._workers) < self._settings.pool_threads:
            self._add_helper()
        elif all(other.blocked for other in self._workers if other is not worker):
            raise PoolExhausted(self._settings.pool_threads)

    def _add_helper(self) -> None:
        """Start one more thread. The lock is held."""
        if self._closed:
            return
        self._start_thread(_Worker(), self._help)
        if self._telemetry.active:
            blocked = sum(other.blocked for other in self._workers)
            self._telemetry.emit(PoolResized(len(self._workers), blocked))

    def _start_thread(self, worker: _Worker, work: Callable[[_Worker], None]) -> None:
        worker.thread = threading.Thread(
            target=work, args=(worker,), name="actorbus-worker", daemon=True
        )
        self._workers[worker] = None
        worker.thread.start()

    def _wake_helper(self) -> None:
        with self._lock:
            if self._idle:
                # Not pop(): a KeyboardInterrupt could come between two calls, and the helper
                # would be neither idle nor awake.
                worker = self._idle[-1]
                del self._idle[-1]
                worker.wake.release()

    # -- the threads

    def _lead(self, waker: Waker, worker: _Worker) -> None:
        self._mine.worker = worker
        while True:
            self._empty_queue(worker)
            self._asleep = True
            if self._ready:
                # Who put it there may have looked whether anybody sleeps just before.
                self._asleep = False
                continue
            if self._closed:
                break
            self._sleep(waker, worker)
            self._asleep = False
        self._asleep = False
        waker.close()
        self._forget(worker)

    def _sleep(self, waker: Waker, worker: _Worker) -> None:
        """Until it is woken; what comes from other nodes it hears itself meanwhile."""
        if self.hearing is None:
            waker.wait()
        else:
            self.hearing.idle(waker, partial(self._hear, worker))

    def _hear(self, worker: _Worker, hear: Callable[[], object]) -> bool:
        """As if it had been in the run queue. False: now there is something in it."""
        self._asleep = False
        worker.cell = None
        self._begin(worker)
        hear()
        worker.since = None
        self._asleep = True
        return not self._ready

    def _help(self, worker: _Worker) -> None:
        self._mine.worker = worker
        patience = self._settings.pool_shrink_after
        while True:
            self._empty_queue(worker)
            with self._lock:
                if self._closed:
                    return
                self._idle.append(worker)
                if self._ready:
                    # Who put it there may have looked for idle helpers just before.
                    self._idle.remove(worker)
                    continue
            if not worker.wake.acquire(timeout=patience) and self._may_leave(worker):
                return

    def _empty_queue(self, worker: _Worker) -> None:
        take = self._ready.popleft
        while True:
            try:
                cell = take()
            except IndexError:
                return
            self._give_turn(worker, cell)

    def _give_turn(self, worker: _Worker, cell: Cell) -> None:
        worker.cell = cell
        self._begin(worker)
        try:
            cell.turn()
        except BaseException as error:  # noqa: BLE001 - the other agents go on
            cell.broke(error)
        worker.since = None

    def _begin(self, worker: _Worker) -> None:
        """What it does from now on may take long."""
        worker.since = time.monotonic()
        if not self._watching:
            self._watching = True
            self._work_begun.set()

    def _may_leave(self, worker: _Worker) -> bool:
        """Whether an idle helper may end. If somebody is just waking it, it may not."""
        with self._lock:
            if worker not in self._idle:
                worker.wake.acquire()
                return False
            self._idle.remove(worker)
            if len(self._workers) <= self._settings.pool_core:
                return False
            self._forget(worker)
        if self._telemetry.active:
            self._telemetry.emit(PoolResized(len(self._workers), 0))
        return True

    def _forget(self, worker: _Worker) -> None:
        self._workers.pop(worker, None)

    # -- the monitor

    def _watch(self) -> None:
        """Asleep while no worker is in a turn."""
        tick = self._settings.pool_grow_after
        while not self._closed:
            self._work_begun.wait()
            self._over.wait(tick)
            now = time.monotonic()
            with self._lock:
                workers = list(self._workers)
            busy = [worker for worker in workers if worker.since is not None]
            if not busy:
                self._work_begun.clear()
                self._watching = False
                if any(worker.since is not None for worker in workers):
                    self._work_begun.set()
                continue
            self._report_slow(busy, now)
            if self._ready and _held(self._leader, now, _HELD):
                if self._idle:
                    self._wake_helper()
                elif all(_held(worker, now, tick) for worker in workers):
                    self._grow(len(workers))

    def _grow(self, threads: int) -> None:
        with self._lock:
            for _ in range(min(threads, self._settings.pool_threads - len(self._workers))):
                self._add_helper()

    def _report_slow(self, busy: list[_Worker], now: float) -> None:
        limit = self._settings.slow_handler
        for worker in busy:
            since = worker.since
            if since is None or now - since < limit or worker.blocked:
                worker.reported = False
            elif not worker.reported:
                worker.reported = True
                if self._telemetry.active and worker.cell is not None:
                    self._telemetry.emit(SlowHandler(worker.cell.name, now - since))


def _held(worker: _Worker, now: float, limit: float) -> bool:
    since = worker.since
    return since is not None and now - since > limit
