"""What the tests of the bus share: nodes whose clock is turned by hand."""

from __future__ import annotations

import sys
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import Node, Settings
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.clock import Clock, Timer

_DEADLINE: Final = 10.0


class WatchedClock(ManualClock):
    """Tells a test which timers were set, so that it turns the clock no sooner."""

    def __init__(self) -> None:
        super().__init__()
        self._set: SimpleQueue[float] = SimpleQueue()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        timer = super().call_at(when, callback)
        self._set.put(when)
        return timer

    def await_timer(self, within: float) -> None:
        """Wait until somebody has asked to be called in at most so many seconds from now."""
        now = self.now()
        while not now < self._set.get(timeout=_DEADLINE) <= now + within + 1e-6:
            pass


class ClockedNode(Node):
    """A real node with real threads, on a clock that is turned by hand."""

    clock: WatchedClock

    def _make_clock(self) -> Clock:
        self.clock = WatchedClock()
        return self.clock


@pytest.fixture
def make_node() -> Iterator[Callable[..., ClockedNode]]:
    """Nodes that run, and are stopped after the test."""
    nodes: list[ClockedNode] = []

    def make(**arguments: Any) -> ClockedNode:
        arguments.setdefault("settings", Settings(log_level="off"))
        node = ClockedNode(**arguments)
        nodes.append(node)
        return node.start()

    yield make
    for node in nodes:
        node.stop()


@pytest.fixture
def node(make_node: Callable[..., ClockedNode]) -> ClockedNode:
    return make_node()


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let threads take turns a thousand times as often, so that races have their chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)
