"""A connection on which one command is sent now, and its answer is read later."""

from __future__ import annotations

from typing import Any

from actorbus.errors import TransportUnavailable
from actorbus.redis_client.wire import NOTHING, Wire


class Line:
    """One command at a time. Nothing here waits but ``wait``. Not for several threads at once.

    It tries nothing twice: what fails closes it, and nobody knows whether the command ran.

    Args:
        pool: redis-py's, that a connection is taken from.

    Raises:
        TransportUnavailable: none can be had that is written to without waiting.
        redis.RedisError: the server does not answer.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection = pool.get_connection()
        try:
            self._wire = Wire(self._connection)
        except TransportUnavailable:
            self.close()
            raise

    def send(self, *words: Any) -> bool:
        """Send a command that the kernel takes at once. False: the line is closed now."""
        try:
            self._wire.write(*words)
        except TransportUnavailable:
            self.close()
            return False
        return True

    def look(self) -> Any:
        """The answer, an error of the server's too; None if it is not there yet.

        Raises:
            TransportUnavailable: it will not come; the line is closed.
        """
        return self._answer(0.0)

    def wait(self, seconds: float) -> Any:
        """The answer, an error of the server's too.

        Raises:
            TransportUnavailable: as ``look``, or because nothing came in time.
        """
        answer = self._answer(seconds)
        if answer is None:
            self.close()
            raise TransportUnavailable(f"no answer within {seconds:g} s")
        return answer

    def close(self) -> None:
        """Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)

    def _answer(self, seconds: float) -> Any:
        try:
            said = self._wire.read(seconds)
        except TransportUnavailable:
            self.close()
            raise
        return None if said is NOTHING else said
