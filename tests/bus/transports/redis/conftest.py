from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import fakeredis
import pytest

from actorbus.bus.transports.redis.log import InboxLog
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
