"""What repositories share: their transactions, and the way down from a tenant's name.

Nothing here starts from a key: each step looks for a name under the row above it, and the
first under the tenant.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NewType

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from actorbus.errors import HistoryKept, InvalidQuery, RecordExists, UnknownRecord
from actorbus.message import IdSource, check_name
from actorbus.persistence.columns import instant
from actorbus.persistence.models import AgentRun, Project, Run, RunStatus, Tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.clock import Clock
    from actorbus.message import MessageId
    from actorbus.persistence.database import Database

TenantName = NewType("TenantName", str)
"""The name of a tenant: a type of its own, so that no other word gets in its place."""

_MOST: Final = 10_000
_SUGGESTED: Final = 1_000


class Repository:
    """Reads and writes one kind of row; every call is a transaction of its own."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ids = IdSource()

    @contextmanager
    def _reading(self, tenant: TenantName) -> Iterator[Session]:
        check_name("a tenant", tenant)
        with self._database.of(tenant).reading() as connection, Session(connection) as session:
            yield session

    @contextmanager
    def _changing(self, tenant: TenantName) -> Iterator[Session]:
        check_name("a tenant", tenant)
        with self._database.of(tenant).changing() as connection, Session(connection) as session:
            yield session
            session.flush()

    def _new_id(self) -> MessageId:
        return self._ids.make(self._clock.now())


def find_tenant(session: Session, tenant: TenantName) -> Tenant:
    found = session.scalars(select(Tenant).where(Tenant.name == tenant)).one_or_none()
    if found is None:  # and no word about the names of others
        raise UnknownRecord("tenant", tenant, "this history")
    return found


def find_project(session: Session, tenant: TenantName, project: str) -> Project:
    check_name("a project", project)
    owner = find_tenant(session, tenant)
    mine = select(Project).where(Project.tenant_id == owner.id)
    found = session.scalars(mine.where(Project.name == project)).one_or_none()
    if found is None:
        known = session.scalars(mine.limit(_SUGGESTED))
        raise UnknownRecord("project", project, f"tenant {tenant!r}", [one.name for one in known])
    return found


def find_run(session: Session, tenant: TenantName, project: str, run: str) -> Run:
    check_name("a run", run)
    owner = find_project(session, tenant, project)
    mine = select(Run).where(Run.tenant_id == owner.tenant_id, Run.project_id == owner.id)
    found = session.scalars(mine.where(Run.name == run)).one_or_none()
    if found is None:
        known = session.scalars(mine.order_by(Run.id.desc()).limit(_SUGGESTED))
        raise UnknownRecord("run", run, f"project {project!r}", [one.name for one in known])
    return found


def add(session: Session, row: Any, what: str, name: str, within: str) -> None:
    """Insert a row whose name must be the only one.

    Raises:
        RecordExists: it is not.
    """
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise RecordExists(what, name, within) from None


def remove(session: Session, row: Any, what: str, name: str) -> None:
    """Delete a row, and with it what hangs on it.

    Raises:
        HistoryKept: messages hang on it, or what their retention left for their proof.
    """
    session.delete(row)
    try:
        session.flush()
    except IntegrityError:
        raise HistoryKept(what, name) from None


def end(session: Session, row: Run | AgentRun, status: RunStatus | str, now: float) -> bool:
    """Say how a run, or a part in one, ended; False where that was said before.

    Raises:
        InvalidQuery: nothing ends like that, or it ended otherwise before.
    """
    endings = [one for one in RunStatus if one is not RunStatus.RUNNING]
    if status not in endings:
        raise InvalidQuery(f"nothing ends {str(status)[:64]!r}: use one of {', '.join(endings)}")
    session.refresh(row, with_for_update=True)
    if row.ended_at is None:
        row.status, row.ended_at = RunStatus(status), instant(now)
        return True
    if row.status != status:
        raise InvalidQuery(f"it has ended already, {row.status}, and cannot end again {status}")
    return False


def page_size(limit: int) -> int:
    """`limit`, if a page may be so long.

    Raises:
        InvalidQuery: it may not.
    """
    if not 1 <= limit <= _MOST:
        raise InvalidQuery(f"limit is {limit}: it must be from 1 to {_MOST:,}; page with before=")
    return limit
