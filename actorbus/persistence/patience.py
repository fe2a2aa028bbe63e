"""How long anybody waits for PostgreSQL's answer to one statement.

A server that is frozen keeps its connections open, and its host's kernel acknowledges what is
sent: no time-out of the server, of TCP or of libpq ever ends such a wait. So it ends here. The
connection is closed then, because an answer that comes later would be taken for the next one's.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Engine

LONGEST: Final = 3_600.0
"""Seconds: a question about a large history, or a migration of one, may well take minutes."""


class _Silent(Exception):
    """The server has not answered in time."""


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

        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return super().wait(_within(gen, self.patience), *arguments, **options)
            except _Silent:
                self.close()
                raise psycopg.OperationalError(
                    f"the server has not answered for {self.patience:.3g} s"
                ) from None

    return Impatient


def _within(steps: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """The same steps of psycopg's, which are asked now and then while nothing is ready."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= deadline:
                raise _Silent
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value
