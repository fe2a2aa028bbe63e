"""Hearing that something may have come, over pub/sub: a hint, no more, whatever comes along."""

from __future__ import annotations

import random
import select
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorbus.bus.transports.redis.ear import Ear
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import NOTHING, NoSocket, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actorbus.redis_client import RedisServer

_SLEEP: Final = 1.0
"""Seconds after which it looks whether it is to end."""
_QUIET: Final = 2.0
"""Seconds without a bell after which it asks for a sign of life, and then waits as long."""
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


class Doorbell:
    """Hears some channels on a thread of its own, again after whatever breaks.

    Args:
        channels: names them, each time that it begins to hear.
        back: called when it hears (again): what rang before that was not heard.
        rang: called with channel and data of what came; no channel: a sign of life.
        broke: called when it cannot hear any more, and each time that it still cannot.
        answers: what begins so is an answer if it holds the id of a request. With it, others may
            hear what comes in place of this thread.
    """

    def __init__(
        self,
        server: RedisServer,
        name: str,
        *,
        channels: Callable[[], Sequence[str]],
        back: Callable[[], object],
        rang: Callable[[str | None, Any], object],
        broke: Callable[[], object] = lambda: None,
        answers: bytes | None = None,
    ) -> None:
        self._server = server
        self._channels = channels
        self._back = back
        self._rang = rang
        self._broke = broke
        self._answers = answers or b""
        self.ear: Ear | None = None
        """For those who may hear what comes, where that can be had."""
        if answers is not None and hasattr(select, "epoll"):
            self.ear = Ear(self._hear_of, self._is_answer)
        self._pause = 0.0
        """Seconds that it waited before it began to hear again."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def silence(self) -> None:
        """Hear no more once this has rung once more, or a second later."""
        self._closing.set()

    def join(self, timeout: float) -> None:
        """Wait until it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with self._server.errors():
                    self._hear()
            except TransportUnavailable:
                self._broke()
                self._pause = min(max(_FIRST_PAUSE, 2 * self._pause), _LONGEST_PAUSE)
                self._closing.wait(random.uniform(0, self._pause))

    def _hear(self) -> None:
        """Until the connection breaks: it is asked for a sign of life every few seconds."""
        client: Any = self._server.subscriber()
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        try:
            pubsub.subscribe(*self._channels())
            with self._source(pubsub) as source:
                began = source.heard_at
                self._back()
                try:
                    self._hear_all(pubsub, source)
                finally:
                    if source.heard_at > began:
                        self._pause = 0.0
        finally:
            pubsub.close()
            client.close()

    def _hear_all(self, pubsub: Any, source: _Source) -> None:
        asked_at = 0.0
        while not self._closing.is_set():
            said = source.next(_SLEEP)
            if said is not NOTHING:
                self._hear_of(said)
            elif time.monotonic() - max(source.heard_at, asked_at) > _QUIET:
                if asked_at > source.heard_at:
                    raise TransportUnavailable(f"{self._server.shown} went silent")
                asked_at = time.monotonic()
                pubsub.ping()

    @contextmanager
    def _source(self, pubsub: Any) -> Iterator[_Source]:
        try:
            wire = Wire(pubsub.connection)
        except NoSocket:
            yield _ByRedisPy(pubsub)
            return
        if self.ear is None:
            yield _Plainly(wire)
            return
        self.ear.open(wire)
        try:
            yield self.ear
        finally:
            self.ear.close()

    def _hear_of(self, said: Any) -> None:
        if said[0] == b"message":
            self._rang(said[1].decode(), said[2])
        elif said[0] != b"subscribe":
            self._rang(None, said)

    def _is_answer(self, said: Any, request: bytes) -> bool:
        if said[0] != b"message":
            return False
        what = said[2]
        return what.startswith(self._answers) and request in what


class _Source(Protocol):
    """Where what is said comes from."""

    @property
    def heard_at(self) -> float:
        """When something was said last, on our monotonic clock."""

    def next(self, seconds: float) -> Any:
        """What is said next, after at most so many seconds, else ``NOTHING``."""


class _Plainly:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.heard_at = time.monotonic()

    def next(self, seconds: float) -> Any:
        said = self._wire.read(seconds)
        if said is not NOTHING:
            self.heard_at = time.monotonic()
        return said


class _ByRedisPy:
    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub
        self.heard_at = time.monotonic()

    def next(self, seconds: float) -> Any:
        said = self._pubsub.get_message(timeout=seconds)
        if said is None:
            return NOTHING
        self.heard_at = time.monotonic()
        return said["type"].encode(), said["channel"], said["data"]
