"""The tables of message history: ``Tenant`` -> ``Project`` -> ``Run`` -> ``AgentRun``, and what
was said.

Nothing that was said is ever changed. An ``AgentMessage`` is written once, with its outcome if
that was known by then; whatever is learned later is a ``MessageEvent``: an outcome, the next
attempt, the ending at each recipient of a broadcast. The latest event of a recipient counts,
and where there is none the message's own columns do.

Every key starts with the tenant, so one tenant's history is one stretch of each index, and
because ids are UUIDv7 the primary key is the index by time as well. Each further index costs
about a tenth of the writer's speed; these are the ones that a question needs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from actorbus.message import MessageId, MessageKind, OpenStrEnum, Reason, Status
from actorbus.persistence.columns import Document, Id, Instant, Word

WENT_WRONG: Final = "status NOT IN ('accepted', 'handled')"
"""What the index by status holds: the few that somebody looks for. SQLite uses that index only
for a query that says these very words."""


class RunStatus(OpenStrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy when a model is made
        MessageId: Id(),
        datetime: Instant(),
        str: Text(),
        MessageKind: Word(MessageKind),
        Reason: Word(Reason),
        Status: Word(Status),
        RunStatus: Word(RunStatus),
    }


class Tenant(Base):
    __tablename__ = "tenants"

    id: Mapped[MessageId] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]

    projects: Mapped[list[Project]] = relationship(back_populates="tenant", passive_deletes=True)


class Project(Base):
    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    tenant_id: Mapped[MessageId] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[MessageId] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]

    tenant: Mapped[Tenant] = relationship(back_populates="projects")
    runs: Mapped[list[Run]] = relationship(back_populates="project", passive_deletes=True)


class Run(Base):
    """One execution of a team. ``name`` is the ``run_id`` that its messages carry."""

    __tablename__ = "runs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "project_id"], ["projects.tenant_id", "projects.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("tenant_id", "project_id", "name"),
    )

    tenant_id: Mapped[MessageId] = mapped_column(primary_key=True)
    id: Mapped[MessageId] = mapped_column(primary_key=True)
    project_id: Mapped[MessageId]
    name: Mapped[str]
    status: Mapped[RunStatus]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    project: Mapped[Project] = relationship(back_populates="runs")
    agents: Mapped[list[AgentRun]] = relationship(back_populates="run", passive_deletes=True)


class AgentRun(Base):
    """One agent's part in a run."""

    __tablename__ = "agent_runs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "run_id"], ["runs.tenant_id", "runs.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("tenant_id", "run_id", "agent"),
    )

    tenant_id: Mapped[MessageId] = mapped_column(primary_key=True)
    id: Mapped[MessageId] = mapped_column(primary_key=True)
    run_id: Mapped[MessageId]
    agent: Mapped[str]
    node: Mapped[str]
    status: Mapped[RunStatus]
    error: Mapped[str | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    run: Mapped[Run] = relationship(back_populates="agents")


class AgentMessage(Base):
    """A message as it was sent. A project that has history cannot be deleted under it."""

    __tablename__ = "agent_messages"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "project_id"], ["projects.tenant_id", "projects.id"]),
        Index(None, "tenant_id", "correlation_id", "id"),
        Index(None, "tenant_id", "sender", "id"),
        Index(None, "tenant_id", "recipient", "id"),
        Index(None, "tenant_id", "type", "id"),
        Index(
            None,
            "tenant_id",
            "status",
            "id",
            sqlite_where=text(WENT_WRONG),
            postgresql_where=text(WENT_WRONG),
        ),
        Index(
            None,
            "tenant_id",
            "run_id",
            "id",
            sqlite_where=text("run_id IS NOT NULL"),
            postgresql_where=text("run_id IS NOT NULL"),
        ),
    )

    tenant_id: Mapped[MessageId] = mapped_column(primary_key=True)
    id: Mapped[MessageId] = mapped_column(primary_key=True)
    project_id: Mapped[MessageId]
    node: Mapped[str]
    run_id: Mapped[str | None]
    kind: Mapped[MessageKind]
    type: Mapped[str]
    sender: Mapped[str | None]
    recipient: Mapped[str | None]
    topic: Mapped[str | None]
    priority: Mapped[int]
    payload: Mapped[Any] = mapped_column(Document, nullable=False)
    headers: Mapped[dict[str, str] | None] = mapped_column(Document)
    correlation_id: Mapped[MessageId]
    causation_id: Mapped[MessageId | None]
    hops: Mapped[int]
    created_at: Mapped[datetime]
    deadline: Mapped[datetime | None]
    status: Mapped[Status]
    reason: Mapped[Reason | None]
    error: Mapped[str | None]
    attempt: Mapped[int]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    # Its place in the chain, which every row has but those from before there were chains. No
    # index keeps the places apart, for 1 us a row: the chain's head does.
    chain: Mapped[int | None]
    seq: Mapped[int | None] = mapped_column(BigInteger)
    hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    payload_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Once the payload itself was taken away, and only then."""
    headers_digest: Mapped[bytes | None] = mapped_column(LargeBinary)


class MessageEvent(Base):
    """Something learned about a message after its row was written.

    ``recipient`` is set only where the message itself names none. There is no foreign key to
    the message: its row may be another node's to write, and may come later.
    """

    __tablename__ = "message_events"
    __table_args__ = (
        Index(None, "tenant_id", "message_id"),
        Index(
            None,
            "tenant_id",
            "recipient",
            "message_id",
            sqlite_where=text("recipient IS NOT NULL"),
            postgresql_where=text("recipient IS NOT NULL"),
        ),
        Index(
            None,
            "tenant_id",
            "status",
            "message_id",
            sqlite_where=text(WENT_WRONG),
            postgresql_where=text(WENT_WRONG),
        ),
    )

    tenant_id: Mapped[MessageId] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[MessageId] = mapped_column(primary_key=True)
    message_id: Mapped[MessageId]
    node: Mapped[str]
    recipient: Mapped[str | None]
    status: Mapped[Status]
    reason: Mapped[Reason | None]
    error: Mapped[str | None]
    attempt: Mapped[int]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime]
    chain: Mapped[int | None]
    seq: Mapped[int | None] = mapped_column(BigInteger)
    hash: Mapped[bytes | None] = mapped_column(LargeBinary)


class Chain(Base):
    """What one incarnation of a node wrote, in its order: see ``chain.py``.

    ``seq`` and ``hash`` are the head. Each transaction moves it on from where it found it, so
    two writers can never add the same row.
    """

    __tablename__ = "chains"
    __table_args__ = (UniqueConstraint("tenant_id", "incarnation"),)

    number: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant_id: Mapped[MessageId] = mapped_column(ForeignKey("tenants.id"))
    incarnation: Mapped[MessageId]
    node: Mapped[str]
    started_at: Mapped[datetime]
    previous: Mapped[int | None]
    link_seq: Mapped[int] = mapped_column(BigInteger)
    link: Mapped[bytes] = mapped_column(LargeBinary)
    anchors: Mapped[str | None]
    genesis: Mapped[bytes] = mapped_column(LargeBinary)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class AuditAct(Base):
    """Something done to history itself: deleted, redacted, held, released.

    They have a chain of their own, and are the tombstones of what is gone.
    """

    __tablename__ = "audit_acts"
    __table_args__ = (Index(None, "chain", "seq", unique=True),)

    tenant_id: Mapped[MessageId] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[MessageId] = mapped_column(primary_key=True)
    kind: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]
    target: Mapped[str]
    """What it was done to: a message's id, a scope of a hold, a chain's number."""
    target_seq: Mapped[int | None] = mapped_column(BigInteger)
    """Of a chain: the last row deleted, and its hash."""
    target_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    rows: Mapped[int | None] = mapped_column(BigInteger)
    chain: Mapped[int]
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
