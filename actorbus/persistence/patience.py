"""How long anybody waits for PostgreSQL's answer to one statement.

A server that is frozen keeps its connections open, and its host's kernel acknowledges what is
sent: no time-out of the server, of TCP or of libpq ever ends such a wait. So it ends here. The
connection is closed then, because an answer that comes later would be taken for the next one's.

A thread may also wait only for as long as somebody wants it to (``unless``), be it for an answer
or for a connection.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator

    from sqlalchemy import Engine

LONGEST: Final = 3_600.0
"""Seconds: a question about a large history, or a migration of one, may well take minutes."""


_over: Final[ContextVar[threading.Event | None]] = ContextVar("over", default=None)


class _Silent(Exception):
    """The server has not answered in time."""


@contextmanager
def unless(over: threading.Event) -> Iterator[None]:
    """Have this thread wait for no server once `over` is set; it notices within 0.1 s."""
    token = _over.set(over)
    try:
        yield
    finally:
        _over.reset(token)


def limit_waits(engine: Engine) -> None:
    """Have each of an engine's connections wait at most its ``patience``, in seconds."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: object, record: object, arguments: Any, options: Any) -> Any:
        return _impatient().connect(*arguments, **options)


@cache
def _impatient() -> type[Any]:
    import psycopg

    class Impatient(psycopg.Connection[Any]):
        patience = LONGEST

        @classmethod
        def _connect_gen(cls, *arguments: Any, **options: Any) -> Any:
            return _within(super()._connect_gen(*arguments, **options), LONGEST)

        @classmethod
        def connect(cls, *arguments: Any, **options: Any) -> Any:
            try:
                return super().connect(*arguments, **options)
            except _Silent:
                raise psycopg.OperationalError("the server has not answered yet") from None

        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return super().wait(_within(gen, self.patience), *arguments, **options)
            except _Silent:
                self.close()
                waited = "yet" if _given_up() else f"for {self.patience:.3g} s"
                raise psycopg.OperationalError(f"the server has not answered {waited}") from None

    return Impatient


def _within(steps: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """The same steps of psycopg's, which are asked now and then while nothing is ready."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and (time.monotonic() >= deadline or _given_up()):
                raise _Silent
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value
    finally:
        steps.close()


def _given_up() -> bool:
    over = _over.get()
    return over is not None and over.is_set()
