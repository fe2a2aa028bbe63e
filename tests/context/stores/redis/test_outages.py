"""Redis goes away and comes back, on a server of the test's own."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.codec import Codec, TypeBook
from actorbus.context import Context, Lagged
from actorbus.context.stores.redis import RedisStore
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer
from actorbus.telemetry import Telemetry

from .conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.context import Change
    from tests.conftest import RedisProcess

_DEADLINE = 60.0
_SECONDS = 15.0
"""A call that cannot succeed says so by then: three more tries at an interval."""


class Program:
    """A node's part of it: a store, a context, and a thread for watches."""

    def __init__(self, url: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.server = RedisServer(url)
        self.failures: list[Exception] = []
        self.store = RedisStore(
            self.server, Codec(TypeBook(), limit=LIMIT), failed=self.failures.append
        )
        self.context = Context(self.store, post=self._tasks.put, telemetry=Telemetry())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def set(self, key: str, value: Any) -> None:
        """Until it is done: here nothing else is written, so a repeat changes nothing."""
        give_up = time.monotonic() + _DEADLINE
        while True:
            try:
                if self.context.get(key) != value:
                    self.context.set(key, value)
                return
            except TransportUnavailable:
                if time.monotonic() > give_up:
                    raise

    def close(self) -> None:
        self.context.close()
        self.store.close()
        self.server.close()
        self._tasks.put(None)
        self._thread.join(_DEADLINE)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


@pytest.fixture
def redis(start_redis: Callable[..., RedisProcess]) -> RedisProcess:
    return start_redis("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def start_program(redis: RedisProcess) -> Iterator[Callable[[], Program]]:
    programs: list[Program] = []

    def start() -> Program:
        programs.append(Program(redis.url))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


class Heard:
    """What a watch was told."""

    def __init__(self) -> None:
        self.news: list[Change | Lagged] = []
        self._more = threading.Condition()

    def __call__(self, news: Change | Lagged) -> None:
        with self._more:
            self.news.append(news)
            self._more.notify_all()

    def wait_for(self, count: int) -> bool:
        with self._more:
            return self._more.wait_for(lambda: len(self.news) >= count, _DEADLINE)


def test_a_watch_hears_each_change_once_over_a_server_killed_and_started(
    redis: RedisProcess, start_program: Callable[[], Program]
) -> None:
    watcher, writer = start_program(), start_program()
    heard = Heard()
    watcher.context.watch("k", heard)

    for number in range(60):
        if number in (20, 40):
            redis.kill()
            threading.Timer(0.2, redis.start).start()
        writer.set("k", number)
    enough = heard.wait_for(60)

    assert enough
    assert [news.value for news in heard.news if not isinstance(news, Lagged)] == [*range(60)]
    assert [news.version for news in heard.news if not isinstance(news, Lagged)] == [*range(1, 61)]
    assert watcher.failures


def test_a_watch_that_could_not_read_reads_later_though_nothing_more_happens(
    start_program: Callable[[], Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = start_program()
    heard = Heard()
    program.context.watch("k", heard)

    def fail_once(*_: Any) -> Any:
        monkeypatch.undo()
        raise TransportUnavailable("no answer")

    monkeypatch.setattr(program.store, "_changes_after", fail_once)

    program.context.set("k", 1)

    assert heard.wait_for(1)


def test_a_server_that_lost_everything_makes_watches_lag(
    start_redis: Callable[..., RedisProcess],
) -> None:
    redis = start_redis()
    program = Program(redis.url)
    heard = Heard()
    for number in range(3):
        program.context.set("k", number)
    program.context.watch("k", heard)

    redis.kill()
    redis.start()
    program.set("k", uuid4().hex)
    told = heard.wait_for(1)
    program.close()

    assert told
    assert isinstance(heard.news[0], Lagged)


def test_calls_to_a_server_that_is_away_fail_within_seconds_and_work_again(
    redis: RedisProcess, start_program: Callable[[], Program]
) -> None:
    program = start_program()
    program.context.set("k", 1)
    redis.kill()
    began = time.monotonic()

    with pytest.raises(TransportUnavailable):
        program.context.set("k", 2)
    with pytest.raises(TransportUnavailable):
        program.context.watch("k", lambda _: None)
    took = time.monotonic() - began
    redis.start()

    assert took < 2 * _SECONDS
    assert program.context.get("k") == 1
    assert program.context.set("k", 2) == 2
