"""A master and its replica, watched by three real sentinels."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.connection import SSLConnection
from redis.sentinel import SentinelManagedSSLConnection

from actorbus.bus.transports.redis.loads import Outgoing, Sent, Taken
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.ownership import START
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import Access, RedisServer, Script, run_all, scripts
from tests.conftest import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import RedisProcess, Watched

SET = Script("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")
COUNT = 50
ANN = Access(username="ann", password=SecretStr("s3cret"))


def test_a_server_that_is_no_sentinel_is_said_to_be_none(
    start_redis: Callable[..., RedisProcess],
) -> None:
    (port,) = free_ports(1)
    start_redis(port=port)
    server = RedisServer(f"redis+sentinel://127.0.0.1:{port}/main")

    with pytest.raises(TransportUnavailable, match=r"use a scheme without \+sentinel"):
        server.version()


@pytest.mark.parametrize("password", [None, SecretStr("wr0ng")])
def test_sentinels_that_want_a_password_are_said_to(
    start_redis: Callable[..., RedisProcess], password: SecretStr | None
) -> None:
    (port,) = free_ports(1)
    with Redis.from_url(start_redis(port=port).url) as client:
        client.config_set("requirepass", "s3cret")
    access = Access(sentinel_password=password)
    server = RedisServer(f"redis+sentinel://127.0.0.1:{port}/main", access=access)

    with pytest.raises(TransportUnavailable, match="ACTORBUS_REDIS_SENTINEL_PASSWORD") as raised:
        server.version()

    assert "wr0ng" not in str(raised.value)
    server.close()


def test_a_failover_loses_nothing_that_the_replica_had(
    start_watched: Callable[[], Watched],
) -> None:
    watched = start_watched()
    for process in watched.servers:
        _admit_ann(process)
    server = RedisServer(watched.url, access=ANN)
    log = InboxLog(server)
    owner = log.acquire("counter", "n1", ttl=60.0)
    before = [message(number) for number in range(1, COUNT + 1)]
    log.send("p", before)
    assert server.client.wait(1, 5_000) == 1

    watched.servers[0].kill()
    after = [message(number) for number in range(COUNT, 2 * COUNT + 1)]
    sent = _repeatedly(lambda: log.send("p", after))

    assert sent == [Sent(Taken.OK)] * (COUNT + 1)
    found = log.fetch(owner, START, count=1_000).items
    assert [item.blob for item in found] == [one.blob for one in (*before, *after[1:])]
    assert server.client.info()["tcp_port"] == watched.servers[1].port
    assert server.client.acl_whoami() == "ann"
    server.close()


class TestAMasterThatWasDemoted:
    """One server stands for both: it is a replica first, and the master once somebody waits."""

    @pytest.fixture
    def process(self, start_redis: Callable[..., RedisProcess]) -> RedisProcess:
        return start_redis()

    @pytest.fixture
    def server(
        self, process: RedisProcess, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[RedisServer]:
        with Redis.from_url(process.url) as client:
            client.replicaof("127.0.0.1", 1)
        _pause_is(monkeypatch, lambda _: _promote(process))
        server = RedisServer(process.url)
        yield server
        server.close()

    def test_a_script_is_repeated_at_the_new_one(self, server: RedisServer) -> None:
        assert SET(server.client, ["k"], ["v"]) == b"v"

    def test_so_are_many(self, server: RedisServer) -> None:
        found = run_all(server.client, [(SET, [f"k{number}"], [number]) for number in range(3)])

        assert found == [b"0", b"1", b"2"]

    def test_its_connections_are_let_go_of(self, server: RedisServer) -> None:
        first = server.client.client_id()

        SET(server.client, ["k"], ["v"])

        assert server.client.client_id() != first

    def test_one_that_stays_so_is_said(
        self, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []
        _pause_is(monkeypatch, pauses.append)

        with pytest.raises(TransportUnavailable, match="it is a replica"), server.errors():
            SET(server.client, ["k"], ["v"])

        assert 0 < sum(pauses) < 1.0


def test_no_sentinel_at_all_is_one_sentence() -> None:
    server = RedisServer("redis+sentinel://ann:s3cret@127.0.0.1:1,127.0.0.1:2/main/0")

    with (
        pytest.raises(TransportUnavailable, match="no sentinel that answered") as raised,
        server.errors(),
    ):
        server.client.ping()

    assert "s3cret" not in str(raised.value)
    assert "127.0.0.1:1 - " in str(raised.value)
    assert "127.0.0.1:2 - " in str(raised.value)
    assert "Connection(" not in str(raised.value)
    server.close()


def test_master_and_sentinels_are_spoken_to_over_tls(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    access = Access(
        ca=str(tmp_path / "ca.pem"),
        password=SecretStr("s3cret"),
        sentinel_password=SecretStr("an0ther"),
    )
    server = RedisServer("rediss+sentinel://h1,h2/main", access=access)

    pool: Any = server.client.connection_pool
    sentinel = pool.sentinel_manager.sentinels[0].connection_pool

    assert pool.connection_class is SentinelManagedSSLConnection
    assert sentinel.connection_class is SSLConnection
    for options, password in (
        (pool.connection_kwargs, "s3cret"),
        (sentinel.connection_kwargs, "an0ther"),
    ):
        assert options["password"] == password
        assert options["ssl_ca_certs"] == access.ca
        assert options["ssl_check_hostname"] is True
    server.close()


def message(sequence: int) -> Outgoing:
    return Outgoing("counter", sequence, 2, sequence.to_bytes(16, "big"), str(sequence).encode())


def _admit_ann(process: RedisProcess) -> None:
    with Redis.from_url(process.url) as client:
        rights: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"]}
        client.acl_setuser("ann", enabled=True, passwords=["+s3cret"], **rights)


def _pause_is(monkeypatch: pytest.MonkeyPatch, pause: Callable[[float], object]) -> None:
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=pause)
    monkeypatch.setattr(scripts, "time", clock)


def _promote(process: RedisProcess) -> None:
    with Redis.from_url(process.url) as client:
        client.replicaof("NO", "ONE")


def _repeatedly(send: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + 20.0
    while True:
        try:
            return send()
        except TransportUnavailable:
            assert time.monotonic() < give_up, "no failover"
