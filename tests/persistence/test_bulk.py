from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from actorbus.message import Priority, Reason, Status
from actorbus.persistence.bulk import ArrayInsert
from actorbus.persistence.models import AgentMessage, Base, Tenant
from actorbus.persistence.rows import Insert

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
