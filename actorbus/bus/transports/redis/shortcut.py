"""The short way out: what somebody waits for is written by whoever sends it.

One message at a time, and nobody wakes to hear what became of it: that is read later, by
whoever sends the next one, or by the outbox, which looks every few milliseconds. It is a short
cut and no more: whatever goes wrong with it goes the long way, under the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.transports.redis.log import shipped
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.transports.redis.log import InboxLog, Load, Shipped
    from actorbus.redis_client import Line

_LARGEST: Final = 16_384
"""Bytes that fit the buffers of any kernel."""
_ANSWERED_WITHIN: Final = 2.5
_REST: Final = 1.0
"""Seconds after which it is opened again, if it could not be or was lost."""


class Shortcut:
    """Sends for one producer. Not for several threads at once."""

    def __init__(
        self, log: InboxLog, producer: str, *, create: bool, monotonic: Callable[[], float]
    ) -> None:
        self._log = log
        self._producer = producer
        self._create = create
        self._now = monotonic
        self._line: Line | None = None
        self._load: Load | None = None
        self._rests_until = 0.0
        self.wanted = False
        """Whether it is closed, and somebody would have used it."""
        self.since = 0.0
        """When something was last sent."""

    @property
    def busy(self) -> bool:
        """Whether it is not known what became of the last one."""
        return self._load is not None

    def open(self) -> None:
        """Takes round trips. What cannot be opened rests for a while."""
        self.wanted = False
        now = self._now()
        if self._line is not None or now < self._rests_until:
            return
        self._rests_until = now + _REST
        try:
            self._line = self._log.line()
        except TransportUnavailable:
            return

    def send(self, load: Load) -> bool:
        """Send one message. False: not this way, not now."""
        line = self._line
        if line is None:
            self.wanted = self._now() >= self._rests_until
            return False
        if len(load) != 1 or _size(load) > _LARGEST:
            return False
        if not line.send(*self._log.shipping(self._producer, load, create=self._create)):
            self._line = None
            return False
        self._load = load
        self.since = self._now()
        return True

    def look(self) -> Shipped | None:
        """What became of it; None if that is not known yet.

        Raises:
            TransportUnavailable: nobody will know. It is to go again, another way.
        """
        return self._read(lambda line: line.look())

    def wait(self) -> Shipped | None:
        """The same, but not None.

        Raises:
            TransportUnavailable: as for ``look``.
        """
        return self._read(lambda line: line.wait(_ANSWERED_WITHIN))

    def close(self) -> None:
        line, self._line, self._load = self._line, None, None
        if line is not None:
            line.close()

    def _read(self, read: Callable[[Line], Any]) -> Shipped | None:
        line, load = self._line, self._load
        if line is None or load is None:
            raise TransportUnavailable("nothing was sent this way")
        try:
            answer = read(line)
        except TransportUnavailable:
            self._line = self._load = None
            raise
        if answer is None:
            return None
        self._load = None
        if not isinstance(answer, list):
            # The script is not known there, the server is none of ours any more: the long way
            # knows what to do.
            self.close()
            raise TransportUnavailable(str(answer))
        return shipped(load, answer[0])


def _size(load: Load) -> int:
    return len(load.items[0]) if load.items else len(load.timed[0].item)
