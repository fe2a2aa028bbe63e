from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from actorbus.message import Priority, Reason, Status
from actorbus.persistence.bulk import ArrayInsert, Insert, LeanInsert
from actorbus.persistence.models import AgentMessage, Base, Tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Table

_tenants: Table = Base.metadata.tables[Tenant.__tablename__]
_messages: Table = Base.metadata.tables[AgentMessage.__tablename__]
TENANT_COLUMNS = ("id", "name", "created_at")


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    engine = create_engine(postgres_url, paramstyle="format")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _tenants_of(connection: Connection, count: int) -> list[Any]:
    """Values of so many new tenants."""
    made = text("SELECT gen_random_uuid(), 'tenant ' || n, now() FROM generate_series(1, :n) n")
    return [value for row in connection.execute(made, {"n": count}) for value in row]


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 20])
def test_every_row_is_written_and_counted(connection: Connection, count: int) -> None:
    insert = ArrayInsert(_tenants, TENANT_COLUMNS, 7)
    values = _tenants_of(connection, count)

    assert insert.run(connection, values) == count

    assert connection.scalar(text("SELECT count(*) FROM tenants")) == count


def test_what_is_there_already_is_left_and_not_counted(connection: Connection) -> None:
    insert = ArrayInsert(_tenants, TENANT_COLUMNS, 7)
    values = _tenants_of(connection, 10)
    insert.run(connection, values[: 4 * 3])

    assert insert.run(connection, values) == 6


def test_rows_are_what_one_placeholder_a_value_would_have_made_them(
    postgres_url: str, history_at: Any, connection: Connection
) -> None:
    history = history_at(postgres_url)
    recorder = history.record()
    now = history.clock.now()
    for number, message in enumerate(
        [
            history.message({"deep": [1, 2.5, None, "{\"quoted\", 'text'} \\ NULL"]}),
            history.message("NULL", headers={"trace": "{}"}, priority=Priority.HIGH),
            history.message(None, sender=None, recipient=None, topic="prices.eur", deadline=now),
            history.message(b"bytes", run_id="run-1", causation_id=7, sender="", hops=3),
        ]
    ):
        recorder.sent(message)
        if number % 2:
            history.end(recorder, message, Status.DEAD, reason=Reason.EXPIRED, error='a,"b"')
    recorder.close(10)
    columns = [column.name for column in _messages.c]
    kept = connection.execute(_messages.select()).all()
    values = [
        _for_driver(value, name)
        for row in connection.execute(_raw())
        for name, value in zip(columns, row, strict=True)
    ]
    connection.execute(text("SELECT set_config('actorbus.retention', 'on', false)"))
    written = []

    for insert in (
        ArrayInsert(_messages, columns, 500),
        Insert("agent_messages", columns, "%s", 1),
    ):
        connection.execute(text("DELETE FROM agent_messages"))
        insert.run(connection, values)
        written.append(connection.execute(_messages.select()).all())

    assert written == [kept, kept]
    assert len(kept) == 4


def _raw() -> Any:
    return text(f"SELECT {', '.join(column.name for column in _messages.c)} FROM agent_messages")  # noqa: S608


def _for_driver(value: Any, name: str) -> Any:
    return json.dumps(value) if name == "payload" or (name == "headers" and value) else value


# -- SQLite


class Done(NamedTuple):
    rowcount: int


class Statements:
    """A connection that keeps what it is told."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.sizes: list[int] = []

    def exec_driver_sql(self, text: str, values: tuple[Any, ...]) -> Done:
        assert text.count("(?, ?)") * 2 == len(values)
        self.sizes.append(len(values) // 2)
        self.written.extend(values)
        return Done(len(values) // 2)


@given(rows=st.integers(0, 300), most=st.integers(1, 64))
def test_every_row_is_written_once_in_order_by_few_statements(rows: int, most: int) -> None:
    connection: Any = Statements()
    values = list(range(rows * 2))

    new = Insert("t", ("a", "b"), "?", most).run(connection, values)

    assert new == rows
    assert connection.written == values
    assert all(size <= most for size in connection.sizes)
    assert len(connection.sizes) <= rows // most + most.bit_length()


def test_a_statement_keeps_below_the_limit_of_parameters() -> None:
    insert = Insert("t", tuple("abcdefghij"), "?", most=1_000_000)

    assert insert.most * 10 <= 32_766


_COLUMNS = ("tenant", "a", "node", "b", "c", "d")
_value = st.none() | st.integers(0, 9) | st.text("x'?%", max_size=3)


@pytest.mark.parametrize("node", ["node-1", "it's; -- ?", "naïve\n", ""])
@settings(deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(_value, _value, _value, _value), max_size=20),
        max_size=6,
    ),
    most=st.integers(1, 4),
)
def test_rows_are_the_same_whatever_the_statement_says_by_itself(
    node: str, batches: list[list[tuple[Any, ...]]], most: int
) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    expected = [(b"\0\xff", a, node, *rest) for batch in batches for a, *rest in batch]

    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE TABLE t ({', '.join(_COLUMNS)})")
        insert = LeanInsert(
            "t", _COLUMNS, "?", most, constants={"tenant": b"\0\xff", "node": node, "other": 1}
        )
        new = 0
        for batch in batches:
            new += insert.run(
                connection, [value for a, *rest in batch for value in (b"\0\xff", a, node, *rest)]
            )
        kept = connection.exec_driver_sql("SELECT * FROM t ORDER BY rowid").all()
    engine.dispose()

    assert kept == expected
    assert new == len(expected)


def test_what_all_rows_share_is_not_bound() -> None:
    connection: Any = Bound()
    insert = LeanInsert("t", ("a", "b", "c"), "?", 2, constants={"a": 7})

    insert.run(connection, [7, None, 1, 7, None, 2])
    insert.run(connection, [7, None, 3, 7, 4, 5])
    insert.run(connection, [7, None, 6, 7, None, 7])

    # What was not empty once is bound until the columns are looked at anew.
    assert connection.bound == [(1, 2), (None, 3, 4, 5), (None, 6, None, 7)]


class Bound:
    def __init__(self) -> None:
        self.bound: list[tuple[Any, ...]] = []

    def exec_driver_sql(self, text: str, values: tuple[Any, ...]) -> Done:
        self.bound.append(values)
        return Done(2)
