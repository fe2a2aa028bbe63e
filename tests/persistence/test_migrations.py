from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from actorbus.persistence import migrations
from actorbus.persistence.database import Database
from actorbus.persistence.models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


@pytest.fixture
def connection(empty_url: str) -> Iterator[Connection]:
    database = Database(empty_url)
    connection = database.connect()
    yield connection
    connection.close()
    database.close()


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {migrations.VERSION_TABLE}


def test_the_models_equal_the_migrations(connection: Connection) -> None:
    with connection.begin():
        migrations.upgrade(connection)

    context = MigrationContext.configure(
        connection, opts={"version_table": migrations.VERSION_TABLE, "compare_type": True}
    )
    assert compare_metadata(context, Base.metadata) == []


def test_the_schema_goes_up_and_down_and_up_again(connection: Connection) -> None:
    with connection.begin():
        migrations.upgrade(connection)
        up = _tables(connection)
        migrations.downgrade(connection)
        down = _tables(connection)
        migrations.upgrade(connection)

    assert up == _tables(connection) == set(Base.metadata.tables)
    assert down == set()


def test_a_migration_that_is_cut_short_leaves_nothing_behind(connection: Connection) -> None:
    transaction = connection.begin()
    migrations.upgrade(connection)

    transaction.rollback()

    assert inspect(connection).get_table_names() == []


def test_the_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", "actorbus.persistence:migrations")

    script: Any = ScriptDirectory.from_config(config)

    assert script.get_heads() == [migrations.HEAD]
    assert {one.revision for one in script.walk_revisions()} == set(migrations.KNOWN)


def test_a_database_that_is_up_to_date_is_opened_without_changing_it(url: str) -> None:
    database = Database(url)
    database.upgrade()
    with database.reading() as connection:
        before = migrations.version(connection)

    database.upgrade()

    with database.reading() as connection:
        assert migrations.version(connection) == before == migrations.HEAD
    database.close()
