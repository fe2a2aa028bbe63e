"""Hearing that something may have come, over pub/sub: a hint, no more, whatever comes along."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable
from actorbus.redis_client import NOTHING, NoSocket, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    ) -> None:
        self._server = server
        self._channels = channels
        self._back = back
        self._rang = rang
        self._broke = broke
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
        pause = 0.0
        while not self._closing.is_set():
            try:
                with self._server.errors():
                    self._hear()
            except TransportUnavailable:
                self._broke()
                pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
                self._closing.wait(random.uniform(0, pause))
            else:
                pause = 0.0

    def _hear(self) -> None:
        """Until the connection breaks: it is asked for a sign of life every few seconds."""
        client: Any = self._server.subscriber()
        ear = client.pubsub(ignore_subscribe_messages=True)
        try:
            ear.subscribe(*self._channels())
            hear = _hearing(ear)
            self._back()
            heard, asked = time.monotonic(), False
            while not self._closing.is_set():
                rung = hear()
                if rung is not None:
                    self._rang(*rung)
                    heard, asked = time.monotonic(), False
                elif time.monotonic() - heard > _QUIET:
                    if asked:
                        raise TransportUnavailable(f"{self._server.shown} went silent")
                    ear.ping()
                    heard, asked = time.monotonic(), True
        finally:
            ear.close()
            client.close()


def _hearing(ear: Any) -> Callable[[], tuple[str | None, Any] | None]:
    """What hears the next bell or sign of life, or None after a second."""

    def plainly() -> tuple[str | None, Any] | None:
        said = wire.read(_SLEEP)
        if said is NOTHING or said[0] == b"subscribe":
            return None
        return (said[1].decode(), said[2]) if said[0] == b"message" else (None, said)

    def by_redis_py() -> tuple[str | None, Any] | None:
        rung = ear.get_message(timeout=_SLEEP)
        if rung is None:
            return None
        return rung["channel"].decode() if rung["type"] == "message" else None, rung["data"]

    try:
        wire = Wire(ear.connection)
    except NoSocket:
        return by_redis_py
    return plainly
