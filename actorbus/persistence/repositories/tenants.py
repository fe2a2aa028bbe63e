"""Tenants: whose history it is. There is no list of them, for that would be nobody's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from actorbus.errors import HistoryHeld, HistoryKept
from actorbus.persistence import tenancy
from actorbus.persistence.acts import Kind, acts
from actorbus.persistence.columns import instant
from actorbus.persistence.holds import active
from actorbus.persistence.models import AgentMessage, AuditAct, Chain, MessageEvent, Tenant
from actorbus.persistence.repositories.repository import (
    Repository,
    TenantName,
    add,
    find_tenant,
    remove,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from actorbus.message import MessageId
    from actorbus.persistence.acts import Act


@dataclass(frozen=True, slots=True)
class TenantView:
    id: MessageId
    name: TenantName
    created_at: datetime


class Tenants(Repository):
    def create(self, tenant: TenantName) -> TenantView:
        """Make a tenant. A node makes its own with its first record.

        Raises:
            RecordExists: there is one of that name.
        """
        with self._changing(tenant) as session:
            row = Tenant(id=self._new_id(), name=tenant, created_at=instant(self._clock.now()))
            add(session, row, "tenant", tenant, "this history")
            return _view(row)

    def get(self, tenant: TenantName) -> TenantView:
        with self._reading(tenant) as session:
            return _view(find_tenant(session, tenant))

    def delete(self, tenant: TenantName, *, force: bool = False) -> list[Act]:
        """Delete a tenant with its projects and their runs.

        Its messages go by retention only, before. What then is left, the chains and the acts
        upon them, proves that they went rightly; `force` deletes that too. No node of this
        tenant may be running.

        Returns:
            The acts that are deleted, for who wants to keep them elsewhere.

        Raises:
            HistoryKept: it still has messages; or has had some, and there is no `force`.
            HistoryHeld: it is on legal hold.
        """
        with self._changing(tenant) as session:
            row = find_tenant(session, tenant)
            done = _forget_proof(session.connection(), row.id, tenant) if force else []
            remove(session, row, "tenant", tenant)
            return done


def _forget_proof(connection: Connection, tenant: MessageId, name: str) -> list[Act]:
    """Delete the chains of a tenant that has no messages any more; the acts upon them."""
    for history in (AgentMessage.__table__, MessageEvent.__table__):
        if connection.scalar(select(history.c.id).where(history.c.tenant_id == tenant).limit(1)):
            raise HistoryKept("tenant", name)
    for held in active(connection, tenant):
        raise HistoryHeld(f"tenant {name!r}", str(held))
    done = acts(connection, tenant, *Kind)
    tenancy.retaining(connection)
    connection.execute(delete(AuditAct).where(AuditAct.tenant_id == tenant))
    connection.execute(delete(Chain).where(Chain.tenant_id == tenant))
    return done


def _view(row: Tenant) -> TenantView:
    return TenantView(row.id, TenantName(row.name), row.created_at)
