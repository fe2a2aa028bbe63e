"""Tenants, projects, runs, messages and their events."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

WENT_WRONG = "status NOT IN ('accepted', 'handled')"


def _id() -> Any:
    return sa.LargeBinary(16).with_variant(sa.Uuid(), "postgresql")


def _instant() -> Any:
    return sa.BigInteger().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def _document() -> Any:
    return sa.Text().with_variant(JSONB(), "postgresql")


def _index(table: str, *columns: str, where: str | None = None) -> None:
    op.create_index(
        f"ix_{table}_{'_'.join(columns)}",
        table,
        list(columns),
        sqlite_where=None if where is None else sa.text(where),
        postgresql_where=None if where is None else sa.text(where),
    )


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", _id(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", _instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("name", name="uq_tenants_name"),
    )
    op.create_table(
        "projects",
        sa.Column("tenant_id", _id(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", _instant(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_projects"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_projects_tenants", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("tenant_id", "name", name="uq_projects_tenant_id_name"),
    )
    op.create_table(
        "runs",
        sa.Column("tenant_id", _id(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("project_id", _id(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", _instant(), nullable=False),
        sa.Column("ended_at", _instant(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_runs"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["projects.tenant_id", "projects.id"],
            name="fk_runs_projects",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint(
            "tenant_id", "project_id", "name", name="uq_runs_tenant_id_project_id_name"
        ),
    )
    op.create_table(
        "agent_runs",
        sa.Column("tenant_id", _id(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("run_id", _id(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", _instant(), nullable=False),
        sa.Column("ended_at", _instant(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_agent_runs"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.id"],
            name="fk_agent_runs_runs",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint(
            "tenant_id", "run_id", "agent", name="uq_agent_runs_tenant_id_run_id_agent"
        ),
    )
    op.create_table(
        "agent_messages",
        sa.Column("tenant_id", _id(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("project_id", _id(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.Column("recipient", sa.Text(), nullable=True),
        sa.Column("topic", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("payload", _document(), nullable=False),
        sa.Column("headers", _document(), nullable=True),
        sa.Column("correlation_id", _id(), nullable=False),
        sa.Column("causation_id", _id(), nullable=True),
        sa.Column("hops", sa.Integer(), nullable=False),
        sa.Column("created_at", _instant(), nullable=False),
        sa.Column("deadline", _instant(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", _instant(), nullable=True),
        sa.Column("ended_at", _instant(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_agent_messages"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["projects.tenant_id", "projects.id"],
            name="fk_agent_messages_projects",
        ),
    )
    _index("agent_messages", "tenant_id", "correlation_id", "id")
    _index("agent_messages", "tenant_id", "sender", "id")
    _index("agent_messages", "tenant_id", "recipient", "id")
    _index("agent_messages", "tenant_id", "type", "id")
    _index("agent_messages", "tenant_id", "status", "id", where=WENT_WRONG)
    _index("agent_messages", "tenant_id", "run_id", "id", where="run_id IS NOT NULL")
    op.create_table(
        "message_events",
        sa.Column("tenant_id", _id(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("message_id", _id(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", _instant(), nullable=True),
        sa.Column("ended_at", _instant(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_message_events"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_message_events_tenants"),
    )
    _index("message_events", "tenant_id", "message_id")
    _index("message_events", "tenant_id", "recipient", "message_id", where="recipient IS NOT NULL")
    _index("message_events", "tenant_id", "status", "message_id", where=WENT_WRONG)


def downgrade() -> None:
    for table in ("message_events", "agent_messages", "agent_runs", "runs", "projects", "tenants"):
        op.drop_table(table)
