"""Projects: what one tenant keeps apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from actorbus.message import check_name
from actorbus.persistence.columns import instant
from actorbus.persistence.models import Project
from actorbus.persistence.repositories.repository import (
    Repository,
    TenantName,
    add,
    find_project,
    find_tenant,
    page_size,
    remove,
)

if TYPE_CHECKING:
    from datetime import datetime

    from actorbus.message import MessageId


@dataclass(frozen=True, slots=True)
class ProjectView:
    id: MessageId
    name: str
    created_at: datetime


class Projects(Repository):
    def create(self, tenant: TenantName, project: str) -> ProjectView:
        """Make a project. A node makes its own with its first record.

        Raises:
            RecordExists: the tenant has one of that name.
        """
        check_name("a project", project)
        with self._changing(tenant) as session:
            row = Project(
                tenant_id=find_tenant(session, tenant).id,
                id=self._new_id(),
                name=project,
                created_at=instant(self._clock.now()),
            )
            add(session, row, "project", project, f"tenant {tenant!r}")
            return _view(row)

    def get(self, tenant: TenantName, project: str) -> ProjectView:
        with self._reading(tenant) as session:
            return _view(find_project(session, tenant, project))

    def list(
        self, tenant: TenantName, *, limit: int = 100, before: MessageId | None = None
    ) -> list[ProjectView]:
        """The tenant's projects, newest first; the next page is `before` the last one's ``id``.

        Raises:
            InvalidQuery: `limit` is not from 1 to 10,000.
        """
        with self._reading(tenant) as session:
            mine = select(Project).where(Project.tenant_id == find_tenant(session, tenant).id)
            if before is not None:
                mine = mine.where(Project.id < before)
            page = mine.order_by(Project.id.desc()).limit(page_size(limit))
            return [_view(row) for row in session.scalars(page)]

    def delete(self, tenant: TenantName, project: str) -> None:
        """Delete a project with its runs.

        Raises:
            HistoryKept: it still has messages.
        """
        with self._changing(tenant) as session:
            remove(session, find_project(session, tenant, project), "project", project)


def _view(row: Project) -> ProjectView:
    return ProjectView(row.id, row.name, row.created_at)
