"""The contract of stores, on a fake server whose time is turned, and on a real one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fakeredis
import pytest

from actorbus.codec import Codec, TypeBook
from actorbus.context.stores.redis import RedisStore
from actorbus.testing.store_contract import StoreContract

from .conftest import LIMIT, FakeTime, fake_server

if TYPE_CHECKING:
    from actorbus.context.store import Store
    from actorbus.redis_client import RedisServer


class _OnRedis(StoreContract):
    @pytest.fixture(autouse=True)
    def closing(self, opened: list[RedisStore]) -> None:
        self.opened = opened
        self.namespace = uuid4().hex

    def on(self, server: RedisServer, history: int, log: int) -> Store:
        store = RedisStore(
            server,
            Codec(TypeBook(), limit=LIMIT),
            namespace=self.namespace,
            history=history,
            log=log,
        )
        self.opened.append(store)
        return store


class TestOnFakeRedis(_OnRedis):
    @pytest.fixture(autouse=True)
    def turned(self, fake_time: FakeTime) -> None:
        self.time = fake_time

    def open(self, *, history: int = 100, log: int = 10_000) -> Store:
        return self.on(fake_server(fakeredis.FakeServer()), history, log)

    def advance(self, seconds: float) -> None:
        self.time.now += seconds


class TestOnRealRedis(_OnRedis):
    @pytest.fixture(autouse=True)
    def connected(self, real_server: RedisServer) -> None:
        self.server = real_server

    def open(self, *, history: int = 100, log: int = 10_000) -> Store:
        return self.on(self.server, history, log)

    def advance(self, seconds: float) -> None:
        """Bring nearer what is due: nobody turns the clock of a server."""
        client = self.server.client
        for due in client.scan_iter(f"{{{self.namespace}.p0}}:x*due", count=10_000):
            members: Any = client.zrange(due, 0, -1)
            for member in members:
                client.zincrby(due, -seconds * 1_000_000, member)
        before = client.time()
        while client.time() == before:
            time.sleep(0)


del _OnRedis
