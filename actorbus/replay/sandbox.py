"""The node that a replay runs on: no network, no real time, and one handler at a time."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorbus.actors.dispatchers.loop import LoopDispatcher
from actorbus.bus.origin import CURRENT
from actorbus.bus.transports.memory import MemoryTransport
from actorbus.replay.turns import InterruptibleTurns
from actorbus.settings import Settings
from actorbus.testing.clock import ManualClock
from actorbus.testing.node import TestNode
from actorbus.testing.turns import TurnsWhileWaiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.actors.agent import Agent
    from actorbus.bus.mailbox import Inbox, Mailbox, Offered
    from actorbus.bus.middleware import Deliver, Send
    from actorbus.clock import Clock
    from actorbus.context.stores.memory import MemoryStore
    from actorbus.message import Message
    from actorbus.persistence.audit import Audit
    from actorbus.replay.order import Order
    from actorbus.replay.script import Choices

_NEVER: Final = 1e9
"""Heartbeats of a node that nobody watches, in seconds."""


class Sandbox(TestNode):
    """A ``TestNode`` whose handlers can wait for each other in any order, and for time."""

    def __init__(
        self,
        order: Order,
        choices: Choices,
        *,
        wait: Callable[[Callable[[], bool], float | None], bool],
        middleware: Sequence[Send | Deliver],
        starts: float,
        seed: int,
        audit: str | Audit | None,
    ) -> None:
        self.loaded: frozenset[str] = frozenset()
        """Agents that start when they are needed."""
        self._choices = choices
        self._wait = wait
        self._starts = starts
        owner: dict[str, str] = {}
        if audit is not None and not isinstance(audit, str):
            owner = {"tenant": audit.tenant, "project": audit.project}
        super().__init__(
            _Ordered(order),
            seed=seed,
            check_payloads=False,
            audit=audit,
            middleware=middleware,
            settings=Settings(
                beat=_NEVER, suspect_after=2 * _NEVER, dead_after=4 * _NEVER, **owner
            ),
        )
        runtime: Any = self._runtime
        self._pick_really = runtime.pick
        self._everybody_really = runtime.everybody
        self._name_really = runtime._next_name
        # Chosen by load, or numbered by what ran before: history knows how it came out.
        runtime.pick = self._pick
        runtime.everybody = self._everybody
        runtime._next_name = self._next_name

    def give_turns(self, until: Callable[[], bool]) -> bool:
        """Give turns until `until` holds or nobody has work; whether it held."""
        return self._turns.run(until)

    def suspend(self, woken: Callable[[], bool]) -> bool:
        """Interrupt the handler that runs here until `woken`; False if none does."""
        if not self._turns.can_suspend:
            return False
        self._turns.suspend(woken)
        return True

    def pass_time(self, seconds: float) -> None:
        """Turn the clock, as nobody's handler."""
        token = CURRENT.set(None)
        try:
            self.clock.advance(seconds)
        finally:
            CURRENT.reset(token)

    def at_work(self) -> bool:
        """Whether a handler has a message in hand, or one waits for it."""
        return any(cell.busy for cell in self._runtime.cells.values())

    def inside(self, name: str | None) -> bool:
        """Whether a real agent of that name runs here."""
        cell = None if name is None else self._runtime.cells.get(name)
        return cell is not None and not hasattr(cell.agent_class, "stands_in")

    def is_here(self, name: str | None) -> bool:
        """Whether a real agent of that name runs here, or will when it is needed."""
        return name in self.loaded or self.inside(name)

    def real_classes(self) -> list[Any]:
        """The classes of the real agents that run here."""
        classes = [cell.agent_class for cell in self._runtime.cells.values()]
        return [cls for cls in classes if not hasattr(cls, "stands_in")]

    def stand_in(self, name: str, cls: type[Agent]) -> None:
        """Let a `cls` stand in for an agent that is not here."""
        if name not in self._runtime.cells:
            self._runtime.standby.add(name, cls)

    def _make_clock(self) -> ManualClock:
        self.clock = ManualClock(self._starts)
        return self.clock

    def _make_store(self, clock: Clock | None) -> MemoryStore:
        return super()._make_store(self.clock)  # the transport is given, but shared with nobody

    def _make_waiting(self) -> Any:
        return TurnsWhileWaiting(self._wait)

    def _make_dispatchers(self) -> None:
        runtime = self._runtime
        runtime.turn_messages = 1
        self._turns = InterruptibleTurns(random.Random(self.seed))
        self._scheduler = self._turns
        self._loop = LoopDispatcher()
        runtime.dispatchers = {"pool": self._turns, "thread": self._turns, "loop": self._loop}
        runtime.loop = self._loop

    def _close_dispatchers(self, timeout: float) -> list[str]:
        return super()._close_dispatchers(timeout) + self._turns.close(timeout)

    def _pick(self, capability: str) -> Any:
        name = self._choices.one(self._may_provide(capability))
        return self._pick_really(capability) if name is None else self._runtime.ref(name)

    def _everybody(self, capability: str) -> Any:
        names = self._choices.all(self._may_provide(capability))
        if not names:
            return self._everybody_really(capability)
        return [self._runtime.ref(name) for name in names]

    def _next_name(self, cls: Any) -> Any:
        return self._choices.name(cls) or self._name_really(cls)

    def _may_provide(self, capability: str) -> Callable[[str], bool]:
        """Who may have been chosen for it; what those outside can do, nobody here knows."""

        def may_provide(name: str) -> bool:
            return not self.inside(name) or capability in self._runtime.cells[name].capabilities

        return may_provide


class _Ordered(MemoryTransport):
    """Hands broadcasts and events on in the order in which each agent began to handle them."""

    def __init__(self, order: Order) -> None:
        super().__init__()
        self._order = order

    def audience(self, message: Message[Any]) -> Sequence[Inbox]:
        found: Any = super().audience(message)
        return [_Turnstile(inbox, self._order) for inbox in found]


class _Turnstile:
    """A mailbox that takes a message when it is its turn."""

    def __init__(self, inbox: Mailbox, order: Order) -> None:
        self._inbox = inbox
        self._order = order
        self.name = inbox.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inbox, name)

    def offer(self, message: Message[Any]) -> Offered:
        offer = partial(self._inbox.offer, message)
        offered: Offered = self._order.in_turn(message, self.name, offer)
        return offered
