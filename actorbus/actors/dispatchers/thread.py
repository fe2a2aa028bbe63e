"""A thread for each agent, for handlers that need to stay on one: Pykka's own way."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from actorbus.actors.dispatcher import no_nudge

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from actorbus.actors.cell import Cell


class ThreadDispatcher:
    """Gives every agent a thread of its own, from its first turn until it stops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[Cell, tuple[threading.Thread, queue.SimpleQueue[Cell | None]]] = {}
        self._closed = False
        self.enqueue: Callable[[Cell], object] = self._enqueue
        self.nudge: Callable[[], object] = no_nudge
        self.queued: Sized = ()

    def _enqueue(self, cell: Cell) -> None:
        with self._lock:
            entry = self._threads.get(cell)
            if entry is None:
                if self._closed:
                    return
                turns: queue.SimpleQueue[Cell | None] = queue.SimpleQueue()
                thread = threading.Thread(
                    target=self._work, args=(cell, turns), name=f"actorbus-{cell.name}", daemon=True
                )
                entry = self._threads[cell] = (thread, turns)
                thread.start()
        entry[1].put(cell)

    def close(self, timeout: float) -> list[str]:
        with self._lock:
            self._closed = True
            entries = dict(self._threads)
        for _, turns in entries.values():
            turns.put(None)
        give_up = time.monotonic() + timeout
        for thread, _ in entries.values():
            if thread is not threading.current_thread():
                thread.join(max(0.0, give_up - time.monotonic()))
        return [
            cell.name
            for cell, (thread, _) in entries.items()
            if thread.is_alive() and thread is not threading.current_thread()
        ]

    def _work(self, cell: Cell, turns: queue.SimpleQueue[Cell | None]) -> None:
        while _another(turns):
            try:
                cell.turn()
            except BaseException as error:  # noqa: BLE001 - its end must be told
                cell.broke(error)
            if cell.mailbox.ended:
                break
        with self._lock:
            self._threads.pop(cell, None)


def _another(turns: queue.SimpleQueue[Cell | None]) -> bool:
    """Whether there is another turn. None is the word to end, once there is none any more."""
    turn = turns.get()
    if turn is None and not turns.empty():
        turn = turns.get()
        turns.put(None)
    return turn is not None
