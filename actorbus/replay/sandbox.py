"""The node that a replay runs on: no network, no real time, and one handler at a time."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorbus.actors.dispatchers.loop import LoopDispatcher
from actorbus.bus.origin import CURRENT
from actorbus.bus.transports.memory import MemoryTransport
from actorbus.replay.turns import Turns
from actorbus.settings import Settings
from actorbus.testing.clock import ManualClock
from actorbus.testing.node import TestNode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.bus.mailbox import Inbox, Mailbox, Offered
    from actorbus.bus.middleware import Deliver, Send
    from actorbus.bus.waiting import Arm, Settling
    from actorbus.clock import Clock
    from actorbus.context.stores.memory import MemoryStore
    from actorbus.message import Message
    from actorbus.persistence.audit import Audit
    from actorbus.replay.playing import Playing

_NEVER: Final = 1e9
"""Heartbeats of a node that nobody watches, in seconds."""


class Sandbox(TestNode):
    """A ``TestNode`` whose handlers can wait for each other in any order, and for time."""

    def __init__(
        self, playing: Playing, *, starts: float, seed: int, audit: str | Audit | None
    ) -> None:
        self._playing = playing
        self._starts = starts
        owner: dict[str, str] = {}
        if audit is not None and not isinstance(audit, str):
            owner = {"tenant": audit.tenant, "project": audit.project}
        super().__init__(
            _Ordered(playing),
            seed=seed,
            check_payloads=False,
            audit=audit,
            middleware=_both(playing),
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

    def _make_clock(self) -> ManualClock:
        self.clock = ManualClock(self._starts)
        return self.clock

    def _make_store(self, clock: Clock | None) -> MemoryStore:
        return super()._make_store(self.clock)  # the transport is given, but shared with nobody

    def _make_waiting(self) -> Any:
        return _TimePasses(self._playing)

    def _make_dispatchers(self) -> None:
        runtime = self._runtime
        runtime.turn_messages = 1
        self._turns = Turns(random.Random(self.seed))
        self._scheduler = self._turns  # type: ignore[assignment]
        self._loop = LoopDispatcher()
        runtime.dispatchers = {"pool": self._turns, "thread": self._turns, "loop": self._loop}
        runtime.loop = self._loop

    def _close_dispatchers(self, timeout: float) -> list[str]:
        return super()._close_dispatchers(timeout) + self._turns.close(timeout)

    def _pick(self, capability: str) -> Any:
        name = self._playing.chosen(capability)
        return self._pick_really(capability) if name is None else self._runtime.ref(name)

    def _everybody(self, capability: str) -> Any:
        names = self._playing.chosen_all(capability)
        if not names:
            return self._everybody_really(capability)
        return [self._runtime.ref(name) for name in names]

    def _next_name(self, cls: Any) -> Any:
        return self._playing.next_name(cls) or self._name_really(cls)


class _TimePasses:
    """Waiting means that others have their turns, and then that time passes."""

    def __init__(self, playing: Playing) -> None:
        self._playing = playing

    def spin(self, awaited: Settling) -> bool:
        return awaited.settled

    def may_block(self) -> bool:
        return asyncio._get_running_loop() is None

    def wait(self, arm: Arm, until: float | None) -> bool:
        happened: list[bool] = []
        if not arm(partial(happened.append, True)):
            return True
        return self._playing.wait(lambda: bool(happened), until)


class _Ordered(MemoryTransport):
    """Hands broadcasts and events on in the order in which each agent began to handle them."""

    def __init__(self, playing: Playing) -> None:
        super().__init__()
        self._playing = playing

    def audience(self, message: Message[Any]) -> Sequence[Inbox]:
        found: Any = super().audience(message)
        return [_Turnstile(inbox, self._playing) for inbox in found]


class _Turnstile:
    """A mailbox that takes a message when it is its turn."""

    def __init__(self, inbox: Mailbox, playing: Playing) -> None:
        self._inbox = inbox
        self._playing = playing
        self.name = inbox.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inbox, name)

    def offer(self, message: Message[Any]) -> Offered:
        offer = partial(self._inbox.offer, message)
        offered: Offered = self._playing.in_turn(message, self.name, offer)
        return offered


def _both(playing: Playing) -> list[Send | Deliver]:
    from actorbus.bus.middleware import Deliver, Send

    return [Send(playing.on_send), Deliver(playing.on_deliver)]
