"""Agent runs: the part that one agent had in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from actorbus.errors import UnknownRecord
from actorbus.message import check_name
from actorbus.persistence.columns import instant
from actorbus.persistence.models import AgentRun, RunStatus
from actorbus.persistence.repositories.repository import (
    Repository,
    TenantName,
    add,
    end,
    find_run,
    page_size,
    remove,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from actorbus.message import MessageId


@dataclass(frozen=True, slots=True)
class AgentRunView:
    id: MessageId
    agent: str
    node: str
    status: RunStatus
    error: str | None
    started_at: datetime
    ended_at: datetime | None


class AgentRuns(Repository):
    def create(
        self, tenant: TenantName, project: str, run: str, agent: str, *, node: str
    ) -> AgentRunView:
        """Begin an agent's part in a run.

        Raises:
            RecordExists: the agent has a part in it.
        """
        check_name("an agent", agent)
        check_name("a node", node)
        with self._changing(tenant) as session:
            whole = find_run(session, tenant, project, run)
            row = AgentRun(
                tenant_id=whole.tenant_id,
                id=self._new_id(),
                run_id=whole.id,
                agent=agent,
                node=node,
                status=RunStatus.RUNNING,
                error=None,
                started_at=instant(self._clock.now()),
                ended_at=None,
            )
            add(session, row, "part of", agent, f"run {run!r}")
            return _view(row)

    def get(self, tenant: TenantName, project: str, run: str, agent: str) -> AgentRunView:
        with self._reading(tenant) as session:
            return _view(_find(session, tenant, project, run, agent))

    def list(
        self,
        tenant: TenantName,
        project: str,
        run: str,
        *,
        limit: int = 100,
        before: MessageId | None = None,
    ) -> list[AgentRunView]:
        """The parts in a run, newest first; the next page is `before` the last one's ``id``.

        Raises:
            InvalidQuery: `limit` is not from 1 to 10,000.
        """
        with self._reading(tenant) as session:
            whole = find_run(session, tenant, project, run)
            parts = select(AgentRun).where(
                AgentRun.tenant_id == whole.tenant_id, AgentRun.run_id == whole.id
            )
            if before is not None:
                parts = parts.where(AgentRun.id < before)
            page = parts.order_by(AgentRun.id.desc()).limit(page_size(limit))
            return [_view(row) for row in session.scalars(page)]

    def finish(
        self,
        tenant: TenantName,
        project: str,
        run: str,
        agent: str,
        status: RunStatus = RunStatus.FINISHED,
        *,
        error: str | None = None,
    ) -> AgentRunView:
        """Say how an agent's part ended. To say the same once more changes nothing.

        Raises:
            InvalidQuery: no part ends like that, or this one ended otherwise before.
        """
        with self._changing(tenant) as session:
            row = _find(session, tenant, project, run, agent)
            if end(session, row, status, self._clock.now()):
                row.error = None if error is None else _harmless(error)
            return _view(row)

    def delete(self, tenant: TenantName, project: str, run: str, agent: str) -> None:
        with self._changing(tenant) as session:
            remove(session, _find(session, tenant, project, run, agent), "part of", agent)


def _find(session: Session, tenant: TenantName, project: str, run: str, agent: str) -> AgentRun:
    check_name("an agent", agent)
    whole = find_run(session, tenant, project, run)
    parts = select(AgentRun).where(
        AgentRun.tenant_id == whole.tenant_id, AgentRun.run_id == whole.id
    )
    found = session.scalars(parts.where(AgentRun.agent == agent)).one_or_none()
    if found is None:
        known = session.scalars(parts.limit(100))
        raise UnknownRecord("part of", agent, f"run {run!r}", [one.agent for one in known])
    return found


def _view(row: AgentRun) -> AgentRunView:
    return AgentRunView(
        row.id, row.agent, row.node, row.status, row.error, row.started_at, row.ended_at
    )


def _harmless(error: str) -> str:
    """The text, without what PostgreSQL has no room for."""
    return error.encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")
