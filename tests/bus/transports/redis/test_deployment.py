from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.deployment import LAYOUT, check_in, key_of
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from tests.conftest import Cluster


@pytest.fixture
def namespace() -> str:
    return f"{{odd}} {uuid4().hex}"


def test_the_first_node_decides_and_the_others_are_told(
    server: RedisServer, namespace: str
) -> None:
    assert check_in(server, namespace, 4) == 4

    assert check_in(server, namespace, 4) == 4
    assert check_in(server, namespace) == 4


def test_a_single_server_has_one_partition(server: RedisServer, namespace: str) -> None:
    assert check_in(server, namespace) == 1


def test_a_cluster_has_64(redis_cluster: Cluster, namespace: str) -> None:
    server = RedisServer(redis_cluster.url)

    assert check_in(server, namespace) == 64
    server.close()


def test_another_number_of_partitions_is_refused_with_both(
    server: RedisServer, namespace: str
) -> None:
    check_in(server, namespace, 4)

    with pytest.raises(TransportUnavailable, match="of 4 partitions, not 1: every node"):
        check_in(server, namespace, 1)

    assert check_in(server, namespace) == 4


@pytest.mark.parametrize("layout", [LAYOUT + 1, LAYOUT - 1, "new"])
def test_another_layout_is_refused_with_both(
    server: RedisServer, namespace: str, layout: object
) -> None:
    check_in(server, namespace, 4)
    server.client.hset(key_of(namespace), "layout", str(layout))

    with pytest.raises(TransportUnavailable, match=f"layout {layout}, and this is layout {LAYOUT}"):
        check_in(server, namespace, 4)


@pytest.mark.parametrize("field", ["layout", "partitions"])
def test_what_somebody_else_left_there_is_refused_and_not_written_over(
    server: RedisServer, namespace: str, field: str
) -> None:
    server.client.hset(key_of(namespace), field, str(LAYOUT))

    with pytest.raises(TransportUnavailable, match=r"another namespace"):
        check_in(server, namespace)

    assert server.client.hgetall(key_of(namespace)) == {field.encode(): str(LAYOUT).encode()}


def test_deployments_on_one_server_do_not_meet(server: RedisServer, namespace: str) -> None:
    check_in(server, namespace, 4)

    assert check_in(server, f"{namespace}2", 8) == 8
