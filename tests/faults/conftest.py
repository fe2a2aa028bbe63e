"""What the fault tests share: a proxy between clients and a server that fails as it is told."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.faults.deployment import DURABLE, Deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Proxy:
    """Forwards bytes, and fails as it is told.

    Attributes:
        lose: the part of answers for which it cuts the connection instead, after the command
            has run.
        tear: the part of all there is to forward of which it forwards some, and then cuts.
        deaf: answers go nowhere, and the connection stays.
        mute: so do requests.
        bells_only: only connections that have subscribed to something are deaf.
        away: there is no way through.
    """

    def __init__(self, path: Path, server: str, *, seed: int = 0) -> None:
        self.url = f"unix://{path}"
        self.lose = 0.0
        self.tear = 0.0
        self.deaf = self.mute = self.bells_only = self.away = False
        self.lost = 0
        """How many connections it has cut by `lose` and `tear`."""
        self.bells: dict[int, float | None] = {}
        """Connections that have subscribed, and when they ended."""
        self._server = server.removeprefix("unix://")
        self._random = random.Random(seed)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._made = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many there are."""
        with self._lock:
            return len(self._open) // 2

    def cut(self) -> None:
        """Break every connection there is."""
        with self._lock:
            found, self._open = self._open, set()
        for one in found:
            _close(one)

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                if self.away:
                    raise ConnectionRefusedError
                server.connect(self._server)
            except OSError:
                client.close()
                server.close()
                continue
            self._made += 1
            made = self._made
            with self._lock:
                self._open |= {client, server}
            for source, target, answers in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._forward, args=(made, source, target, answers), daemon=True
                ).start()

    def _forward(
        self, made: int, source: socket.socket, target: socket.socket, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not answers and b"SUBSCRIBE" in data:
                    self.bells.setdefault(made, None)
                if self._is_swallowed(made, answers):
                    continue
                if answers and self._random.random() < self.lose:
                    self.lost += 1
                    break
                if self._random.random() < self.tear:
                    self.lost += 1
                    target.sendall(data[: self._random.randrange(len(data))])
                    break
                target.sendall(data)
        if made in self.bells:
            self.bells[made] = self.bells[made] or time.monotonic()
        for one in (source, target):
            with self._lock:
                self._open.discard(one)
            _close(one)

    def _is_swallowed(self, made: int, answers: bool) -> bool:
        if not answers:
            return self.mute
        return self.deaf and (made in self.bells or not self.bells_only)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@pytest.fixture
def make_proxy(tmp_path: Path) -> Iterator[Callable[[str], Proxy]]:
    """Makes proxies to servers by their URLs, which are unix sockets."""
    made: list[Proxy] = []

    def make(url: str) -> Proxy:
        made.append(Proxy(tmp_path / f"proxy-{len(made)}.sock", url))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def redis(start_redis: Callable[..., Any]) -> Any:
    """A server that keeps what it has, to be killed."""
    return start_redis(*DURABLE)


@pytest.fixture
def deploy(
    tmp_path: Path, request: pytest.FixtureRequest, results: list[Result]
) -> Iterator[Callable[[str], Deployment]]:
    """Makes a deployment on the server of a URL. What its faults cost is shown in the end."""
    made: list[Deployment] = []

    def make(url: str) -> Deployment:
        made.append(Deployment(tmp_path, url))
        return made[-1]

    try:
        yield make
        name = request.node.name.removeprefix("test_").replace("_", " ")
        results += [Result.of(name, one) for one in made]
    finally:
        for one in made:
            one.close()


@pytest.fixture
def deployment(deploy: Callable[[str], Deployment], redis: Any) -> Deployment:
    return deploy(redis.url)


class Result(NamedTuple):
    """What a fault cost."""

    fault: str
    ran: int
    lost: int
    again: int
    order: int
    recovered: float | None = None
    """Seconds until every agent had run again."""

    @classmethod
    def of(cls, fault: str, deployment: Deployment) -> Result:
        return cls(
            fault,
            len({one.message for one in deployment.ran()}),
            len(deployment.lost()),
            sum(deployment.repeats().values()),
            deployment.out_of_order(),
            deployment.recovery,
        )

    def __str__(self) -> str:
        seconds = "" if self.recovered is None else f"{self.recovered:.1f} s"
        return (
            f"{self.fault:<78} {self.ran:>8,} {self.lost:>5,} {self.again:>6,} {self.order:>6,}"
            f" {seconds:>12}"
        )


_RESULTS: pytest.StashKey[list[Result]] = pytest.StashKey()


@pytest.fixture
def results(request: pytest.FixtureRequest) -> list[Result]:
    """What the table at the end of a run shows."""
    return request.config.stash.setdefault(_RESULTS, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(_RESULTS, [])
    if found:
        terminalreporter.section("what the faults cost")
        terminalreporter.line(
            f"{'fault':<78} {'ran':>8} {'lost':>5} {'again':>6} {'order':>6} {'recovered in':>12}"
        )
        for one in found:
            terminalreporter.line(str(one))
