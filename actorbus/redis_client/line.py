"""A connection on which commands are sent now, and their answers are read later."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable
from actorbus.redis_client.scripts import run_all
from actorbus.redis_client.wire import NOTHING, NoSocket, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.redis_client.scripts import Call
    from actorbus.redis_client.server import RedisServer

_ANSWERED_WITHIN: Final = 2.5
_MOST: Final = 64
"""Scripts whose calls fit what the kernel takes at once."""
_REST: Final = 1.0


class Unanswered(TransportUnavailable):
    """The server is there, and has not answered in time."""


class Line:
    """Nothing here waits but ``wait``. Not for several threads at once.

    It tries nothing twice: what fails closes it, and nobody knows which commands ran.

    Args:
        pool: redis-py's, that a connection is taken from.

    Raises:
        NoSocket: this is no server that one can be had to.
        redis.RedisError: the server does not answer.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection = pool.get_connection()
        try:
            self._wire = Wire(self._connection)
        except NoSocket:
            self.close()
            raise

    def send(self, *words: Any) -> bool:
        """Send a command that the kernel takes at once. False: the line is closed now."""
        return self.send_all([words])

    def send_all(self, commands: Sequence[tuple[Any, ...]]) -> bool:
        """``send`` some commands, which have an answer each."""
        if self._connection is None:
            return False
        try:
            self._wire.write(commands)
        except TransportUnavailable:
            self.close()
            return False
        return True

    def look(self) -> Any:
        """The next answer, an error of the server's too; None if it is not there yet.

        Raises:
            TransportUnavailable: it will not come; the line is closed.
        """
        return self._answer(0.0)

    def wait(self, seconds: float) -> Any:
        """The next answer, an error of the server's too.

        Raises:
            TransportUnavailable: as ``look``, or because nothing came in time.
        """
        answer = self._answer(seconds)
        if answer is None:
            self.close()
            raise Unanswered(f"no answer within {seconds:g} s")
        return answer

    def close(self) -> None:
        """Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)

    def _answer(self, seconds: float) -> Any:
        if self._connection is None:
            raise TransportUnavailable("the line is closed")
        try:
            said = self._wire.read(seconds)
        except TransportUnavailable:
            self.close()
            raise
        return None if said is NOTHING else said


class Dial:
    """A line that is opened when it is wanted, and again some time after it was lost.

    Where there can be none, that is found out once.
    """

    def __init__(
        self, server: RedisServer, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._now = monotonic
        self._rests_until = 0.0
        self.line: Line | None = None

    @property
    def may_be_had(self) -> bool:
        """Whether ``open`` would try."""
        return self.line is None and self._now() >= self._rests_until

    def open(self) -> Line | None:
        """Takes round trips, if it is not open; None if it cannot be, now."""
        if self.may_be_had:
            self._rests_until = self._now() + _REST
            try:
                self.line = self._server.line()
            except NoSocket:
                self._rests_until = float("inf")
            except TransportUnavailable:
                return None
        return self.line

    def hang_up(self) -> None:
        line, self.line = self.line, None
        if line is not None:
            line.close()


class _Once:
    """Calls `what` the first time that it is called."""

    def __init__(self, what: Callable[[], object]) -> None:
        self._what: Callable[[], object] | None = what

    def __call__(self) -> None:
        what, self._what = self._what, None
        if what is not None:
            what()


class Express:
    """``run_all`` in less time, where a line may be had. Safe from any thread.

    What goes wrong runs again as redis-py does it: all scripts may run twice.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._dial = Dial(server)
        self._taken = threading.Lock()

    def run_all(
        self, calls: Sequence[Call], meanwhile: Callable[[], object] = lambda: None
    ) -> list[Any]:
        """`meanwhile` is called once, whatever happens: while the scripts are under way on a line
        that is open, else before anything that may take long. What it raises comes out of here.

        Raises:
            redis.RedisError: as ``run_all`` does.
            TransportUnavailable: no answer within 2.5 s.
        """
        once = _Once(meanwhile)
        try:
            if len(calls) <= _MOST and self._taken.acquire(blocking=False):
                try:
                    answers = self._ask(calls, once)
                finally:
                    self._taken.release()
                if answers is not None:
                    return answers
        finally:
            once()
        return run_all(self._server.client, calls)

    def close(self) -> None:
        with self._taken:
            self._dial.hang_up()

    def _ask(self, calls: Sequence[Call], meanwhile: Callable[[], object]) -> list[Any] | None:
        self._server.check_process()
        if self._dial.may_be_had:
            meanwhile()
        line = self._dial.open()
        if line is None:
            return None
        commands = [
            ("EVALSHA", script.digest, len(keys), *keys, *arguments)
            for script, keys, arguments in calls
        ]
        if not line.send_all(commands):
            self._dial.hang_up()
            return None
        try:
            meanwhile()
        except BaseException:
            self._dial.hang_up()  # whose answers come next, nobody knows
            raise
        try:
            answers = [line.wait(_ANSWERED_WITHIN) for _ in commands]
        except Unanswered:
            self._dial.hang_up()
            raise TransportUnavailable(f"{self._server.shown}: no answer in time") from None
        except TransportUnavailable:
            self._dial.hang_up()
            return None
        except BaseException:
            self._dial.hang_up()
            raise
        if any(isinstance(answer, Exception) for answer in answers):
            self._dial.hang_up()  # the server may be none of ours any more
            return None
        return answers
