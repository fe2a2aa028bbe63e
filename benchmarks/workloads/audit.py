"""audit: what message history costs the sender, and how many messages a second it can keep.

The raw cases write the same kind of row into the same kind of table with nothing round it: 12
columns, a primary key and three indexes, WAL, ``synchronous=NORMAL``, 500 rows a transaction.
On PostgreSQL, where there is one, each commit waits for the disk, as it does by default.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time, thread_time, time
from typing import TYPE_CHECKING, Any, Final

from benchmarks import postgresql
from benchmarks.receivers import Countdown, Payload, payload
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

_N = 200_000
_N_POSTGRESQL = 50_000
_BATCH = 500
_SHARE_WITH_ROOM = 4
"""A quarter of the messages fits in the recorder's ring: the sender never waits for the writer."""

RATE = Metric("rate", "messages/s")
SENDER = Metric("sender", "us a message")
CPU = Metric("cpu", "us a message")

_OFF: Final = "actorbus, no audit"
_ON: Final = "actorbus, audit"
_ON_POSTGRESQL: Final = "actorbus, PostgreSQL"

_COLUMNS: Final = (
    "id",
    "tenant",
    "kind",
    "type",
    "sender",
    "recipient",
    "priority",
    "created_at",
    "correlation_id",
    "status",
    "digest",
    "body",
)
_FIRST_ID: Final = 0x0199_0000_0000_7000_8000_0000_0000_0000
"""Ids rise, as those of messages do: random ones would cost the index several times more."""
_INDEXED: Final = ("correlation_id", "recipient", "created_at")
_PRAGMAS: Final = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL")


def rows(n: int) -> Iterator[list[tuple[Any, ...]]]:
    """Batches of rows as long as a message's; only the time of writing them is taken."""
    for first in range(0, n, _BATCH):
        yield [_row(number) for number in range(first, min(first + _BATCH, n))]


def _row(number: int) -> tuple[Any, ...]:
    message_id = (_FIRST_ID + number).to_bytes(16, "big")
    return (
        message_id,
        "default",
        "tell",
        "dict",
        "scout",
        f"surveyor-{number % 8}",
        2,
        time(),
        message_id,
        "handled",
        "0" * 64,
        '{"id": 1, "kind": "work", "value": 0.5}',
    )


def write_with_sqlite3(n: int) -> Sample:
    with _database() as path:
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in (*_PRAGMAS, *_schema()):
            connection.execute(statement)
        insert = f"INSERT INTO messages VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608

        def write(batch: list[tuple[Any, ...]]) -> None:
            connection.execute("BEGIN")
            connection.executemany(insert, batch)
            connection.execute("COMMIT")

        sample = _clock_writes(write, n)
        connection.close()
        return sample


def write_with_sqlalchemy_core(n: int) -> Sample:
    import sqlalchemy as sa

    with _database() as path:
        engine = sa.create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            for statement in (*_PRAGMAS, *_schema()):
                connection.exec_driver_sql(statement)
            connection.commit()
            sample = _clock_writes(_core_writer(connection), n)
        engine.dispose()
        return sample


def write_with_psycopg(n: int) -> Sample:
    import psycopg
    from sqlalchemy import make_url

    with postgresql.database() as url:
        server = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(server) as connection:
            for statement in _schema("bytea", "text"):
                connection.execute(statement.encode())
            connection.commit()
            insert = f"INSERT INTO messages VALUES ({', '.join(['%s'] * len(_COLUMNS))})"  # noqa: S608

            def write(batch: list[tuple[Any, ...]]) -> None:
                with connection.cursor() as cursor:
                    cursor.executemany(insert.encode(), batch)
                connection.commit()

            return _clock_writes(write, n)


def write_with_sqlalchemy_core_to_postgresql(n: int) -> Sample:
    import sqlalchemy as sa

    with postgresql.database() as url:
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            for statement in _schema("bytea", "text"):
                connection.exec_driver_sql(statement)
            connection.commit()
            sample = _clock_writes(_core_writer(connection), n)
        engine.dispose()
        return sample


def tell_with_audit_on_postgresql(n: int) -> Sample:
    with postgresql.database() as url:
        with_room = _tell_all(n // _SHARE_WITH_ROOM, url)
    with postgresql.database() as url:
        sustained = _tell_all(n, url)
    return {**sustained, SENDER.name: with_room[SENDER.name]}


def tell_without_audit(n: int) -> Sample:
    return {**_tell_all(n, None), SENDER.name: _tell_all(n // _SHARE_WITH_ROOM, None)[SENDER.name]}


def tell_with_audit(n: int) -> Sample:
    with _database() as path:
        with_room = _tell_all(n // _SHARE_WITH_ROOM, f"sqlite:///{path}")
    with _database() as path:
        sustained = _tell_all(n, f"sqlite:///{path}")
        _check_all_are_kept(path, n)
    return {**sustained, SENDER.name: with_room[SENDER.name]}


def _tell_all(n: int, audit: str | None) -> Sample:
    """Tell `n` messages and leave the node, which ends once the last of them is on disk."""
    from actorbus import Agent, Node, handles

    countdown = Countdown(n)

    class Counter(Agent):
        @handles
        def take(self, job: Payload) -> None:
            countdown.count()

    node = Node(audit=audit)
    with node:
        ref = node.spawn(Counter)
        start, start_of_process, start_of_sender = perf_counter(), process_time(), thread_time()
        for number in range(n):
            ref.tell(payload(number))
        sender = thread_time() - start_of_sender
        countdown.wait()
    seconds, process = perf_counter() - start, process_time() - start_of_process
    return {
        RATE.name: n / seconds,
        SENDER.name: sender / n * 1e6,
        CPU.name: process / n * 1e6,
    }


def _core_writer(connection: Connection) -> Callable[[list[tuple[Any, ...]]], None]:
    import sqlalchemy as sa

    insert = sa.insert(sa.table("messages", *map(sa.column, _COLUMNS)))

    def write(batch: list[tuple[Any, ...]]) -> None:
        connection.execute(insert, [dict(zip(_COLUMNS, row, strict=True)) for row in batch])
        connection.commit()

    return write


def _clock_writes(write: Callable[[list[tuple[Any, ...]]], None], n: int) -> Sample:
    seconds = 0.0
    for batch in rows(n):
        start = perf_counter()
        write(batch)
        seconds += perf_counter() - start
    return {RATE.name: n / seconds}


def _check_all_are_kept(path: Path, n: int) -> None:
    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    counts = [connection.execute(f'SELECT count(*) FROM "{name}"') for (name,) in tables]  # noqa: S608
    kept = max(count.fetchone()[0] for count in counts)
    connection.close()
    assert kept >= n, f"history holds {kept} of {n} messages"


def _schema(binary: str = "", text: str = "") -> Iterator[str]:
    """The table; SQLite needs no types."""
    types = dict.fromkeys(_COLUMNS, text) | {"id": binary, "correlation_id": binary}
    if text:
        types |= {"priority": "int", "created_at": "double precision", "body": "jsonb"}
    columns = ", ".join(f"{name} {types[name]} NOT NULL" for name in _COLUMNS)
    yield f"CREATE TABLE messages ({columns}, PRIMARY KEY (id))"
    for name in _INDEXED:
        yield f"CREATE INDEX by_{name} ON messages ({name})"


@contextmanager
def _database() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="actorbus-bench-") as folder:
        yield Path(folder) / "history.db"


_ON_A_SERVER: Final = (
    Case("psycopg", write_with_psycopg, _N_POSTGRESQL),
    Case("Core, PostgreSQL", write_with_sqlalchemy_core_to_postgresql, _N_POSTGRESQL),
    Case(_ON_POSTGRESQL, tell_with_audit_on_postgresql, _N_POSTGRESQL),
)

WORKLOAD = Workload(
    name="audit",
    clock="tells until all are handled and on disk; the sender's own time while the ring has room",
    metrics=(RATE, SENDER, CPU),
    cases=(
        Case("sqlite3", write_with_sqlite3, _N),
        Case("SQLAlchemy Core", write_with_sqlalchemy_core, _N),
        Case(_OFF, tell_without_audit, _N),
        Case(_ON, tell_with_audit, _N),
        *(_ON_A_SERVER if postgresql.at_hand() else ()),
    ),
    baseline="SQLAlchemy Core",
    goals=(
        Goal(_ON, SENDER, must=everywhere(3.0), aim=everywhere(1.0), minus=_OFF, at_most=True),
        Goal(_ON, RATE, must=everywhere(50_000)),
        Goal(_ON, RATE, aim=everywhere(0.9), over="SQLAlchemy Core"),
    ),
)
