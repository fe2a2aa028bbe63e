"""What every question begins with: rows of one project of one tenant only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, select

from actorbus.message import MessageId
from actorbus.persistence.models import AgentMessage, MessageEvent, Project, Tenant

if TYPE_CHECKING:
    from sqlalchemy import Connection

Condition = ColumnElement[bool]

messages: Final = AgentMessage.__table__.c
events: Final = MessageEvent.__table__.c
told_of: Final = MessageEvent.__table__.alias("told_of")
"""The events once more, for conditions inside a question that goes along events itself."""


class Scope(NamedTuple):
    """The keys of a tenant and a project; of none, where there are none."""

    tenant: MessageId
    project: MessageId

    @property
    def mine(self) -> Condition:
        """A message is of this project."""
        return and_(messages.tenant_id == self.tenant, messages.project_id == self.project)


def scope_of(connection: Connection, tenant: str, project: str) -> Scope:
    keys = connection.execute(
        select(Project.tenant_id, Project.id)
        .join(Tenant, Tenant.id == Project.tenant_id)
        .where(Tenant.name == tenant, Project.name == project)
    ).one_or_none()
    return Scope(MessageId(0), MessageId(0)) if keys is None else Scope(*keys)


def has_event(*conditions: Condition, at_once: bool = False) -> Any:
    """A message has an event for which the conditions, on ``told_of``, hold.

    It is looked up for each message: OFFSET 0 keeps PostgreSQL from reading all events first.
    `at_once` lets it, which is faster where most messages are meant.
    """
    found = (
        select(told_of.c.id)
        .where(
            told_of.c.tenant_id == messages.tenant_id,
            told_of.c.message_id == messages.id,
            *conditions,
        )
        .correlate_except(told_of)
    )
    return (found if at_once else found.offset(0)).exists()
