"""Runs: each one execution of a team, by the name that its messages carry as ``run_id``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from actorbus.errors import HistoryKept
from actorbus.message import check_name
from actorbus.persistence.columns import instant
from actorbus.persistence.models import AgentMessage, Run, RunStatus
from actorbus.persistence.repositories.repository import (
    Repository,
    TenantName,
    add,
    end,
    find_project,
    find_run,
    page_size,
    remove,
)

if TYPE_CHECKING:
    from datetime import datetime

    from actorbus.message import MessageId


@dataclass(frozen=True, slots=True)
class RunView:
    id: MessageId
    name: str
    status: RunStatus
    started_at: datetime
    ended_at: datetime | None


class Runs(Repository):
    def create(self, tenant: TenantName, project: str, run: str) -> RunView:
        """Begin a run.

        Raises:
            RecordExists: the project has one of that name.
        """
        check_name("a run", run)
        with self._changing(tenant) as session:
            owner = find_project(session, tenant, project)
            row = Run(
                tenant_id=owner.tenant_id,
                id=self._new_id(),
                project_id=owner.id,
                name=run,
                status=RunStatus.RUNNING,
                started_at=instant(self._clock.now()),
                ended_at=None,
            )
            add(session, row, "run", run, f"project {project!r}")
            return _view(row)

    def get(self, tenant: TenantName, project: str, run: str) -> RunView:
        with self._reading(tenant) as session:
            return _view(find_run(session, tenant, project, run))

    def list(
        self,
        tenant: TenantName,
        project: str,
        *,
        status: RunStatus | None = None,
        limit: int = 100,
        before: MessageId | None = None,
    ) -> list[RunView]:
        """The project's runs, newest first; the next page is `before` the last one's ``id``.

        Raises:
            InvalidQuery: `limit` is not from 1 to 10,000.
        """
        with self._reading(tenant) as session:
            owner = find_project(session, tenant, project)
            mine = select(Run).where(Run.tenant_id == owner.tenant_id, Run.project_id == owner.id)
            if status is not None:
                mine = mine.where(Run.status == status)
            if before is not None:
                mine = mine.where(Run.id < before)
            page = mine.order_by(Run.id.desc()).limit(page_size(limit))
            return [_view(row) for row in session.scalars(page)]

    def finish(
        self, tenant: TenantName, project: str, run: str, status: RunStatus = RunStatus.FINISHED
    ) -> RunView:
        """Say how a run ended. To say the same once more changes nothing.

        Raises:
            InvalidQuery: no run ends like that, or this one ended otherwise before.
        """
        with self._changing(tenant) as session:
            row = find_run(session, tenant, project, run)
            end(session, row, status, self._clock.now())
            return _view(row)

    def delete(self, tenant: TenantName, project: str, run: str) -> None:
        """Delete a run with the parts that agents had in it.

        Raises:
            HistoryKept: it still has messages.
        """
        with self._changing(tenant) as session:
            row = find_run(session, tenant, project, run)
            said = select(AgentMessage.id).where(
                AgentMessage.tenant_id == row.tenant_id,
                AgentMessage.project_id == row.project_id,
                AgentMessage.run_id == run,
            )
            if session.scalar(said.limit(1)) is not None:
                raise HistoryKept("run", run)
            remove(session, row, "run", run)


def _view(row: Run) -> RunView:
    return RunView(row.id, row.name, row.status, row.started_at, row.ended_at)
