"""The directory on Redis while its server is away, comes back empty, or a process is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.clock import SystemClock
from actorbus.errors import NoProvider, TransportUnavailable
from actorbus.registry.registry import Registry
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry
from actorbus.testing.directory_contract import ListedAgent, entry
from tests.registry.directories.redis_tables import Tables, on_real
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.registry.directory import ChangeKind, DirectoryChange


@pytest.fixture
def process(start_redis: Callable[..., Any]) -> Any:
    return start_redis()


@pytest.fixture
def tables(process: Any) -> Iterator[Tables]:
    tables = on_real(process.url)
    yield tables
    tables.close()


def test_searches_answer_from_the_last_view_while_the_server_is_away(
    process: Any, tables: Tables
) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    here.register(entry(ListedAgent("counter", ("count",)), "a"))
    until(lambda: there.get("counter"))

    process.kill()
    until(lambda: there.view_age > 0.2)

    assert there.get("counter") is not None
    assert len(there.members("count")) == 1


def test_what_needs_the_server_says_so_within_seconds(process: Any, tables: Tables) -> None:
    directory = tables.open()
    directory.join("a")
    directory.register(entry(ListedAgent("counter"), "a"))
    process.kill()

    began = time.monotonic()
    for call in (
        lambda: directory.beat("a"),
        lambda: directory.register(entry(ListedAgent("other"), "a")),
        lambda: tables.open().join("b"),
        directory.nodes,
    ):
        with pytest.raises(TransportUnavailable):
            call()
    directory.unregister("counter", "a")
    directory.leave("a")
    directory.close()

    assert time.monotonic() - began < 20


def test_nobody_waits_for_a_server_that_is_known_to_be_away(process: Any, tables: Tables) -> None:
    directory = tables.open()
    directory.join("a")
    process.kill()
    until(lambda: directory._away)

    for call in (
        lambda: directory.beat("a"),
        lambda: directory.register(entry(ListedAgent("other"), "a")),
    ):
        with pytest.raises(TransportUnavailable, match="has not answered for"):
            call()

    process.start()
    until(lambda: _done(lambda: directory.beat("a")))
    directory.register(entry(ListedAgent("other"), "a"))


def test_who_registers_under_a_transport_waits_for_no_server(process: Any, tables: Tables) -> None:
    here, there = tables.open(names_held=True), tables.open(names_held=True)
    here.join("a")
    there.join("b")
    process.kill()

    began = time.monotonic()
    here.register(entry(ListedAgent("counter", ("count",)), "a"))
    took = time.monotonic() - began

    assert took < 1.0
    assert here.get("counter") is not None
    process.start()
    until(lambda: there.members("count"))


def test_what_left_meanwhile_is_told_once_the_server_is_back(
    start_redis: Callable[..., Any],
) -> None:
    process = start_redis("--appendonly", "yes", "--appendfsync", "always")
    tables = on_real(process.url)
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    here.register_all([entry(ListedAgent(name), "a") for name in ("stays", "leaves")])
    until(lambda: there.get("leaves") and there.get("stays"))

    process.kill()
    here.unregister("leaves", "a")
    process.start()

    until(lambda: there.get("leaves") is None)
    assert there.get("stays") is not None
    tables.close()


def test_a_server_that_comes_back_empty_is_told_everything_and_nobody_hears_of_it(
    process: Any, tables: Tables
) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    here.register_all([entry(ListedAgent(f"agent-{at}", ("count",)), "a") for at in range(400)])
    there.register(entry(ListedAgent("other"), "b"))
    until(lambda: len(there.members()) == len(here.members()) == 401)
    heard: list[tuple[ChangeKind, str]] = []

    def hear(change: DirectoryChange) -> None:
        heard.append((change.kind, change.entry.member.name))

    there.listen(hear)
    here.listen(hear)

    process.kill()
    process.start()
    beats = (lambda: here.beat("a")), (lambda: there.beat("b"))
    for beat in beats:
        until(lambda: _done(beat))  # noqa: B023 - called at once

    until(lambda: tables.client.hlen(tables.key("agents")) == 401)
    newcomer = tables.open()
    newcomer.join("c")
    until(lambda: len(newcomer.members()) == 401)
    assert newcomer.beat("c") == pytest.approx({"a": 0, "b": 0, "c": 0}, abs=5.0)
    assert len(here.members("count")) == len(there.members("count")) == 400
    assert heard == []


def test_who_does_not_come_back_after_the_server_came_back_empty_is_gone_in_time(
    process: Any, tables: Tables
) -> None:
    here, there = tables.open(), tables.open(dead_after=0.5)
    here.join("a")
    there.join("b")
    here.register(entry(ListedAgent("counter"), "a"))
    until(lambda: there.get("counter"))
    here._closing.set()
    for thread in here._threads:
        thread.join(10)
    here._homes.clear()

    process.kill()
    process.start()
    until(lambda: _done(lambda: there.beat("b")))

    until(lambda: there.get("counter") is None)


def _done(call: Callable[[], object]) -> bool:
    try:
        call()
    except TransportUnavailable:
        return False
    return True


# -- a provider's process is killed while others look it up


PROVIDER = """
import sys, time
from actorbus.testing.directory_contract import ListedAgent
from tests.registry.directories.test_redis_outages import registry_on
from tests.registry.directories.redis_tables import on_real

tables = on_real(sys.argv[1])
tables.namespace = sys.argv[2]
registry, _ = registry_on(tables, "provider")
for number in range(20):
    registry.register(ListedAgent(f"agent-{number}", ("count",)))
print("ready", flush=True)
time.sleep(60)
"""
LIVENESS = Settings(beat=0.2, suspect_after=0.6, dead_after=1.0)


def registry_on(tables: Tables, node: str) -> tuple[Registry, SystemClock]:
    clock = SystemClock()
    registry = Registry(
        tables.open(dead_after=LIVENESS.dead_after),
        node=node,
        clock=clock,
        telemetry=Telemetry(),
        settings=LIVENESS,
        post=lambda callback: callback(),
    )
    registry.start()
    return registry, clock


def test_agents_of_a_process_that_was_killed_are_chosen_no_more_a_second_after_its_ttl(
    process: Any, tables: Tables
) -> None:
    registry, clock = registry_on(tables, "looking")
    registry.register(ListedAgent("mine", ("rest",)))
    provider = subprocess.Popen(
        [sys.executable, "-c", PROVIDER, process.url, tables.namespace],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert provider.stdout is not None
        assert provider.stdout.readline() == b"ready\n"
        until(lambda: len(registry.find("count")) == 20)

        provider.kill()
        killed = last_found = time.monotonic()
        while time.monotonic() < killed + LIVENESS.dead_after + 2.0:
            try:
                registry.least_busy("count")
                last_found = time.monotonic()
            except NoProvider:
                pass
            time.sleep(0.002)

        assert last_found - killed <= LIVENESS.dead_after + 1.0
        assert registry.providers("count") == ()
        assert registry.least_busy("rest").name == "mine"
    finally:
        provider.kill()
        provider.wait(10)
        provider.stdout.close()  # type: ignore[union-attr]
        registry.stop()
        clock.close()
