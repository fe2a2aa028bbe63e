"""A few threads share all agents.

The run queue holds agents, not messages. A worker takes an agent, gives it a turn, and takes
the next. The pool grows in two ways: a handler that waits for a reply or for room says so, and
the pool makes up for its thread at once; and when agents wait while every worker has been in
one turn for longer than it may take, the pool doubles. Threads that are idle for long end.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from actorbus.errors import PoolExhausted
from actorbus.telemetry import PoolResized, SlowHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.actors.cell import Cell
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry


class _Worker:
    """One thread: when its turn began (None: idle), of which agent, and whether it waits."""

    __slots__ = ("blocked", "cell", "reported", "since", "thread")

    def __init__(self) -> None:
        self.since: float | None = None
        self.cell: Cell | None = None
        self.blocked = False
        self.reported = False
        self.thread: threading.Thread


class PoolDispatcher:
    """Runs agents whose handlers are plain functions."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._queue: queue.SimpleQueue[Cell | None] = queue.SimpleQueue()
        self.submit: Callable[[Cell], object] = self._queue.put
        self._lock = threading.Lock()
        self._workers: dict[int, _Worker] = {}
        self._monitor: threading.Thread | None = None
        self._work_begun = threading.Event()
        self._closed = False

    def start(self) -> None:
        """Start the threads that are always there."""
        with self._lock:
            for _ in range(min(self._settings.pool_core, self._settings.pool_threads)):
                self._add_worker()
            self._monitor = threading.Thread(
                target=self._watch, name="actorbus-pool-monitor", daemon=True
            )
            self._monitor.start()

    def close(self, timeout: float) -> list[str]:
        with self._lock:
            self._closed = True
            workers = list(self._workers.values())
        self._work_begun.set()
        for _ in workers:
            self._queue.put(None)
        give_up = time.monotonic() + timeout
        for worker in workers:
            if worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, give_up - time.monotonic()))
        if self._monitor is not None:
            self._monitor.join(max(0.05, give_up - time.monotonic()))
        return [
            worker.cell.name
            for worker in workers
            if worker.thread.is_alive() and worker.cell is not None
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
        worker = self._workers.get(threading.get_ident())
        if worker is None:
            return None
        with self._lock:
            free = sum(not other.blocked for other in self._workers.values()) - 1
            if free < self._settings.pool_core:
                if len(self._workers) < self._settings.pool_threads:
                    self._add_worker()
                elif free < 1:
                    raise PoolExhausted(self._settings.pool_threads)
            worker.blocked = True

        def unblocked() -> None:
            worker.blocked = False

        return unblocked

    def _add_worker(self) -> None:
        """Start one more thread. The lock is held."""
        if self._closed:
            return
        worker = _Worker()
        worker.thread = threading.Thread(
            target=self._work, args=(worker,), name="actorbus-worker", daemon=True
        )
        worker.thread.start()
        if worker.thread.ident is not None:
            self._workers[worker.thread.ident] = worker
        if self._telemetry.active:
            blocked = sum(other.blocked for other in self._workers.values())
            self._telemetry.emit(PoolResized(len(self._workers), blocked))

    def _work(self, worker: _Worker) -> None:
        take = self._queue.get
        begun = self._work_begun
        patience = self._settings.pool_shrink_after
        while True:
            try:
                cell = take(timeout=patience)
            except queue.Empty:
                if self._may_leave(worker):
                    return
                continue
            if cell is None:
                return
            worker.cell = cell
            worker.since = time.monotonic()
            if not begun.is_set():
                begun.set()
            cell.turn()
            worker.since = None

    def _may_leave(self, worker: _Worker) -> bool:
        with self._lock:
            if len(self._workers) <= self._settings.pool_core:
                return False
            if worker.thread.ident is not None:
                del self._workers[worker.thread.ident]
        if self._telemetry.active:
            self._telemetry.emit(PoolResized(len(self._workers), 0))
        return True

    def _watch(self) -> None:
        """The monitor's thread: asleep while no worker is in a turn."""
        tick = self._settings.pool_grow_after
        while not self._closed:
            self._work_begun.wait()
            time.sleep(tick)
            now = time.monotonic()
            with self._lock:
                workers = list(self._workers.values())
            busy = [worker for worker in workers if worker.since is not None]
            if not busy:
                self._work_begun.clear()
                if any(worker.since is not None for worker in workers):
                    self._work_begun.set()
                continue
            self._report_slow(busy, now)
            if self._queue.qsize() and all(_held(worker, now, tick) for worker in workers):
                self._grow(len(workers))

    def _grow(self, threads: int) -> None:
        with self._lock:
            for _ in range(min(threads, self._settings.pool_threads - len(self._workers))):
                self._add_worker()

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
