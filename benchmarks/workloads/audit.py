"""audit: what message history costs the sender, and how many messages a second it can keep.

The raw cases write the same kind of row with nothing round it, 500 a transaction: into a plain
table of 12 columns with a primary key and three indexes, and into ours, with the columns, types
and indexes that its migrations made. WAL, ``synchronous=NORMAL``; on PostgreSQL, where there is
one, each commit waits for the disk, as it does by default. So does each of ``strict``.
"""

from __future__ import annotations

import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, thread_time, time
from typing import TYPE_CHECKING, Any, Final

from benchmarks import postgresql
from benchmarks.receivers import Countdown, Payload, payload
from benchmarks.workload import Case, Goal, Metric, Sample, Workload, everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection

_N = 200_000
_N_POSTGRESQL = 50_000
_N_STRICT = 8_000
_SENDERS = 8
_BATCH = 500
_SHARE_WITH_ROOM = 4
"""A quarter of the messages fits in the recorder's ring: the sender never waits for the writer."""

RATE = Metric("rate", "messages/s")
SENDER = Metric("sender", "us a message")
CPU = Metric("cpu", "us a message")

_OFF: Final = "actorbus, no audit"
_ON: Final = "actorbus, audit"
_ON_POSTGRESQL: Final = "actorbus, PostgreSQL"
_OUR_TABLE: Final = "Core, our table"
_OUR_TABLE_ON_POSTGRESQL: Final = "Core, our table, PostgreSQL"

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


_OUR_VALUES: Final[dict[str, Any]] = {
    "node": "node-1",
    "kind": "tell",
    "type": "dict",
    "sender": "scout",
    "priority": 2,
    "payload": '{"id": 1, "kind": "work", "value": 0.5}',
    "hops": 0,
    "status": "handled",
    "attempt": 1,
    "chain": 1,
    "hash": b"0" * 32,
}
"""What all messages of a batch share; columns that are named nowhere are NULL."""


@dataclass(frozen=True, slots=True)
class Table:
    """Where a raw case writes: names, and the row of each number as the driver takes it."""

    name: str
    columns: tuple[str, ...]
    row: Callable[[int], tuple[Any, ...]]

    def batches(self, n: int) -> Iterator[list[tuple[Any, ...]]]:
        for first in range(0, n, _BATCH):
            yield [self.row(number) for number in range(first, min(first + _BATCH, n))]

    def insert(self, placeholder: str) -> str:
        marks = ", ".join([placeholder] * len(self.columns))
        return f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})"  # noqa: S608


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


_PLAIN: Final = Table("messages", _COLUMNS, _row)


def our_table(url: str) -> Table:
    """History's own table in a new database, made by the migrations."""
    from actorbus.message import IdSource, MessageId
    from actorbus.persistence.columns import id_encoder, instant_encoder
    from actorbus.persistence.database import Database
    from actorbus.persistence.models import AgentMessage
    from actorbus.persistence.rows import project_key

    with closing(Database(url)) as database:
        database.upgrade()
        with closing(database.connect()) as connection, connection.begin():
            keys = project_key(connection, "default", "default", ids=IdSource(), now=time())
            dialect = connection.dialect.name
    to_id, moment = id_encoder(dialect), instant_encoder(dialect)
    tenant, project = map(to_id, keys)
    columns = tuple(AgentMessage.__table__.c.keys())

    def row(number: int) -> tuple[Any, ...]:
        made, at = to_id(MessageId(_FIRST_ID + number)), moment(time())
        own = {
            "tenant_id": tenant,
            "id": made,
            "project_id": project,
            "recipient": f"surveyor-{number % 8}",
            "correlation_id": made,
            "created_at": at,
            "started_at": at,
            "ended_at": at,
            "seq": number + 1,
        }
        return tuple(own.get(name, _OUR_VALUES.get(name)) for name in columns)

    return Table(AgentMessage.__tablename__, columns, row)


def write_with_sqlite3(n: int) -> Sample:
    with _database() as path:
        return _write_with_sqlite3(path, _PLAIN, _schema(), n)


def write_with_sqlite3_to_our_table(n: int) -> Sample:
    with _database() as path:
        return _write_with_sqlite3(path, our_table(f"sqlite:///{path}"), (), n)


def _write_with_sqlite3(path: Path, table: Table, schema: Iterable[str], n: int) -> Sample:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (*_PRAGMAS, *schema):
            connection.execute(statement)
        insert = table.insert("?")

        def write(batch: list[tuple[Any, ...]]) -> None:
            connection.execute("BEGIN")
            connection.executemany(insert, batch)
            connection.execute("COMMIT")

        return _clock_writes(write, table, n)


def write_with_sqlalchemy_core(n: int) -> Sample:
    with _database() as path:
        return _write_with_core(f"sqlite:///{path}", _PLAIN, (*_PRAGMAS, *_schema()), n)


def write_with_sqlalchemy_core_to_our_table(n: int) -> Sample:
    with _database() as path:
        url = f"sqlite:///{path}"
        return _write_with_core(url, our_table(url), _PRAGMAS, n)


def _write_with_core(url: str, table: Table, statements: Iterable[str], n: int) -> Sample:
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
        sample = _clock_writes(_core_writer(connection, table), table, n)
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
            insert = _PLAIN.insert("%s")

            def write(batch: list[tuple[Any, ...]]) -> None:
                with connection.cursor() as cursor:
                    cursor.executemany(insert.encode(), batch)
                connection.commit()

            return _clock_writes(write, _PLAIN, n)


def write_with_sqlalchemy_core_to_postgresql(n: int) -> Sample:
    with postgresql.database() as url:
        return _write_with_core(url, _PLAIN, _schema("bytea", "text"), n)


def write_with_sqlalchemy_core_to_our_table_on_postgresql(n: int) -> Sample:
    with postgresql.database() as url:
        return _write_with_core(url, our_table(url), (), n)


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


def tell_strictly_from_one(n: int) -> Sample:
    with _database() as path:
        return _tell_strictly(n, 1, f"sqlite:///{path}")


def tell_strictly_from_eight(n: int) -> Sample:
    with _database() as path:
        return _tell_strictly(n, _SENDERS, f"sqlite:///{path}")


def tell_strictly_on_postgresql(n: int) -> Sample:
    with postgresql.database() as url:
        return _tell_strictly(n, _SENDERS, url)


def _tell_strictly(n: int, senders: int, url: str) -> Sample:
    """Tell `n` messages from so many threads; each waits until its record is committed."""
    from actorbus import Agent, Node, handles
    from actorbus.persistence.audit import Audit

    each = n // senders
    countdown = Countdown(each * senders)

    class Counter(Agent):
        @handles
        def take(self, job: Payload) -> None:
            countdown.count()

    with Node(audit=Audit(url, strict=True)) as node, ThreadPoolExecutor(senders) as threads:
        ref = node.spawn(Counter)

        def tell(first: int) -> None:
            for number in range(first, first + each):
                ref.tell(payload(number))

        start = perf_counter()
        list(threads.map(tell, range(0, each * senders, each)))
        countdown.wait()
        seconds = perf_counter() - start
    return {RATE.name: each * senders / seconds}


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


def _core_writer(connection: Connection, table: Table) -> Callable[[list[tuple[Any, ...]]], None]:
    import sqlalchemy as sa

    columns = table.columns
    insert = sa.insert(sa.table(table.name, *map(sa.column, columns)))

    def write(batch: list[tuple[Any, ...]]) -> None:
        connection.execute(insert, [dict(zip(columns, row, strict=True)) for row in batch])
        connection.commit()

    return write


def _clock_writes(write: Callable[[list[tuple[Any, ...]]], None], table: Table, n: int) -> Sample:
    """Only the time of writing rows is taken, not that of making them."""
    seconds = 0.0
    for batch in table.batches(n):
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
    Case(
        _OUR_TABLE_ON_POSTGRESQL,
        write_with_sqlalchemy_core_to_our_table_on_postgresql,
        _N_POSTGRESQL,
    ),
    Case(_ON_POSTGRESQL, tell_with_audit_on_postgresql, _N_POSTGRESQL),
    Case("actorbus, strict, PostgreSQL", tell_strictly_on_postgresql, _N_STRICT),
)

WORKLOAD = Workload(
    name="audit",
    clock="tells until all are handled and on disk; the sender's own time while the ring has room",
    metrics=(RATE, SENDER, CPU),
    cases=(
        Case("sqlite3", write_with_sqlite3, _N),
        Case("SQLAlchemy Core", write_with_sqlalchemy_core, _N),
        Case("sqlite3, our table", write_with_sqlite3_to_our_table, _N),
        Case(_OUR_TABLE, write_with_sqlalchemy_core_to_our_table, _N),
        Case(_OFF, tell_without_audit, _N),
        Case(_ON, tell_with_audit, _N),
        Case("actorbus, strict, 1 sender", tell_strictly_from_one, _N_STRICT),
        Case("actorbus, strict, 8 senders", tell_strictly_from_eight, _N_STRICT),
        *(_ON_A_SERVER if postgresql.at_hand() else ()),
    ),
    baseline="SQLAlchemy Core",
    goals=(
        Goal(_ON, SENDER, must=everywhere(3.0), aim=everywhere(1.0), minus=_OFF, at_most=True),
        Goal(_ON, RATE, must=everywhere(50_000)),
        Goal(_ON, RATE, aim=everywhere(0.9), over="SQLAlchemy Core"),
        Goal(_ON, RATE, aim=everywhere(0.9), over=_OUR_TABLE),
        *(
            [Goal(_ON_POSTGRESQL, RATE, aim=everywhere(0.9), over=_OUR_TABLE_ON_POSTGRESQL)]
            if postgresql.at_hand()
            else []
        ),
    ),
)
