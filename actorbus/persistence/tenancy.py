"""Whose rows a transaction may touch, on PostgreSQL: row-level security.

Every question of ours names its tenant already. This makes the server hold the same against a
forgotten WHERE and against raw SQL. A transaction says whose it is, for as long as it lasts::

    SELECT set_config('actorbus.tenant', 'acme', true)

and from then on sees and changes nothing else; where nothing was said there is nothing to see.
``Database.of(tenant)`` says so in each transaction. The policies are forced, so they bind the
owner of the tables too; superusers and roles with BYPASSRLS they cannot bind, so let nodes
connect as neither. ``grants`` has the statements that make a role of their own for them.

Messages, their events and the acts upon them are append-only for everybody, superusers
included: a trigger refuses UPDATE, DELETE and TRUNCATE, aloud where a policy would only find no
rows. Retention and redaction are the exception, and say so for one transaction:
``retaining(connection)``.

A setting keeps out mistakes and foreign WHERE clauses, not somebody who may run any SQL as
that role. Against those: a role for each tenant, and retention by a role that nodes do not
have (``grants(role)`` gives no right to change history, ``retention=True`` does).

A migration that changes rows of all tenants first takes off what binds the owner:
ALTER TABLE ... NO FORCE ROW LEVEL SECURITY, and FORCE again after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from actorbus.persistence.migrations import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

HISTORY: Final = ("agent_messages", "message_events", "audit_acts")
"""What was said, and what was done to it: only retention and redaction change it."""

_SAY_WHOSE: Final = text("SELECT set_config('actorbus.tenant', :tenant, true)")
_SAY_RETENTION: Final = text("SELECT set_config('actorbus.retention', 'on', true)")

# Migrations run the statements below. Once released, a change to them needs a migration.

_TENANT: Final = "NULLIF(current_setting('actorbus.tenant', true), '')"
"""Its name; NULL, which equals nothing, where nobody said."""

APPEND_ONLY: Final = """
CREATE FUNCTION actorbus_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('actorbus.retention', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'history is append-only: % of % is for retention and redaction',
            TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$
"""


def enter(connection: Connection, tenant: str | None) -> None:
    """Until the transaction ends, see and change rows of this tenant only.

    SQLite knows no such thing; there our own questions alone keep tenants apart.
    """
    if tenant is not None and connection.dialect.name == "postgresql":
        connection.execute(_SAY_WHOSE, {"tenant": tenant})


def retaining(connection: Connection) -> None:
    """Until the transaction ends, history may be deleted and redacted."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SAY_RETENTION)


def protect(table: str) -> list[str]:
    """Statements that show a table's rows, by their ``tenant_id``, to their tenant only."""
    return _protect(table, f"tenant_id = (SELECT id FROM tenants WHERE name = {_TENANT})")  # noqa: S608 - constants


def protect_tenants() -> list[str]:
    """The same for the table of tenants."""
    return _protect("tenants", f"name = {_TENANT}")


def unprotect(table: str) -> list[str]:
    return [
        f"DROP POLICY tenant ON {table}",
        f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
    ]


def append_only(table: str) -> list[str]:
    """Statements that refuse every change but INSERT, outside of retention."""
    return [
        f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION actorbus_append_only()"
    ]


def grants(role: str, tables: Iterable[str], *, retention: bool = False) -> list[str]:
    """Statements that let a role do what nodes and readers do, for the owner to run.

    `tables` are those of the history, ``Base.metadata.tables``. Only with `retention` may the
    role change what was said.
    """
    quoted = '"' + role.replace('"', '""') + '"'
    statements = [f"GRANT SELECT ON {VERSION_TABLE} TO {quoted}"]
    for table in sorted(tables):
        may = "SELECT, INSERT"
        if retention or table not in HISTORY:
            may += ", UPDATE, DELETE"
        statements.append(f"GRANT {may} ON {table} TO {quoted}")
    return statements


def _protect(table: str, whose: str) -> list[str]:
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant ON {table} USING ({whose}) WITH CHECK ({whose})",
    ]
