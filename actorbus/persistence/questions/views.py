"""Rows of messages and of their events, merged into views."""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from actorbus.message import MessageKind, Priority, Status
from actorbus.persistence.answers import Delivery, MessageView
from actorbus.persistence.questions.scope import events, messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row

    from actorbus.message import MessageId
    from actorbus.persistence.questions.scope import Scope

_AT_ONCE: Final = 500
_TO_MANY: Final = frozenset({MessageKind.BROADCAST, MessageKind.EVENT})
WORST_LAST: Final = (Status.HANDLED, Status.ACCEPTED, Status.FAILED, Status.DEAD)

# By name, and none that came later: a history of an older schema is read as well.
_OF_MESSAGES: Final = tuple(
    messages[name]
    for name in (
        "id", "node", "run_id", "kind", "type", "sender", "recipient", "topic", "priority",
        "payload", "headers", "correlation_id", "causation_id", "hops", "created_at", "deadline",
        "status", "reason", "error", "attempt", "started_at", "ended_at",
    )
)  # fmt: skip
_OF_EVENTS: Final = tuple(
    events[name]
    for name in (
        "id", "message_id", "recipient", "status", "reason", "error", "attempt", "started_at",
        "ended_at", "node",
    )
)  # fmt: skip


def views_of(connection: Connection, scope: Scope, ids: Sequence[MessageId]) -> list[MessageView]:
    """The messages of `ids` in that order; those that are not there are left out."""
    found: list[MessageView] = []
    for start in range(0, len(ids), _AT_ONCE):
        found += _few(connection, scope, ids[start : start + _AT_ONCE])
    return found


def _few(connection: Connection, scope: Scope, ids: Sequence[MessageId]) -> list[MessageView]:
    rows = connection.execute(select(*_OF_MESSAGES).where(scope.mine, messages.id.in_(ids))).all()
    if not rows:
        return []
    told: dict[MessageId, list[Row[Any]]] = defaultdict(list)
    # Sorted here: asked for in order, SQLite reads all events along their key instead.
    of_these = connection.execute(
        select(*_OF_EVENTS).where(events.tenant_id == scope.tenant, events.message_id.in_(ids))
    )
    for event in sorted(of_these, key=attrgetter("id")):
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
        attempts=_attempts(row.attempt, deliveries),
        started_at=min(starts, default=None),
        ended_at=max((one.ended_at for one in deliveries), default=None),
        deliveries=tuple(deliveries),
    )


def _attempts(first: int, deliveries: Sequence[Delivery]) -> int:
    """The most that any recipient took: counted by its node, or run again by another one."""
    runs = Counter(one.recipient for one in deliveries if one.started_at is not None)
    return max([first, *(one.attempt for one in deliveries), *runs.values()])


def _decisive(kind: MessageKind, deliveries: Sequence[Delivery]) -> Delivery | None:
    if not deliveries:
        return None
    if kind not in _TO_MANY:
        return deliveries[-1]
    last = {one.recipient: one for one in deliveries}
    return max(last.values(), key=_badness)


def _badness(delivery: Delivery) -> int:
    known = delivery.status in WORST_LAST
    return WORST_LAST.index(delivery.status if known else Status.FAILED)


def _delivery(row: Any, recipient: str | None) -> Delivery:
    return Delivery(
        recipient=recipient,
        status=row.status,
        reason=row.reason,
        error=row.error,
        attempt=row.attempt,
        started_at=row.started_at,
        ended_at=row.ended_at,
        node=row.node,
    )
