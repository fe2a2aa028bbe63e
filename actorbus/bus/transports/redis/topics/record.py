"""A node's record on the server: calls that are numbered, each done once, one after another."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.bus.transports.redis.ownership import Fenced
from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.topics.log import TopicLog

_WHATEVER: Final = -1


class Lost(Exception):
    """The server does not know the node's last call: it is to be told all anew."""


class Rewritten(Exception):
    """The log is not the one that was read; nothing was saved."""


class _Call(NamedTuple):
    what: str
    before: int
    this: int
    arguments: tuple[Any, ...]


class Record:
    """One incarnation of a node. Safe from any thread, one call at a time.

    A call whose answer did not come may have been done, or be done later: it is sent again
    before the next one, so that what the server keeps is never older than what it said.
    """

    def __init__(self, log: TopicLog, node: str) -> None:
        self._log = log
        self._node = node
        self._lock = threading.Lock()
        self._number = 0
        self._answered = 0
        self._open: _Call | None = None

    def call(self, what: str, *arguments: Any, anew: bool = False) -> tuple[str, ...]:
        """What the server says to it.

        Args:
            anew: do it whatever the server knows of the calls before.

        Raises:
            Lost, Rewritten: see there; nothing was done.
            Fenced: the agent that comes first in the arguments is another node's.
            TransportUnavailable: nobody knows whether it was done.
        """
        with self._lock:
            if self._open is not None:
                # What came of that one is nobody's any more, but for ``Lost``.
                with contextlib.suppress(Rewritten, Fenced):
                    self._settle(self._open)
            self._number += 1
            before = _WHATEVER if anew else self._answered
            self._open = _Call(what, before, self._number, arguments)
            return self._settle(self._open)

    def _settle(self, call: _Call) -> tuple[str, ...]:
        told = self._log.keep(call.what, self._node, call.before, call.this, *call.arguments)
        self._open = None
        match told.word:
            case "OK":
                self._answered = call.this
            case "LOST":
                raise Lost
            case "RESET":
                raise Rewritten
            case "FENCED":
                raise Fenced(str(call.arguments[0]))
            case _:
                raise TransportUnavailable(f"another process writes the record of {self._node!r}")
        return told.rest
