"""Tenants: whose history it is. There is no list of them, for that would be nobody's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actorbus.persistence.columns import instant
from actorbus.persistence.models import Tenant
from actorbus.persistence.repositories.repository import (
    Repository,
    TenantName,
    add,
    find_tenant,
    remove,
)

if TYPE_CHECKING:
    from datetime import datetime

    from actorbus.message import MessageId


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

    def delete(self, tenant: TenantName) -> None:
        """Delete a tenant with its projects and their runs.

        Raises:
            HistoryKept: it still has messages.
        """
        with self._changing(tenant) as session:
            remove(session, find_tenant(session, tenant), "tenant", tenant)


def _view(row: Tenant) -> TenantView:
    return TenantView(row.id, TenantName(row.name), row.created_at)
