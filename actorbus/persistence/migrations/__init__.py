"""The schema's versions, and how a database gets to the newest.

Alembic is imported only when there is something to do: a database that is up to date is
opened by one query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD: Final = "0004"
"""The schema that this version of actorbus reads and writes."""

KNOWN: Final = ("0001", "0003", HEAD)
"""Every schema that can be brought to ``HEAD``, oldest first."""

VERSION_TABLE: Final = "actorbus_schema"

_LOCK: Final = 0x6163746F
"""Any number, the same in every process: two nodes must not build one schema at once."""


class ForeignSchema(Exception):
    """The database holds tables, and they are not ours. Its text names some of them."""


def version(connection: Connection) -> str | None:
    """The schema a database has; None if it is empty.

    Raises:
        ForeignSchema: it is somebody else's.
    """
    schema = inspect(connection)
    if schema.has_table(VERSION_TABLE):
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
        return None if found is None else str(found)
    if tables := schema.get_table_names():
        raise ForeignSchema(", ".join(sorted(tables)[:3]))
    return None


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the schema to a version, in the transaction that is open or will be."""
    from alembic import command

    _lock(connection)
    command.upgrade(_config(connection), to)


def downgrade(connection: Connection, to: str = "base") -> None:
    """Take the schema back to a version. What newer tables held is gone."""
    from alembic import command

    _lock(connection)
    command.downgrade(_config(connection), to)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "actorbus.persistence:migrations")
    config.attributes["connection"] = connection
    return config
