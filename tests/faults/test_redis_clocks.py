"""Fault 28: clocks that jump, a node's and the server's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import fakeredis
import pytest

from actorbus import Agent, Node, handles
from actorbus.bus.transports.redis.loads import Outgoing, Taken
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.ownership import OwnedBy
from actorbus.redis_client import RedisServer
from actorbus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR, DAY = 3_600.0, 86_400.0
JUMPS = [HOUR, -HOUR, DAY, -DAY]
TTL = 10.0


class Host:
    """A clock of a host, as its processes read it, that goes wrong."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._time = time.time

    def __call__(self) -> float:
        return self._time() + self.ahead


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """That of the fake server, and of nodes in this process."""
    host = Host()
    monkeypatch.setattr(time, "time", host)
    return host


@pytest.fixture
def log(host: Host) -> Iterator[InboxLog]:
    """The inboxes on a server whose TIME is the host's."""
    fake = fakeredis.FakeServer()
    server = RedisServer(
        "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
    )
    yield InboxLog(server)
    server.close()


def message(sequence: int, delay: float | None = None) -> Outgoing:
    return Outgoing("agent", sequence, 2, b"%016d" % sequence, b"body", delay=delay)


@pytest.mark.parametrize("jump", JUMPS)
def test_28_a_server_whose_clock_jumps_kills_no_node(
    log: InboxLog, host: Host, jump: float
) -> None:
    log.beat("n1", ttl=TTL)
    log.beat("n2", ttl=TTL)
    mine = log.acquire("agent", "n1", ttl=TTL)

    host.ahead = jump

    assert log.beat("n2", ttl=TTL) == []
    with pytest.raises(OwnedBy):
        log.acquire("agent", "n2", ttl=TTL)
    assert log.acquire("agent", "n1", ttl=TTL).token == mine.token
    assert log.beat("n1", ttl=TTL) == []


@pytest.mark.parametrize("jump", JUMPS)
def test_28_tokens_rise_also_where_the_servers_clock_goes_back(
    log: InboxLog, host: Host, jump: float
) -> None:
    first = log.acquire("agent", "n1", ttl=TTL)

    host.ahead = jump
    second = log.acquire("agent", "n2", ttl=TTL)  # n1 has never beaten

    assert int(second.token) > int(first.token)


@pytest.mark.parametrize("jump", JUMPS)
def test_28_numbers_and_messages_without_a_ttl_know_no_clock(
    log: InboxLog, host: Host, jump: float
) -> None:
    (first,) = log.send("p", [message(1)], create=True)
    host.ahead = jump
    again, second = log.send("p", [message(1), message(2)])
    mine = log.acquire("agent", "n1", ttl=TTL)

    found = log.fetch(mine, mine.cursors)

    assert first.taken is again.taken is second.taken is Taken.OK
    assert [(item.id, item.expiry) for item in found.items] == [
        (b"%016d" % 1, 0),
        (b"%016d" % 2, 0),
    ]


def test_28_delayed_messages_come_by_the_servers_time(log: InboxLog, host: Host) -> None:
    log.send("p", [message(1)], create=True)
    log.send("p", [message(2, delay=2 * HOUR)])

    before = log.tick()
    host.ahead = HOUR
    half = log.tick()
    host.ahead = 3 * HOUR
    after = log.tick()

    assert [before[0], half[0], after[0]] == [0, 0, 1]
    assert before[1] is not None
    assert half[1] is not None
    assert before[1] == pytest.approx(2 * HOUR, abs=5)
    assert half[1] == pytest.approx(HOUR, abs=5)


class Echo(Agent):
    @handles
    def echo(self, text: str) -> str:
        return text


@pytest.mark.parametrize("jump", JUMPS)
def test_28_a_node_whose_clock_jumps_expires_and_delays_nothing_wrongly(
    redis_url: str, host: Host, jump: float
) -> None:
    with Node(redis_url, settings=Settings(namespace=uuid4().hex)) as node:
        echo = node.spawn(Echo, name="echo")
        assert echo.ask("before").get(10) == "before"

        host.ahead = jump

        assert echo.ask("after", timeout=10).get(10) == "after"
        echo.tell("kept", ttl=60)
        echo.tell("late", delay=0.05)
        wait_for(lambda: len([one for one in node.history if one.type == "str"]) >= 4)
        assert len(node.dead_letters) == 0
        assert all(one.status != "dead" for one in node.registry.find())
        waited = [one.started_at - one.created_at for one in node.history if one.started_at]
    assert len(waited) >= 4
    # Two beats may differ by some of a round trip in what they take for the server's time.
    assert all(-0.01 < seconds < 10 for seconds in waited)


def wait_for(happens: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not happens():
        assert time.monotonic() < give_up
        time.sleep(0.01)
