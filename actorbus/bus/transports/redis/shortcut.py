"""The short way out: what somebody waits for is written by whoever sends it.

One message at a time, and nobody wakes to hear what became of it: that is read later, by
whoever sends the next one, or by the outbox, which looks every few milliseconds. It is a short
cut and no more: whatever goes wrong with it goes the long way, under the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.transports.redis.loads import shipped
from actorbus.bus.transports.redis.log import NO_RING
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.bus.transports.redis.loads import Load, Shipped
    from actorbus.bus.transports.redis.log import InboxLog, Ring
    from actorbus.redis_client import Line

_LARGEST: Final = 16_384
"""Bytes that fit the buffers of any kernel."""
_ANSWERED_WITHIN: Final = 2.5


class Shortcut:
    """Sends for one producer. Not for several threads at once."""

    def __init__(
        self, log: InboxLog, producer: str, *, create: bool, monotonic: Callable[[], float]
    ) -> None:
        self._log = log
        self._producer = producer
        self._create = create
        self._now = monotonic
        self._dial = log.dial()
        self._load: Load | None = None
        self.wanted = False
        """Whether it is closed, and somebody would have used it."""
        self.since = 0.0
        """When something was last sent."""

    @property
    def busy(self) -> bool:
        """Whether it is not known what became of the last one."""
        return self._load is not None

    def open(self) -> None:
        """Takes round trips."""
        self.wanted = False
        self._dial.open()

    def send(self, load: Load, along: Sequence[Ring] = ()) -> bool:
        """Send one message, and ring what goes `along`. False: not this way, not now."""
        line = self._dial.line
        if line is None:
            self.wanted = self._dial.may_be_had
            return False
        if len(load) != 1 or _size(load) > _LARGEST:
            return False
        ring, *others = along or (NO_RING,)
        shipping = self._log.shipping(self._producer, load, create=self._create, ring=ring)
        commands = [("PUBLISH", *other) for other in others]
        if not line.send_all([*commands, tuple(shipping)]):
            self._dial.hang_up()
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
        self._load = None
        self._dial.hang_up()

    def _read(self, read: Callable[[Line], Any]) -> Shipped | None:
        line, load = self._dial.line, self._load
        try:
            if line is None or load is None:
                raise TransportUnavailable("nothing was sent this way")
            while isinstance(answer := read(line), int):
                pass  # how many heard what went along
            if answer is None:
                return None
            if not isinstance(answer, list):
                # The script is not known there, the server is none of ours any more: the long
                # way knows what to do.
                raise TransportUnavailable(str(answer))
        except TransportUnavailable:
            self.close()
            raise
        self._load = None
        return shipped(load, answer[0])


def _size(load: Load) -> int:
    return len(load.items[0]) if load.items else len(load.timed[0].item)
