"""The inbox log with 64 partitions, over three masters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.deployment import check_in
from actorbus.bus.transports.redis.loads import Outgoing, Sent, Taken
from actorbus.bus.transports.redis.log import Done, InboxLog, Wanted
from actorbus.bus.transports.redis.ownership import START, Cursor, Fenced, OwnedBy
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer, Script, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actorbus.bus.transports.redis.log import Fetched
    from actorbus.bus.transports.redis.ownership import Cursors
    from tests.conftest import Cluster

TTL = 60.0
OK = Sent(Taken.OK)
NOTHING = Script("return 0")
AGENTS = [f"agent {number}" for number in range(100)]


@pytest.fixture
def server(redis_cluster: Cluster) -> Iterator[RedisServer]:
    server = RedisServer(redis_cluster.url)
    yield server
    server.close()


@pytest.fixture
def log(server: RedisServer) -> InboxLog:
    return log_of(server)


def log_of(server: RedisServer) -> InboxLog:
    namespace = uuid4().hex
    return InboxLog(server, namespace=namespace, partitions=check_in(server, namespace))


def message(agent: str, sequence: int) -> Outgoing:
    return Outgoing(agent, sequence, 2, uuid4().bytes, f"{agent}: {sequence}".encode())


def blobs(found: Any) -> list[bytes]:
    return [item.blob for item in found.items]


def after(found: Any) -> Cursors:
    last = found.items[-1]
    return Cursor(), Cursor(), Cursor(last.position + 1, last.id), Cursor()


def fetch_all(log: InboxLog, owners: Sequence[Any]) -> list[Fetched]:
    return log.exchange([], [Wanted(one, START) for one in owners])[1]  # type: ignore[return-value]


def test_messages_to_agents_everywhere_go_through_one_call_each(log: InboxLog) -> None:
    owners = [log.acquire(agent, "n1", ttl=TTL) for agent in AGENTS]
    sent = [message(agent, number) for number in (1, 2) for agent in AGENTS]

    assert log.send("p", sent) == [OK] * len(sent)

    found = fetch_all(log, owners)
    assert [blobs(one) for one in found] == [
        [f"{agent}: 1".encode(), f"{agent}: 2".encode()] for agent in AGENTS
    ]
    done = [Done(owner, after(one)) for owner, one in zip(owners, found, strict=True)]
    assert log.exchange(done, [])[0] == [2] * len(AGENTS)
    assert log.exchange(done, [])[0] == [0] * len(AGENTS)
    assert not log.ready("n1")


def test_a_send_that_is_repeated_is_taken_once(log: InboxLog) -> None:
    owners = [log.acquire(agent, "n1", ttl=TTL) for agent in AGENTS]
    sent = [message(agent, 1) for agent in AGENTS]

    assert log.send("p", sent) == log.send("p", sent) == [OK] * len(AGENTS)

    assert all(len(one.items) == 1 for one in fetch_all(log, owners))


def test_a_node_that_dies_leaves_its_agents_in_every_partition(log: InboxLog) -> None:
    log.beat("n1", ttl=TTL)
    log.beat("n2", ttl=TTL)
    old = [log.acquire(agent, "n1", ttl=TTL) for agent in AGENTS]
    log.send("p", [message(agent, 1) for agent in AGENTS])
    with pytest.raises(OwnedBy):
        log.acquire(AGENTS[0], "n2", ttl=TTL)

    log.leave("n1", ttl=TTL)  # it still owns agents: as if it were dead

    assert log.beat("n2", ttl=TTL) == ["n1"]
    assert sorted(log.owned("n1")) == sorted(AGENTS)
    new = [log.acquire(agent, "n2", ttl=TTL) for agent in AGENTS]
    assert [blobs(one) for one in fetch_all(log, new)] == [
        [f"{agent}: 1".encode()] for agent in AGENTS
    ]
    assert all(isinstance(one, Fenced) for one in fetch_all(log, old))
    assert log.owned("n1") == []


def test_many_are_released_at_once(log: InboxLog) -> None:
    owners = [log.acquire(agent, "n1", ttl=TTL) for agent in AGENTS]

    assert log.release_many(owners) == [None] * len(AGENTS)

    assert log.owned("n1") == []


def test_delayed_messages_come_in_every_partition(log: InboxLog) -> None:
    owners = [log.acquire(agent, "n1", ttl=TTL) for agent in AGENTS]
    log.send("p", [message(agent, 1)._replace(delay=0.001) for agent in AGENTS])

    moved = 0
    give_up = time.monotonic() + 5.0
    while moved < len(AGENTS) and time.monotonic() < give_up:
        moved += log.tick()[0]

    assert moved == len(AGENTS)
    assert all(len(one.items) == 1 for one in fetch_all(log, owners))


def test_a_master_that_is_killed_and_restarted_loses_nothing(
    start_cluster: Callable[[], Cluster],
) -> None:
    cluster = start_cluster()
    server = RedisServer(cluster.url)
    log = log_of(server)
    owners = [log.acquire(agent, "n1", ttl=TTL) for agent in AGENTS]
    log.send("p", [message(agent, 1) for agent in AGENTS])
    cluster.servers[0].kill()
    told = run_all(server.client, [(NOTHING, [tag], []) for tag in log.tags])
    assert len(told) == 64
    assert any(isinstance(one, Exception) for one in told)
    with pytest.raises(TransportUnavailable):
        log.send("p", [message(agent, 2) for agent in AGENTS])

    cluster.servers[0].start()

    assert _repeatedly(lambda: log.send("p", [message(one, 2) for one in AGENTS])) == (
        [OK] * len(AGENTS)
    )
    assert [blobs(one) for one in fetch_all(log, owners)] == [
        [f"{agent}: 1".encode(), f"{agent}: 2".encode()] for agent in AGENTS
    ]
    assert log.beat("n1", ttl=TTL) == []
    server.close()


def _repeatedly(send: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + 20.0
    while True:
        try:
            return send()
        except TransportUnavailable:
            assert time.monotonic() < give_up, "it did not heal"
