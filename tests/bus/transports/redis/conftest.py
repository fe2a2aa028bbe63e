from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fakeredis
import pytest

from actorbus.bus.transports.redis.log import InboxLog
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def asked(server: RedisServer, command: str, tag: str) -> Iterator[list[list[str]]]:
    """The words of each `command` on keys of `tag` meanwhile, by scripts too; at a real server."""
    client: Any = server.client
    found: list[list[str]] = []
    with client.monitor() as monitor:
        yield found
        client.echo("the end")
        while (words := monitor.next_command()["command"].split())[0] != "ECHO":
            if words[0] == command and tag in words[1]:
                found.append(words)


@pytest.fixture(params=["fakeredis", "real"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    if request.param == "fakeredis":
        fake = fakeredis.FakeServer()
        server = RedisServer(
            "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
        )
    else:
        server = RedisServer(request.getfixturevalue("redis_url"))
    yield server
    server.close()


@pytest.fixture
def make(server: RedisServer) -> Callable[..., InboxLog]:
    """Makes logs that all mean the same inboxes."""
    namespace = uuid4().hex

    def make(**options: int) -> InboxLog:
        return InboxLog(server, namespace=namespace, **options)

    return make


@pytest.fixture
def log(make: Callable[..., InboxLog]) -> InboxLog:
    return make()
