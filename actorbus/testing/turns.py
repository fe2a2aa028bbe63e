"""Who has a turn, where nothing runs by itself: agents and an event loop, as a seed decides."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVarTuple, Unpack

from actorbus.actors.dispatcher import no_nudge
from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sized
    from contextvars import Context as VariableContext

    from actorbus.actors.cell import Cell
    from actorbus.bus.waiting import Arm, Settling
    from actorbus.message import MessageId
    from actorbus.testing.clock import ManualClock

Ts = TypeVarTuple("Ts")

_MANY_TURNS: Final = 1_000_000


class Turns:
    """A dispatcher that gives turns on the thread that asks for them."""

    def __init__(self, choice: random.Random) -> None:
        self.loop: TurnedLoop | None = None
        self._choice = choice
        self._ready: list[Cell] = []
        self.enqueue: Callable[[Cell], object] = self._ready.append
        self.nudge: Callable[[], object] = no_nudge
        self.queued: Sized = ("somebody",)
        """A turn is an agent's share and no more, whatever the clock says."""

    def run(self, until: Callable[[], bool]) -> bool:
        """Give turns until `until` holds, or nobody has work. Whether it held."""
        origin = CURRENT.get()
        try:
            for _ in range(_MANY_TURNS):
                if until():
                    return True
                if not self._one_turn():
                    return until()
        finally:
            CURRENT.set(origin)
        raise AssertionError(f"agents are still at work after {_MANY_TURNS:,} turns")

    def _one_turn(self) -> bool:
        loop = self._waiting_loop()
        choices = len(self._ready) + (loop is not None)
        if not choices:
            return False
        chosen = self._choice.randrange(choices)
        if chosen < len(self._ready):
            self._ready.pop(chosen).turn()
        elif loop is not None:
            loop.step()
        return True

    def _waiting_loop(self) -> TurnedLoop | None:
        """The event loop, if it has work and no loop runs here already."""
        loop = self.loop
        if loop is None or not loop.waits or asyncio._get_running_loop() is not None:
            return None
        return loop


class TurnsWhileWaiting:
    """Waiting means giving others their turns: `give_turns` until something holds, or a time."""

    def __init__(self, give_turns: Callable[[Callable[[], bool], float | None], bool]) -> None:
        self._give_turns = give_turns

    def spin(self, awaited: Settling) -> bool:
        """Nobody runs at the same time."""
        return awaited.settled

    def may_block(self) -> bool:
        return asyncio._get_running_loop() is None

    def wait(self, arm: Arm, until: float | None, *, answers: MessageId | None = None) -> bool:
        happened: list[bool] = []
        if not arm(partial(happened.append, True)):
            return True
        return self._give_turns(lambda: bool(happened), until)


class TurnedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a ``ManualClock`` and which runs step by step."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.waits = False
        super().__init__()

    def time(self) -> float:
        return self._clock.now()

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: VariableContext | None = None,
    ) -> asyncio.Handle:
        self.waits = True
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: VariableContext | None = None,
    ) -> asyncio.Handle:
        self.waits = True
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: VariableContext | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def due() -> None:
            if not handle.cancelled():
                self.call_soon(callback, *args, context=context)

        self._clock.call_at(when, due)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: VariableContext | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def step(self) -> None:
        """Run what is ready now."""
        self.waits = False
        super().call_soon(self.stop)
        self.run_forever()

    def finish(self) -> None:
        """Cancel what still waits, and close."""
        if self.is_closed():
            return
        while tasks := asyncio.all_tasks(self):
            for task in tasks:
                task.cancel()
            self.step()
        self.close()
