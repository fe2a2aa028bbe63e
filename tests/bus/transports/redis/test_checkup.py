from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fakeredis
import pytest

from actorbus.bus.transports.redis.checkup import Verdict, check, examine, judge
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOOD = {
    "redis_version": "7.0.15",
    "role": "master",
    "maxmemory": 1 << 30,
    "maxmemory_human": "1.00G",
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "connected_slaves": 0,
}


@pytest.fixture
def real(redis_url: str) -> Iterator[RedisServer]:
    server = RedisServer(redis_url)
    yield server
    server.close()


def test_a_server_that_is_set_up_well_has_nothing_to_change() -> None:
    assert {one.verdict for one in judge(GOOD)} == {Verdict.OK}
    assert not any(one.change for one in judge(GOOD))


@pytest.mark.parametrize(
    ("told", "what", "verdict", "change"),
    [
        ({"redis_version": "6.0.16"}, "version", "refused", "6.2 or newer"),
        ({"role": "slave"}, "role", "refused", "the address of the primary"),
        ({"maxmemory_policy": "allkeys-lru"}, "memory limit", "refused", "noeviction"),
        ({"maxmemory": 0}, "memory limit", "warning", "set maxmemory"),
        ({"aof_enabled": 0}, "persistence", "warning", "appendonly yes"),
        ({"aof_last_write_status": "err"}, "persistence", "warning", "its disk"),
        ({"connected_slaves": 2}, "replicas", "warning", "min-replicas-to-write 1"),
        ({"min_slaves_good_slaves": 0}, "replicas", "warning", "stops every write"),
    ],
)
def test_what_is_set_up_badly_is_said_with_what_to_change(
    told: dict[str, Any], what: str, verdict: str, change: str
) -> None:
    (bad,) = [one for one in judge({**GOOD, **told}) if one.verdict is not Verdict.OK]

    assert (bad.what, bad.verdict) == (what, verdict)
    assert change in bad.change


def test_a_real_server_is_examined(real: RedisServer) -> None:
    findings = {one.what: one for one in examine(real)}

    assert findings["version"].verdict is Verdict.OK
    assert "ms" in findings["latency"].found


def test_a_server_that_drops_messages_is_refused(start_redis: Callable[..., Any]) -> None:
    process = start_redis("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru")
    server = RedisServer(process.url)

    with pytest.raises(TransportUnavailable, match=r"cannot carry a bus: .*noeviction"):
        check(server, namespace="actorbus", partitions=1)
    server.close()


def test_nodes_of_one_deployment_agree_on_its_layout(real: RedisServer) -> None:
    namespace = uuid4().hex
    check(real, namespace=namespace, partitions=4)
    check(real, namespace=namespace, partitions=4)

    with pytest.raises(TransportUnavailable, match="of 4 partitions, not 1"):
        check(real, namespace=namespace, partitions=1)
    real.client.hset(f"{{{namespace}.meta}}", "layout", "1")
    with pytest.raises(TransportUnavailable, match="layout 1, and this is layout 3"):
        check(real, namespace=namespace, partitions=4)
    real.client.delete(f"{{{namespace}.meta}}")


def test_a_server_that_does_not_tell_how_it_is_set_up_carries_a_bus_with_a_warning() -> None:
    fake = fakeredis.FakeServer()  # it knows no INFO, as a user who may not call it
    server = RedisServer("redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake))

    (untold,) = [one for one in examine(server) if one.what == "settings"]
    partitions = check(server, namespace="any")

    assert untold.verdict is Verdict.WARNING
    assert "INFO" in untold.change
    assert partitions == 1
