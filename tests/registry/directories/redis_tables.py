"""Directories on a fake and on a real Redis, and how time passes for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fakeredis

from actorbus.codec import Codec, TypeBook
from actorbus.redis_client import RedisServer, encoded
from actorbus.registry.directories.redis import RedisDirectory

if TYPE_CHECKING:
    from collections.abc import Callable


class Tables:
    """Opens directories that share a namespace, each as a process of its own would."""

    def __init__(self, make_server: Callable[[], RedisServer]) -> None:
        self.namespace = uuid4().hex
        self.opened: list[RedisDirectory] = []
        self._make_server = make_server
        self._servers = [make_server()]

    @property
    def client(self) -> Any:
        return self._servers[0].client

    def key(self, name: str) -> str:
        return f"{{{encoded(self.namespace)}.reg}}:{name}"

    def open(self, **options: Any) -> RedisDirectory:
        server = self._make_server()
        self._servers.append(server)
        codec = Codec(TypeBook(), limit=1 << 20)
        directory = RedisDirectory(server, codec, **{"namespace": self.namespace, **options})
        self.opened.append(directory)
        return directory

    def pass_time(self, seconds: float) -> None:
        """Make everybody's last beat that much older, which is all that the table knows of time."""
        back = round(seconds * 1_000_000)
        for token, told in self.client.hgetall(self.key("nodes")).items():
            stamp, _, name = told.partition(b" ")
            self.client.hset(self.key("nodes"), token, b"%d %b" % (int(stamp) - back, name))
        latest = self.client.hget(self.key("meta"), "beat")
        if latest is not None:
            self.client.hset(self.key("meta"), "beat", int(latest) - back)

    def close(self) -> None:
        for directory in self.opened:
            directory.close()
        for server in self._servers:
            server.close()


def on_fake() -> Tables:
    fake = fakeredis.FakeServer()
    return Tables(
        lambda: RedisServer(
            "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
        )
    )


def on_real(url: str) -> Tables:
    return Tables(lambda: RedisServer(url))
