"""Questions over many messages at once: how many, who with whom, how long.

The database does the sums, one pass over the messages that are meant, so an answer takes as
long as they are many and the memory here stays that of the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Float,
    and_,
    case,
    cast,
    desc,
    extract,
    func,
    or_,
    select,
    type_coerce,
    union_all,
)

from actorbus.message import Status
from actorbus.persistence.answers import Counts, Exchange, Spread, Times
from actorbus.persistence.models import AgentMessage, MessageEvent
from actorbus.persistence.questions.conditions import conditions, id_range
from actorbus.persistence.questions.scope import events, has_event, messages
from actorbus.persistence.questions.views import WORST_LAST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from actorbus.persistence.filters import Filter
    from actorbus.persistence.questions.scope import Condition, Scope

_BAD: Final = (Status.FAILED, Status.DEAD)


def counts(connection: Connection, scope: Scope) -> Counts:
    by_kind = _counted(connection, select(messages.kind, func.count()), scope)
    return Counts(
        messages=sum(by_kind.values()),
        by_status=_statuses(connection, scope),
        by_kind=by_kind,
        by_type=_counted(connection, select(messages.type, func.count()), scope),
    )


def talk(connection: Connection, scope: Scope, wanted: Filter, limit: int) -> list[Exchange]:
    """Pairs of sender and recipient, the most talkative first."""
    chosen = _chosen(scope, wanted)
    told = _told(chosen)
    sent = select(messages.sender, messages.recipient, messages.created_at, messages.status)
    said = union_all(
        sent.where(*chosen, ~has_event(at_once=True)),
        select(told.c.sender, told.c.addressed, told.c.created_at, told.c.status).where(
            told.c.nth == 1, or_(told.c.addressed.is_not(None), told.c.reached.is_(None))
        ),
        select(told.c.sender, told.c.recipient, told.c.created_at, told.c.status).where(
            told.c.nth_there == 1, told.c.recipient.is_not(None)
        ),
    ).subquery()
    count = func.count()
    rows = connection.execute(
        select(
            said.c.sender,
            said.c.recipient,
            count,
            func.sum(case((said.c.status.in_(_BAD), 1), else_=0)),
            func.max(said.c.created_at, type_=messages.created_at.type),
        )
        .group_by(said.c.sender, said.c.recipient)
        .order_by(desc(count), said.c.sender, said.c.recipient)
        .limit(limit)
    )
    return [Exchange(*row) for row in rows]


def times(connection: Connection, scope: Scope, wanted: Filter, limit: int) -> list[Times]:
    """Durations by recipient and type, the most frequent first."""
    ranked = _ranked(_durations(connection.dialect.name, scope, wanted))
    count = func.max(ranked.c.count)
    rows = connection.execute(
        select(
            ranked.c.recipient,
            ranked.c.type,
            count,
            *_spread(ranked.c, ranked.c.waited, ranked.c.waited_nth),
            *_spread(ranked.c, ranked.c.took, ranked.c.took_nth),
        )
        .group_by(ranked.c.recipient, ranked.c.type)
        .order_by(desc(count), ranked.c.recipient, ranked.c.type)
        .limit(limit)
    )
    return [
        Times(recipient, kind, number, Spread(*spreads[:3]), Spread(*spreads[3:]))
        for recipient, kind, number, *spreads in rows
    ]


def _told(chosen: Sequence[Condition]) -> Any:
    """The events of the messages that are meant, each message's numbered from the last one.

    One pass, and no look-up for each message: SQLite keeps no statistics here, and without any
    it looks up along whichever index, or none.
    """
    newest = events.id.desc()
    nth = func.row_number()
    return (
        select(
            events.message_id,
            messages.sender,
            messages.recipient.label("addressed"),
            messages.created_at,
            events.recipient,
            events.status,
            nth.over(partition_by=events.message_id, order_by=newest).label("nth"),
            nth.over(partition_by=(events.message_id, events.recipient), order_by=newest).label(
                "nth_there"
            ),
            func.max(events.recipient).over(partition_by=events.message_id).label("reached"),
        )
        .select_from(MessageEvent.__table__)
        .join(AgentMessage.__table__, _is_of(events))
        .where(*chosen)
        .cte("told")
    )


def _durations(dialect: str, scope: Scope, wanted: Filter) -> Any:
    """Recipient, type, waited and took of each delivery that a handler began."""
    chosen = _chosen(scope, wanted)
    own = select(
        messages.recipient,
        messages.type,
        _seconds(dialect, messages.created_at, messages.started_at).label("waited"),
        _seconds(dialect, messages.started_at, messages.ended_at).label("took"),
    ).where(*chosen, messages.started_at.is_not(None), messages.ended_at.is_not(None))
    told = (
        select(
            func.coalesce(events.recipient, messages.recipient),
            messages.type,
            _seconds(dialect, messages.created_at, events.started_at),
            _seconds(dialect, events.started_at, events.ended_at),
        )
        .select_from(MessageEvent.__table__)
        .join(AgentMessage.__table__, _is_of(events))
        .where(*chosen, events.started_at.is_not(None))
    )
    return union_all(own, told).subquery()


def _ranked(durations: Any) -> Any:
    by = (durations.c.recipient, durations.c.type)
    nth = func.row_number()
    return select(
        durations,
        func.count().over(partition_by=by).label("count"),
        nth.over(partition_by=by, order_by=durations.c.waited).label("waited_nth"),
        nth.over(partition_by=by, order_by=durations.c.took).label("took_nth"),
    ).subquery()


def _spread(ranked: Any, value: Any, nth: Any) -> tuple[Any, ...]:
    return (
        *(
            func.max(case((nth == (ranked.count * percent + 99) // 100, value)))
            for percent in (50, 95)
        ),
        func.max(value),
    )


def _seconds(dialect: str, start: Any, end: Any) -> Any:
    """Never less than 0, as the clocks of two nodes may have it."""
    if dialect == "postgresql":
        return func.greatest(cast(extract("epoch", end - start), Float), 0.0)
    return func.max((type_coerce(end, BigInteger) - type_coerce(start, BigInteger)) / 1e6, 0.0)


def _chosen(scope: Scope, wanted: Filter) -> list[Condition]:
    """The messages that are meant. A status is here what SQL can tell of it."""
    return [scope.mine, *conditions(wanted), *id_range(wanted, messages.id)]


def _is_of(told: Any) -> Any:
    return and_(messages.tenant_id == told.tenant_id, messages.id == told.message_id)


def _counted(connection: Connection, counting: Any, scope: Scope) -> dict[Any, int]:
    by = next(iter(counting.selected_columns))
    rows = connection.execute(counting.where(scope.mine).group_by(by).order_by(by))
    return {key: count for key, count in rows}  # noqa: C416 - rows are no pairs to mypy


def _statuses(connection: Connection, scope: Scope) -> dict[Status, int]:
    """Messages by merged status: the last event of each recipient, the worst of those."""
    told = _told([scope.mine])
    standing = union_all(
        select(_rank(messages.status).label("rank")).where(scope.mine, ~has_event(at_once=True)),
        select(func.max(_rank(told.c.status)))
        .where(told.c.nth_there == 1)
        .group_by(told.c.message_id),
    ).subquery()
    rows = connection.execute(select(standing.c.rank, func.count()).group_by(standing.c.rank))
    return {WORST_LAST[rank]: count for rank, count in rows}


def _rank(status: Any) -> Any:
    return case(
        *((status == word, position) for position, word in enumerate(WORST_LAST)),
        else_=WORST_LAST.index(Status.FAILED),
    )
