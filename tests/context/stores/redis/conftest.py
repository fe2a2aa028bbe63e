from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin

from actorbus.codec import Codec, TypeBook
from actorbus.context.stores.redis import RedisStore
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1024 * 1024


class FakeTime:
    """What a fake server takes for the time: it stands, until it is turned."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(server_mixin, "time", SimpleNamespace(time=fake.time))
    return fake


def fake_server(fake: fakeredis.FakeServer) -> RedisServer:
    """One program's side of a fake Redis."""
    return RedisServer(
        "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
    )


class OpenStore(Protocol):
    def __call__(self, **options: Any) -> RedisStore: ...


def opener(server: RedisServer, opened: list[RedisStore]) -> OpenStore:
    """Opens stores that all mean the same namespaces, each as a program of its own would."""
    namespace = uuid4().hex

    def open_one(**options: Any) -> RedisStore:
        codec = Codec(TypeBook(), limit=LIMIT)
        store = RedisStore(server, codec, **{"namespace": namespace, **options})
        opened.append(store)
        return store

    return open_one


@pytest.fixture
def opened() -> Iterator[list[RedisStore]]:
    """The stores of a test, closed after it."""
    stores: list[RedisStore] = []
    yield stores
    for store in stores:
        store.close()


@pytest.fixture(params=["fakeredis", "real"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    if request.param == "fakeredis":
        server = fake_server(fakeredis.FakeServer())
    else:
        server = RedisServer(request.getfixturevalue("redis_url"))
    yield server
    server.close()


@pytest.fixture
def open_store(server: RedisServer, opened: list[RedisStore]) -> OpenStore:
    return opener(server, opened)


@pytest.fixture
def deployment() -> str:
    """A namespace that no other test has, on a server that many share."""
    return uuid4().hex


@pytest.fixture
def real_server(redis_url: str) -> Iterator[RedisServer]:
    server = RedisServer(redis_url)
    yield server
    server.close()


@pytest.fixture
def store(open_store: OpenStore) -> RedisStore:
    return open_store()
