"""History's questions in SQL, and its rows as views.

A page is found in two steps: the ids, each arm of the question along one index and no longer
than the page; then the rows and events of those ids. A status can change in an event, so SQL
only narrows it down, and the merged view decides.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, or_, select, text

from actorbus.message import MessageId, MessageKind, Priority, Status
from actorbus.persistence.audit import Counts, Delivery, MessageView
from actorbus.persistence.models import (
    WENT_WRONG,
    AgentMessage,
    MessageEvent,
    Project,
    Tenant,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

    from actorbus.persistence.audit import Filter
    from actorbus.persistence.database import Database

_Condition = ColumnElement[bool]

_TO_MANY: Final = frozenset({MessageKind.BROADCAST, MessageKind.EVENT})
_WORST_LAST: Final = (Status.HANDLED, Status.ACCEPTED, Status.FAILED, Status.DEAD)
_SKEW_MS: Final = 60_000
"""An id is made within this of its message's ``created_at``, however busy the machine."""

_messages: Final = AgentMessage.__table__.c
_events: Final = MessageEvent.__table__.c
_told_of: Final = MessageEvent.__table__.alias("told_of")
"""The events once more, for conditions inside a question that goes along events itself."""


class Reader:
    """Answers for one project of one tenant; every question opens a connection of its own."""

    def __init__(self, database: Database, tenant: str, project: str) -> None:
        self._database = database
        self._tenant = tenant
        self._project = project

    def message(self, id: MessageId) -> MessageView | None:
        with self._database.reading() as connection:
            return next(iter(_views(connection, self._scope(connection), [id])), None)

    def conversation(self, id: MessageId, limit: int) -> list[MessageView]:
        with self._database.reading() as connection:
            scope = self._scope(connection)
            return _conversation(connection, scope, id, limit) or _conversation(
                connection, scope, _conversation_of(connection, scope, id), limit
            )

    def messages(self, wanted: Filter) -> list[MessageView]:
        with self._database.reading() as connection:
            scope = self._scope(connection)
            found: list[MessageView] = []
            before = wanted.before
            while len(found) < wanted.limit:
                ids = _page(connection, scope, wanted, before)
                views = _views(connection, scope, ids)
                found += [view for view in views if wanted.status in (None, view.status)]
                if len(ids) < wanted.limit:
                    break
                before = ids[-1]
            return found[: wanted.limit]

    def counts(self) -> Counts:
        with self._database.reading() as connection:
            scope = self._scope(connection)
            by_kind = _counted(connection, select(_messages.kind, func.count()), scope)
            return Counts(
                messages=sum(by_kind.values()),
                by_status=_statuses(connection, scope),
                by_kind=by_kind,
                by_type=_counted(connection, select(_messages.type, func.count()), scope),
            )

    def _scope(self, connection: Connection) -> _Condition:
        """What every question begins with: rows of this tenant and project only."""
        keys = connection.execute(
            select(Project.tenant_id, Project.id)
            .join(Tenant, Tenant.id == Project.tenant_id)
            .where(Tenant.name == self._tenant, Project.name == self._project)
        ).one_or_none()
        tenant, project = keys or (MessageId(0), MessageId(0))
        return and_(_messages.tenant_id == tenant, _messages.project_id == project)


def _conversation(
    connection: Connection, scope: _Condition, id: MessageId | None, limit: int
) -> list[MessageView]:
    if id is None:
        return []
    ids = connection.scalars(
        select(_messages.id)
        .where(scope, _messages.correlation_id == id)
        .order_by(_messages.id)
        .limit(limit)
    ).all()
    return _views(connection, scope, ids)


def _conversation_of(connection: Connection, scope: _Condition, id: MessageId) -> MessageId | None:
    return connection.scalar(select(_messages.correlation_id).where(scope, _messages.id == id))


def _page(
    connection: Connection, scope: _Condition, wanted: Filter, before: MessageId | None
) -> list[MessageId]:
    """The newest ids that may match, at most ``wanted.limit``, newest first."""
    conditions = [scope, *_conditions(wanted, connection.dialect.name)]
    if before is not None:
        conditions.append(_messages.id < before)
    found: set[MessageId] = set()
    for arm in _arms(wanted):
        found.update(connection.scalars(arm.where(*conditions).limit(wanted.limit)))
    return sorted(found, reverse=True)[: wanted.limit]


def _arms(wanted: Filter) -> Iterator[Select[tuple[MessageId]]]:
    """One select for each index that leads to messages that may match."""
    if wanted.agent is not None:
        yield _own(_messages.sender == wanted.agent)
    agent = wanted.recipient if wanted.agent is None else wanted.agent
    if agent is not None:
        yield _own(_messages.recipient == agent)
        yield _told(_events.recipient == agent)
    elif wanted.status not in (None, Status.ACCEPTED, Status.HANDLED):
        yield _own(_messages.status == wanted.status, text(f"agent_messages.{WENT_WRONG}"))
        yield _told(_events.status == wanted.status, text(f"message_events.{WENT_WRONG}"))
    else:
        yield _own()


def _own(*conditions: Any) -> Select[tuple[MessageId]]:
    return select(_messages.id).where(*conditions).order_by(_messages.id.desc())


def _told(*conditions: Any) -> Select[tuple[MessageId]]:
    """Messages that an event tells of."""
    return (
        select(_events.message_id)
        .distinct()
        .join(
            AgentMessage.__table__,
            and_(_messages.tenant_id == _events.tenant_id, _messages.id == _events.message_id),
        )
        .where(*conditions)
        .order_by(_events.message_id.desc())
    )


def _conditions(wanted: Filter, dialect: str) -> Iterator[_Condition]:
    if wanted.sender is not None:
        yield _messages.sender == wanted.sender
    if wanted.agent is not None and wanted.recipient is not None:
        yield or_(
            _messages.recipient == wanted.recipient,
            _has_event(_told_of.c.recipient == wanted.recipient),
        )
    if wanted.type is not None:
        yield _messages.type == wanted.type
    if wanted.run is not None:
        yield _messages.run_id == wanted.run
    if wanted.status is Status.ACCEPTED:
        yield _messages.status == wanted.status
        yield ~_has_event()
    elif wanted.status is not None:
        yield or_(
            _messages.status == wanted.status,
            _has_event(_told_of.c.status == wanted.status),
        )
    if wanted.since is not None:
        yield _messages.created_at >= wanted.since
        yield _messages.id >= _first_id(wanted.since, -_SKEW_MS)
    if wanted.until is not None:
        yield _messages.created_at < wanted.until
        yield _messages.id < _first_id(wanted.until, _SKEW_MS)
    if wanted.text is not None:
        inside = json.dumps(wanted.text, ensure_ascii=False)[1:-1]
        yield or_(
            cast(_messages.payload, Text).icontains(inside, autoescape=True),
            _messages.error.icontains(wanted.text, autoescape=True),
            _has_event(_told_of.c.error.icontains(wanted.text, autoescape=True)),
        )


def _has_event(*conditions: _Condition) -> _Condition:
    return (
        select(_told_of.c.id)
        .where(
            _told_of.c.tenant_id == _messages.tenant_id,
            _told_of.c.message_id == _messages.id,
            *conditions,
        )
        .correlate(AgentMessage.__table__)
        .exists()
    )


def _first_id(moment: datetime, skew_ms: int) -> MessageId:
    milliseconds = int(moment.timestamp() * 1000) + skew_ms
    return MessageId(min(max(milliseconds, 0), (1 << 48) - 1) << 80)


def _counted(connection: Connection, counting: Any, scope: _Condition) -> dict[Any, int]:
    by = next(iter(counting.selected_columns))
    rows = connection.execute(counting.where(scope).group_by(by).order_by(by))
    return {key: count for key, count in rows}  # noqa: C416 - rows are no pairs to mypy


def _statuses(connection: Connection, scope: _Condition) -> dict[Status, int]:
    """Messages by merged status: the last event of each recipient, the worst of those."""
    last = select(
        _events.tenant_id,
        _events.message_id,
        _events.status,
        func.row_number()
        .over(
            partition_by=(_events.tenant_id, _events.message_id, _events.recipient),
            order_by=_events.id.desc(),
        )
        .label("nth"),
    ).subquery()
    told = (
        select(last.c.tenant_id, last.c.message_id, func.max(_rank(last.c.status)).label("rank"))
        .where(last.c.nth == 1)
        .group_by(last.c.tenant_id, last.c.message_id)
        .subquery()
    )
    standing = (
        select(func.coalesce(told.c.rank, _rank(_messages.status)).label("rank"))
        .select_from(AgentMessage.__table__)
        .outerjoin(
            told,
            and_(told.c.tenant_id == _messages.tenant_id, told.c.message_id == _messages.id),
        )
        .where(scope)
        .subquery()
    )
    rows = connection.execute(select(standing.c.rank, func.count()).group_by(standing.c.rank))
    return {_WORST_LAST[rank]: count for rank, count in rows}


def _rank(status: Any) -> Any:
    return case(
        *((status == word, position) for position, word in enumerate(_WORST_LAST)),
        else_=_WORST_LAST.index(Status.FAILED),
    )


def _views(
    connection: Connection, scope: _Condition, ids: Sequence[MessageId]
) -> list[MessageView]:
    """The messages of `ids` in that order; those that are not there are left out."""
    if not ids:
        return []
    rows = connection.execute(
        select(AgentMessage.__table__).where(scope, _messages.id.in_(ids))
    ).all()
    if not rows:
        return []
    told: dict[MessageId, list[Row[Any]]] = defaultdict(list)
    for event in connection.execute(
        select(MessageEvent.__table__)
        .where(_events.tenant_id == rows[0].tenant_id, _events.message_id.in_(ids))
        .order_by(_events.id)
    ):
        told[event.message_id].append(event)
    views = {row.id: merged(row, told[row.id]) for row in rows}
    return [views[key] for key in ids if key in views]


def merged(row: Any, events: Iterable[Any]) -> MessageView:
    """A message's row and its events, oldest first, as one."""
    deliveries = [] if row.ended_at is None else [_delivery(row, row.recipient)]
    deliveries += [_delivery(event, event.recipient or row.recipient) for event in events]
    decisive = _decisive(row.kind, deliveries)
    starts = [one.started_at for one in deliveries if one.started_at is not None]
    return MessageView(
        id=row.id,
        kind=row.kind,
        type=row.type,
        sender=row.sender,
        recipient=row.recipient,
        topic=row.topic,
        payload=row.payload,
        headers=row.headers or {},
        priority=Priority(row.priority),
        run_id=row.run_id,
        node=row.node,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        hops=row.hops,
        created_at=row.created_at,
        deadline=row.deadline,
        status=row.status if decisive is None else decisive.status,
        reason=row.reason if decisive is None else decisive.reason,
        error=row.error if decisive is None else decisive.error,
        attempts=max([row.attempt, *(one.attempt for one in deliveries)]),
        started_at=min(starts, default=None),
        ended_at=max((one.ended_at for one in deliveries), default=None),
        deliveries=tuple(deliveries),
    )


def _decisive(kind: MessageKind, deliveries: Sequence[Delivery]) -> Delivery | None:
    if not deliveries:
        return None
    if kind not in _TO_MANY:
        return deliveries[-1]
    last = {one.recipient: one for one in deliveries}
    return max(last.values(), key=_badness)


def _badness(delivery: Delivery) -> int:
    known = delivery.status in _WORST_LAST
    return _WORST_LAST.index(delivery.status if known else Status.FAILED)


def _delivery(row: Any, recipient: str | None) -> Delivery:
    return Delivery(
        recipient=recipient,
        status=row.status,
        reason=row.reason,
        error=row.error,
        attempt=row.attempt,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
