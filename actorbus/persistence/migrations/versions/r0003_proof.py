"""Hash chains, and what is done to history itself."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"

CHAINED = ("agent_messages", "message_events")
DIGESTS = ("payload_digest", "headers_digest")


def _id() -> Any:
    return sa.LargeBinary(16).with_variant(sa.Uuid(), "postgresql")


def _instant() -> Any:
    return sa.BigInteger().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    for table in CHAINED:
        op.add_column(table, sa.Column("chain", sa.Integer(), nullable=True))
        op.add_column(table, sa.Column("seq", sa.BigInteger(), nullable=True))
        op.add_column(table, sa.Column("hash", sa.LargeBinary(), nullable=True))
    for digest in DIGESTS:
        op.add_column("agent_messages", sa.Column(digest, sa.LargeBinary(), nullable=True))
    op.create_table(
        "chains",
        sa.Column("number", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("tenant_id", _id(), nullable=False),
        sa.Column("incarnation", _id(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("started_at", _instant(), nullable=False),
        sa.Column("previous", sa.Integer(), nullable=True),
        sa.Column("link_seq", sa.BigInteger(), nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.Column("anchors", sa.Text(), nullable=True),
        sa.Column("genesis", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_chains"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_chains_tenants"),
        sa.UniqueConstraint("tenant_id", "incarnation", name="uq_chains_tenant_id_incarnation"),
    )
    op.create_table(
        "audit_acts",
        sa.Column("tenant_id", _id(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", _instant(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("target_seq", sa.BigInteger(), nullable=True),
        sa.Column("target_hash", sa.LargeBinary(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("chain", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_audit_acts"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_audit_acts_tenants"),
    )
    op.create_index("ix_audit_acts_chain_seq", "audit_acts", ["chain", "seq"], unique=True)


def downgrade() -> None:
    op.drop_table("audit_acts")
    op.drop_table("chains")
    for digest in reversed(DIGESTS):
        op.drop_column("agent_messages", digest)
    for table in CHAINED:
        for column in ("hash", "seq", "chain"):
            op.drop_column(table, column)
