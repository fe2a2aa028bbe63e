"""On PostgreSQL every tenant sees its own rows only, and history is append-only."""

from __future__ import annotations

from alembic import op

from actorbus.persistence import tenancy

revision = "0004"
down_revision = "0003"

HISTORY = ("agent_messages", "message_events", "audit_acts")
OF_A_TENANT = ("projects", "runs", "agent_runs", "chains", *HISTORY)


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    statements = [*tenancy.protect_tenants(), tenancy.APPEND_ONLY]
    for table in OF_A_TENANT:
        statements += tenancy.protect(table)
    for table in HISTORY:
        statements += tenancy.append_only(table)
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for table in HISTORY:
        op.execute(f"DROP TRIGGER append_only ON {table}")
    for table in ("tenants", *OF_A_TENANT):
        for statement in tenancy.unprotect(table):
            op.execute(statement)
    op.execute("DROP FUNCTION actorbus_append_only")
