"""A page of messages, in a time that does not grow with history.

Each *arm* of a question is a stretch of one index that leads to messages which may match. A
page takes a window of each arm, no longer than the page, and looks at those messages for
whatever else is asked; where too few match it goes on with a window ten times as long, until
it has looked at ``_BUDGET`` of them. What it returns then may be less than a page, with the
place to go on from. The window stands in a table of its own, so the database cannot choose
another way: without it a filter that seldom matches would read all there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, false, select, text, true, union_all
from sqlalchemy.sql.util import ClauseAdapter
from sqlalchemy.sql.visitors import iterate

from actorbus.message import Status
from actorbus.persistence.models import WENT_WRONG, AgentMessage
from actorbus.persistence.questions.conditions import conditions, id_range
from actorbus.persistence.questions.scope import events, messages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import CompoundSelect, Connection, Select

    from actorbus.message import MessageId
    from actorbus.persistence.filters import Filter
    from actorbus.persistence.questions.scope import Condition, Scope

_BUDGET: Final = 4_000
_BUDGET_OF_TEXT: Final = 2_000
"""Looking into a payload costs several times as much as looking at a column."""
_GROWTH: Final = 10
_FIRST: Final = 64
_MESSAGES: Final = AgentMessage.__table__
_QUIET: Final = (Status.ACCEPTED, Status.HANDLED)


class Ids(NamedTuple):
    """Ids in order; whoever wants more goes on from `rest`, which is None at the end."""

    found: list[MessageId]
    rest: MessageId | None


class Arm(NamedTuple):
    """A stretch of one index: ids of messages that may match."""

    id: Any
    told: bool
    """Along events that tell of the messages, where one message may come many times."""
    conditions: tuple[Any, ...]

    def select(
        self, start: MessageId | None, *columns: ColumnElement[Any], forward: bool
    ) -> Select[Any]:
        chosen = select(self.id.label("id"), *columns).where(*self.conditions)
        if start is not None:
            chosen = chosen.where(self.id > start if forward else self.id < start)
        chosen = chosen.order_by(self.id if forward else self.id.desc())
        return chosen.distinct() if self.told else chosen


def page(
    connection: Connection,
    scope: Scope,
    wanted: Filter,
    *,
    start: MessageId | None,
    limit: int,
    forward: bool = False,
) -> Ids:
    """The ids beyond `start` that may match, at most `limit`; newest first, or oldest first."""
    legs = arms(scope, wanted)
    also = (scope.mine, *conditions(wanted))
    left = (_BUDGET if wanted.text is None else _BUDGET_OF_TEXT) // len(legs)
    found: list[MessageId] = []
    window = min(max(limit, _FIRST), left)
    while True:
        room = limit - len(found)
        some, start = _look(connection, legs, also, start, window, room + 1, forward=forward)
        found += some[:room]
        if len(some) > room or (len(found) == limit and start is not None):
            return Ids(found, found[-1])
        left -= window
        if start is None or left <= 0:
            return Ids(found, start)
        window = min(window * _GROWTH, left)


def arms(scope: Scope, wanted: Filter) -> Sequence[Arm]:
    """The indexes to go along: those of the field that narrows down most."""
    if wanted.conversation is not None:
        return [_own(scope, wanted, messages.correlation_id == wanted.conversation)]
    if wanted.run is not None:
        return [_own(scope, wanted, messages.run_id == wanted.run)]
    if wanted.agent is not None:
        sent = _own(scope, wanted, messages.sender == wanted.agent)
        return [sent, *_received(scope, wanted, wanted.agent)]
    if wanted.recipient is not None:
        return list(_received(scope, wanted, wanted.recipient))
    if wanted.status not in (None, *_QUIET):
        return list(_went_wrong(scope, wanted, [wanted.status]))
    if wanted.reason is not None:
        return list(_went_wrong(scope, wanted, [one for one in Status if one not in _QUIET]))
    if wanted.sender is not None:
        return [_own(scope, wanted, messages.sender == wanted.sender)]
    if wanted.type is not None:
        return [_own(scope, wanted, messages.type == wanted.type)]
    return [_own(scope, wanted)]


def looked(
    arm: Arm,
    also: Sequence[Condition],
    start: MessageId | None,
    window: int,
    most: int,
    *,
    forward: bool,
) -> CompoundSelect[Any]:
    """Of an arm's next `window` messages the first `most` for which `also` holds, and the last,
    so marked, which tells how far the window goes.

    An arm of messages is read with whatever `also` asks of them: joined to the messages again,
    PostgreSQL would rather read all there are than look for thousands one by one.
    """
    asked = () if arm.told else _columns(also)
    few = arm.select(start, *asked, forward=forward).limit(window).cte("few")
    order = few.c.id if forward else few.c.id.desc()
    if arm.told:
        matching = select(few.c.id).join(_MESSAGES, and_(messages.id == few.c.id, *also))
    else:
        matching = select(few.c.id).where(*map(ClauseAdapter(few).traverse, also))
    first = matching.order_by(order).limit(most).subquery("few_that_match")
    last = select(few.c.id).order_by(order).offset(window - 1).limit(1).subquery("last_of_few")
    return union_all(select(first.c.id, false()), select(last.c.id, true()))


def _columns(conditions: Sequence[Condition]) -> list[ColumnElement[Any]]:
    """The columns of a message that conditions are about, but for its id."""
    parts = {part for condition in conditions for part in iterate(condition)}
    return [column for column in messages if column in parts and column.name != "id"]


def _look(
    connection: Connection,
    legs: Sequence[Arm],
    also: Sequence[Condition],
    start: MessageId | None,
    window: int,
    most: int,
    *,
    forward: bool,
) -> tuple[list[MessageId], MessageId | None]:
    """The first `most` that match in the next window of each arm; where the next look begins.

    Each arm is known only as far as its window goes, so all are known up to the nearest end.
    """
    found: set[MessageId] = set()
    ends: list[MessageId] = []
    for arm in legs:
        rows: Any = connection.execute(looked(arm, also, start, window, most, forward=forward))
        for message_id, is_last in rows:
            if is_last:
                ends.append(message_id)
            else:
                found.add(message_id)
    known = sorted(found, reverse=not forward)
    if not ends:
        return known, None
    if forward:
        nearest = min(ends)
        return [one for one in known if one <= nearest], nearest
    nearest = max(ends)
    return [one for one in known if one >= nearest], nearest


def _own(scope: Scope, wanted: Filter, *along: Any) -> Arm:
    bounds = id_range(wanted, messages.id)
    return Arm(messages.id, False, (messages.tenant_id == scope.tenant, *along, *bounds))


def _told(scope: Scope, wanted: Filter, *along: Any) -> Arm:
    """Messages that an event tells of."""
    bounds = id_range(wanted, events.message_id)
    return Arm(events.message_id, True, (events.tenant_id == scope.tenant, *along, *bounds))


def _received(scope: Scope, wanted: Filter, recipient: str) -> Iterator[Arm]:
    yield _own(scope, wanted, messages.recipient == recipient)
    yield _told(scope, wanted, events.recipient == recipient)


def _went_wrong(scope: Scope, wanted: Filter, statuses: Sequence[Any]) -> Iterator[Arm]:
    for status in statuses:
        yield _own(scope, wanted, messages.status == status, text(f"agent_messages.{WENT_WRONG}"))
        yield _told(scope, wanted, events.status == status, text(f"message_events.{WENT_WRONG}"))
