"""A node for tests: one thread, a clock that is turned by hand, an order that a seed decides."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NoReturn

from actorbus.actors.dispatchers.loop import LoopDispatcher
from actorbus.errors import InvalidHandler, InvalidSettings, UnknownRecipient
from actorbus.node import Node
from actorbus.telemetry import MessageSent
from actorbus.testing.clock import ManualClock
from actorbus.testing.turns import TurnedLoop, Turns, TurnsWhileWaiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.actors.cell import Cell
    from actorbus.message import Message
    from actorbus.telemetry import Event


class SimulatedCrash(Exception):
    """What ``TestNode.crash`` makes a handler raise."""


class TestNode(Node):
    """``Node`` on the calling thread, with the same API.

    Nothing runs by itself: ``settle()`` gives turns until nobody has work, a ``.get()`` until
    its reply is there, ``advance(seconds)`` turns the clock and gives turns on the way. Which
    agent comes next is chosen by `seed`; a turn is one message. ``async def`` handlers run on
    a loop whose time is that clock. ``sent`` holds every message that was accepted.

    Agents that need a thread of their own are refused, and so is ``async with``.
    """

    __test__ = False

    def __init__(
        self, *args: Any, seed: int = 0, check_payloads: bool = True, **kwargs: Any
    ) -> None:
        self.seed = seed
        self.clock = ManualClock()
        self.sent: list[Message[Any]] = []
        super().__init__(*args, check_payloads=check_payloads, **kwargs)
        self.telemetry.listen(self._note)

    def settle(self) -> None:
        """Give turns until nobody has work that can be done without turning the clock."""
        self._scheduler.run(lambda: False)

    def advance(self, seconds: float) -> None:
        """Turn the clock, doing on the way what becomes due, at its time."""
        target = self.clock.now() + seconds
        self.settle()
        while (due := self.clock.next_due()) is not None and due <= target:
            self.clock.advance(max(0.0, due - self.clock.now()))
            self.settle()
        self.clock.advance(max(0.0, target - self.clock.now()))

    def crash(self, name: str, error: BaseException | None = None) -> None:
        """Make the agent's handler raise on the message that is next.

        Raises:
            UnknownRecipient: there is no such agent.
        """
        cell = self._runtime.cells.get(name)
        if cell is None:
            raise UnknownRecipient(name, self._runtime.cells)
        cell.table = _CrashOnce(cell, error or SimulatedCrash(f"{name} was made to crash"))

    def assert_sent(
        self,
        to: str | None = None,
        payload: Any = None,
        *,
        type: type[Any] | None = None,
        topic: str | None = None,
        sender: str | None = None,
    ) -> Message[Any]:
        """The first message that fits everything given; fails the test if there is none."""
        for message in self.sent:
            if (
                (to is None or message.recipient == to)
                and (payload is None or message.payload == payload)
                and (type is None or isinstance(message.payload, type))
                and (topic is None or message.topic == topic)
                and (sender is None or message.sender == sender)
            ):
                return message
        shown = "\n".join(f"  {message!r}" for message in self.sent[-20:]) or "  nothing"
        raise AssertionError(f"no such message was sent; these were:\n{shown}")

    async def __aenter__(self) -> NoReturn:
        raise InvalidSettings(
            "a TestNode has a loop of its own, on the turned clock; use it as `with TestNode()`"
        )

    # -- what is replaced

    def _make_clock(self) -> ManualClock:
        return self.clock

    def _make_waiting(self) -> TurnsWhileWaiting:
        return TurnsWhileWaiting(lambda done, _until: self._scheduler.run(done))

    def _seed(self) -> int:
        return self.seed

    def _post(self, callback: Callable[[], None]) -> None:
        callback()

    def _make_dispatchers(self) -> None:
        runtime = self._runtime
        runtime.turn_messages = 1
        self._loop = LoopDispatcher()
        self._scheduler = Turns(random.Random(self.seed))
        runtime.dispatchers = _Dispatchers(pool=self._scheduler, loop=self._loop)
        runtime.loop = self._loop

    def _start_dispatchers(self) -> None:
        self._turned_loop = TurnedLoop(self.clock)
        self._loop.use(self._turned_loop)
        self._scheduler.loop = self._turned_loop

    def _start_observability(self) -> None:
        """A test reads ``sent``, ``dead_letters`` and ``history``, not a log."""

    def _close_dispatchers(self, timeout: float) -> list[str]:
        self._loop.close(timeout)
        self._turned_loop.finish()
        return []

    def _wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        self.settle()
        return done()

    def _note(self, event: Event) -> None:
        if isinstance(event, MessageSent):
            self.sent.append(event.message)


class _Dispatchers(dict[str, Any]):
    """The dispatchers there are in a test."""

    def __missing__(self, name: str) -> NoReturn:
        raise InvalidHandler(
            f"a TestNode runs every agent on the calling thread; dispatcher={name!r} cannot be had"
        )


class _CrashOnce(dict[type[Any], Any]):
    """A table of handlers in which every type has one that raises, once."""

    def __init__(self, cell: Cell, error: BaseException) -> None:
        super().__init__()
        self._cell = cell
        self._error = error
        self._real = cell.handlers.calls

    def __missing__(self, _: type[Any]) -> Callable[[Any, Any], Any]:
        return self._crash

    def get(self, _: type[Any], default: Any = None) -> Callable[[Any, Any], Any]:
        return self._crash

    def _crash(self, _agent: Any, _payload: Any) -> NoReturn:
        self._cell.table = self._real
        raise self._error
