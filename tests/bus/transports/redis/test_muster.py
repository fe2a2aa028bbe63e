"""Nodes that start together hear of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.muster import Muster

if TYPE_CHECKING:
    from actorbus.redis_client import RedisServer


@pytest.fixture
def tag() -> str:
    return f"{{{uuid4().hex}}}"


def at(server: RedisServer, tag: str, node: str, seconds: float) -> None:
    """Have a node have mustered so many seconds after another that did, or before."""
    key = f"{tag}:muster:x"
    first: Any = server.client.zscore(key, "first")
    server.client.zadd(key, {node: first + seconds * 1_000})


def test_nodes_hear_of_those_that_start_within_the_time_of_them_in_one_order(
    server: RedisServer, tag: str
) -> None:
    first = Muster(server, tag, "first")
    assert first.peers("x", 1.0) == ["first"]
    at(server, tag, "a while ago", -1.5)
    at(server, tag, "before", -0.9)
    at(server, tag, "later", 0.9)
    at(server, tag, "much later", 1.5)

    assert first.peers("x", 1.0) == ["before", "first", "later"]
    assert Muster(server, tag, "later").peers("x", 1.0) == ["first", "later", "much later"]


def test_nodes_that_loaded_something_else_do_not_meet(server: RedisServer, tag: str) -> None:
    Muster(server, tag, "first").peers("x", 1.0)

    assert Muster(server, tag, "second").peers("y", 1.0) == ["second"]


def test_who_started_long_ago_is_forgotten_and_nothing_is_kept(
    server: RedisServer, tag: str
) -> None:
    first = Muster(server, tag, "first")
    first.peers("x", 1.0)
    at(server, tag, "an hour ago", -3_600.0)

    first.peers("x", 7_200.0)

    assert server.client.zrange(f"{tag}:muster:x", 0, -1) == [b"first"]
    assert 0 < server.client.ttl(f"{tag}:muster:x") <= 60
