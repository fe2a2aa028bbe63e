from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, text

from actorbus.errors import AuditUnavailable
from actorbus.message import Status
from actorbus.persistence import migrations
from actorbus.persistence.audit import Audit
from actorbus.persistence.columns import id_encoder, instant_encoder
from actorbus.persistence.database import Database
from actorbus.persistence.models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    made = Database(empty_url)
    yield made
    made.close()


@contextmanager
def _transaction(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    with database.writing(connection):
        yield connection
    database.release(connection)


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {migrations.VERSION_TABLE}


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"version_table": migrations.VERSION_TABLE, "compare_type": True}
    )
    return list(compare_metadata(context, Base.metadata))


def _contents(database: Database) -> dict[str, list[Any]]:
    """All that a database holds, whoever's it is."""
    with _transaction(database) as connection:
        found = MetaData()
        found.reflect(connection)
        return {
            name: sorted(map(repr, connection.execute(table.select())))
            for name, table in found.tables.items()
        }


AS_THE_FIRST_SCHEMA_HAD_IT = """
INSERT INTO tenants (id, name, created_at) VALUES (:id, 'default', :at);
INSERT INTO projects (tenant_id, id, name, created_at) VALUES (:id, :id, 'default', :at);
INSERT INTO runs (tenant_id, id, project_id, name, status, started_at)
    VALUES (:id, :id, :id, 'run-1', 'running', :at);
INSERT INTO agent_runs (tenant_id, id, run_id, agent, node, status, started_at)
    VALUES (:id, :id, :id, 'bob', 'node-1', 'running', :at);
INSERT INTO agent_messages (tenant_id, id, project_id, node, run_id, kind, type, sender, recipient,
    priority, payload, correlation_id, hops, created_at, status, reason, error, attempt, ended_at)
    VALUES (:id, :id, :id, 'node-1', 'run-1', 'tell', 'str', 'alice', 'bob',
    2, '"hello"', :id, 0, :at, 'failed', 'handler-error', 'torn', 1, :at);
INSERT INTO message_events (tenant_id, id, message_id, node, status, attempt, ended_at)
    VALUES (:id, :id, :id, 'node-1', 'handled', 2, :at)
"""
"""A message that failed, and went well when it was tried again."""


def _fill(connection: Connection) -> None:
    dialect = connection.dialect.name
    values = {
        "id": id_encoder(dialect)(0x0199_0000_0000_7000_8000_0000_0000_0001),
        "at": instant_encoder(dialect)(1_767_225_600.0),
    }
    for statement in AS_THE_FIRST_SCHEMA_HAD_IT.split(";"):
        connection.execute(text(statement), values)


def test_the_models_equal_the_migrations(database: Database) -> None:
    with _transaction(database) as connection:
        migrations.upgrade(connection)

        assert _differences(connection) == []


def test_the_schema_goes_up_and_down_and_up_again(database: Database) -> None:
    with _transaction(database) as connection:
        migrations.upgrade(connection)
        up = _tables(connection)
        migrations.downgrade(connection)
        down = _tables(connection)
        migrations.upgrade(connection)

        assert up == _tables(connection) == set(Base.metadata.tables)
        assert _differences(connection) == []
    assert down == set()


@pytest.mark.parametrize("older", migrations.KNOWN[:-1])
def test_an_older_history_is_brought_up_to_date_with_all_it_holds(
    database: Database, older: str
) -> None:
    with _transaction(database) as connection:
        migrations.upgrade(connection, migrations.KNOWN[0])
        _fill(connection)
        migrations.upgrade(connection, older)

    database.upgrade()

    audit = Audit("sqlite://")
    audit._opened = database
    [message] = audit.messages(run="run-1")
    assert (message.payload, message.status, message.attempts) == ("hello", Status.HANDLED, 2)
    assert [one.error for one in message.deliveries] == ["torn", None]
    with _transaction(database) as connection:
        assert _differences(connection) == []


@pytest.mark.parametrize("older", migrations.KNOWN[:-1])
def test_a_step_back_keeps_what_the_older_schema_has_room_for(
    database: Database, older: str
) -> None:
    with _transaction(database) as connection:
        migrations.upgrade(connection, migrations.KNOWN[0])
        _fill(connection)
        migrations.upgrade(connection, older)
    before = _contents(database)

    with _transaction(database) as connection:
        migrations.upgrade(connection)
        migrations.downgrade(connection, older)

    assert _contents(database) == before


def test_a_migration_that_is_cut_short_leaves_nothing_behind(database: Database) -> None:
    connection = database.connect()
    transaction = connection.begin()
    migrations.upgrade(connection)

    transaction.rollback()

    assert inspect(connection).get_table_names() == []
    database.release(connection)


def test_the_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", "actorbus.persistence:migrations")

    script: Any = ScriptDirectory.from_config(config)

    assert script.get_heads() == [migrations.HEAD]
    assert [one.revision for one in script.walk_revisions()][::-1] == list(migrations.KNOWN)


def test_a_database_that_is_up_to_date_is_opened_without_changing_it(database: Database) -> None:
    database.upgrade()
    before = _contents(database)

    database.upgrade()

    assert before == _contents(database)
    assert before[migrations.VERSION_TABLE] == [f"('{migrations.HEAD}',)"]


def test_the_history_of_a_newer_actorbus_is_refused_and_left_as_it_is(database: Database) -> None:
    with _transaction(database) as connection:
        migrations.upgrade(connection)
        connection.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
        connection.execute(text("CREATE TABLE of_the_future (id INTEGER)"))
    before = _contents(database)

    with pytest.raises(AuditUnavailable, match=r"newer actorbus \(schema 9999.*upgrade actorbus"):
        database.upgrade()
    with (
        pytest.raises(AuditUnavailable, match="newer actorbus"),
        database.reading(),
    ):
        pass

    assert _contents(database) == before


def test_a_database_of_something_else_is_refused_and_left_as_it_is(database: Database) -> None:
    with _transaction(database) as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER)"))
        connection.execute(text("INSERT INTO orders VALUES (7)"))

    with pytest.raises(AuditUnavailable, match=r"something else \(tables orders\)"):
        database.upgrade()
    with (
        pytest.raises(AuditUnavailable, match="something else"),
        database.reading(),
    ):
        pass

    assert _contents(database) == {"orders": ["(7,)"]}
