"""A context on a store in memory, a clock that is turned, and a watch thread that waits."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING

import pytest

from actorbus.context import Context
from actorbus.context.stores.memory import MemoryStore
from actorbus.telemetry import Telemetry
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.telemetry import Event


class WatchThread:
    """Keeps what is posted until it is told to run it, in order."""

    def __init__(self) -> None:
        self.posted: deque[Callable[[], None]] = deque()

    def post(self, task: Callable[[], None]) -> None:
        self.posted.append(task)

    def run(self) -> None:
        while self.posted:
            self.posted.popleft()()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def watch_thread() -> WatchThread:
    return WatchThread()


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def events(telemetry: Telemetry) -> list[Event]:
    heard: list[Event] = []
    telemetry.listen(heard.append)
    return heard


@pytest.fixture
def context(store: MemoryStore, watch_thread: WatchThread, telemetry: Telemetry) -> Context:
    return Context(store, post=watch_thread.post, telemetry=telemetry, watch_backlog=5)


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads take turns so often that they meet between any two steps."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)
