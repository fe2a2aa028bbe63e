"""The socket of one of redis-py's connections, read and written with less ado.

redis-py asks the kernel eight times for one message of pub/sub, and waits for what it writes;
on a way that somebody waits at both ends of, that is a third of the time.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

_READ: Final = 65_536
NOTHING: Final[Any] = object()
"""What is not there yet."""


class NoSocket(Exception):
    """There is nothing that could be read or written without redis-py."""


class Wire:
    """Not for several threads at once. What it raises leaves the connection to be closed.

    Args:
        connection: one that is connected, and that was told nothing which is not answered yet.
            redis-py must read no more from it.

    Raises:
        NoSocket: nor will another one have any: over TLS, on fakeredis, without hiredis, on
            systems without ``poll``.
    """

    def __init__(self, connection: Any) -> None:
        found = getattr(connection, "_sock", None)
        try:
            from hiredis import Reader, pack_command
        except ImportError:
            found = None
        if type(found) is not socket.socket or not hasattr(select, "poll"):
            raise NoSocket
        found.setblocking(False)
        self._socket = found
        self._reader = Reader(notEnoughData=NOTHING)
        self._pack = pack_command
        self._poller = select.poll()
        self._poller.register(found, select.POLLIN)

    def write(self, commands: Iterable[tuple[Any, ...]]) -> None:
        """Write some commands, without waiting.

        Raises:
            TransportUnavailable: not all of it was taken at once.
        """
        data = b"".join(map(self._pack, commands))
        try:
            taken = self._socket.send(data)
        except OSError as error:
            raise TransportUnavailable(str(error)) from None
        if taken < len(data):
            raise TransportUnavailable("more than the socket takes")

    def fileno(self) -> int:
        return self._socket.fileno()

    def read_all(self) -> list[Any]:
        """What is said, up to 64 KiB of it that were not read, without waiting. Errors as above.

        Raises:
            TransportUnavailable: there will be no more.
        """
        said = []
        self._take()
        while (one := self._reader.gets()) is not NOTHING:
            said.append(one)
        return said

    def read(self, seconds: float = 0.0) -> Any:
        """The next thing said, after at most so many seconds, else ``NOTHING``.

        Errors of the server are returned.

        Raises:
            TransportUnavailable: there will be no more.
        """
        said = self._reader.gets()
        while said is NOTHING:
            if seconds and not self._poller.poll(seconds * 1_000):
                return NOTHING
            if not self._take():
                return NOTHING
            said = self._reader.gets()
        return said

    def _take(self) -> bool:
        """Have the reader know what has arrived. False: nothing has."""
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return False
        except OSError as error:
            raise TransportUnavailable(str(error)) from None
        if not data:
            raise TransportUnavailable("closed by the server")
        self._reader.feed(data)
        return True
