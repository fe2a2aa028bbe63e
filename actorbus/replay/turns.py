"""Who has a turn, one at a time, where a handler may wait in the middle of its own.

A ``def`` handler that waits for a reply holds its thread. So each turn has a thread, and a
baton goes round: whoever has it runs, and all others stand still. That is as deterministic as
one thread, and handlers can go on in another order than they began to wait in.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from actorbus.testing.turns import Turns

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from actorbus.actors.cell import Cell


class InterruptibleTurns(Turns):
    """Gives turns to agents, to the event loop, and to handlers that need wait no longer."""

    def __init__(self, choice: random.Random) -> None:
        super().__init__(choice)
        self._waiting: list[tuple[_Fiber, Callable[[], bool]]] = []
        self._idle: list[_Fiber] = []
        self._own: dict[Cell, _Fiber] = {}
        self._here = threading.local()

    @property
    def can_suspend(self) -> bool:
        """Whether the code that runs here has a turn, which can be interrupted."""
        return getattr(self._here, "fiber", None) is not None

    def suspend(self, woken: Callable[[], bool]) -> None:
        """Interrupt the turn that this is called in, until `woken` holds."""
        fiber: _Fiber = self._here.fiber
        self._waiting.append((fiber, woken))
        fiber.hand_back()

    def close(self, timeout: float) -> list[str]:
        """End the threads, none of which has a turn any more."""
        for fiber in (*self._idle, *self._own.values()):
            fiber.end(timeout)
        return []

    def _one_turn(self) -> bool:
        woken = [entry for entry in self._waiting if entry[1]()]
        loop = self._waiting_loop()
        choices = len(woken) + len(self._ready) + (loop is not None)
        if not choices:
            return False
        chosen = self._choice.randrange(choices)
        if chosen < len(woken):
            self._waiting.remove(woken[chosen])
            self._go_on(woken[chosen][0])
        elif chosen < len(woken) + len(self._ready):
            cell = self._ready.pop(chosen - len(woken))
            fiber = self._fiber_for(cell)
            fiber.cell = cell
            self._go_on(fiber)
        elif loop is not None:
            loop.step()
        return True

    def _go_on(self, fiber: _Fiber) -> None:
        fiber.hand_over()
        if fiber.cell is None and fiber.shared:
            self._idle.append(fiber)

    def _fiber_for(self, cell: Cell) -> _Fiber:
        if cell.agent_class.runs_on == "thread":
            fiber = self._own.get(cell)
            if fiber is None:
                fiber = self._own[cell] = _Fiber(self._here, shared=False)
            return fiber
        return self._idle.pop() if self._idle else _Fiber(self._here, shared=True)


class _Fiber:
    """A thread that runs only while whoever handed it the baton stands still."""

    def __init__(self, here: Any, *, shared: bool) -> None:
        self.cell: Cell | None = None
        """Whose turn it is; None between turns."""
        self.shared = shared
        self._here = here
        self._mine = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._over = False
        self._thread = threading.Thread(target=self._run, name="actorbus-replay", daemon=True)
        self._thread.start()

    def hand_over(self) -> None:
        """Let it run until it waits or its turn is over."""
        self._mine.release()
        self._theirs.acquire()

    def hand_back(self) -> None:
        """Called on its own thread: stand still until the baton comes back."""
        self._theirs.release()
        self._mine.acquire()

    def end(self, timeout: float) -> None:
        self._over = True
        self._mine.release()
        self._thread.join(timeout)

    def _run(self) -> None:
        self._here.fiber = self
        self._mine.acquire()
        while not self._over:
            cell = self.cell
            if cell is not None:
                try:
                    cell.turn()
                except BaseException as error:  # noqa: BLE001 - a fault of ours: the agent ends
                    cell.broke(error)
            self.cell = None
            self.hand_back()
