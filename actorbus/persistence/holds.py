"""Legal holds: what must not be deleted or redacted, for as long as somebody says so.

A hold is on all of a tenant's history (``tenant``), on a run (``run:NAME``) or on a
conversation (``conversation:ID``, the id of any message in it). A run may be held before its
first message is here; a conversation, whose id nobody can know by then, may not: an id that is
none of history's would be a hold on nothing that says "held". Holding and releasing are acts,
and stay on record.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import false, or_, select, true

from actorbus.errors import HistoryHeld, InvalidQuery, UnknownRecord
from actorbus.message import format_id, parse_id
from actorbus.persistence.acts import Act, Kind, acts, record, tenant_key
from actorbus.persistence.models import AgentMessage

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from actorbus.message import IdSource, MessageId
    from actorbus.persistence.database import Database

_table: Final = AgentMessage.__table__.c


class Scope(StrEnum):
    TENANT = "tenant"
    RUN = "run"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held; its text is what people write."""

    scope: Scope
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Hold:
        """
        Raises:
            InvalidQuery: that holds nothing.
            InvalidName: a conversation's id that is none.
        """
        scope, colon, name = text.partition(":")
        if scope == Scope.TENANT and not colon:
            return cls(Scope.TENANT)
        if scope == Scope.RUN and name:
            return cls(Scope.RUN, name)
        if scope == Scope.CONVERSATION and name:
            return cls(Scope.CONVERSATION, format_id(parse_id(name)))
        raise InvalidQuery(
            f"{text[:64]!r} is nothing to hold: use tenant, run:NAME or conversation:ID"
        )

    def condition(self) -> ColumnElement[bool]:
        """Which of a tenant's messages it holds."""
        match self.scope:
            case Scope.TENANT:
                return true()
            case Scope.RUN:
                return _table.run_id == self.name
            case Scope.CONVERSATION:
                return _table.correlation_id == parse_id(self.name)

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}" if self.name else str(self.scope)


def hold(
    database: Database,
    tenant: str,
    what: Hold,
    *,
    actor: str,
    reason: str,
    ids: IdSource,
    now: float,
) -> bool:
    """Put on hold; False if it was already.

    Raises:
        InvalidQuery: nobody answers for it, or there is no reason.
        UnknownRecord: history has no message of that conversation.
    """
    return _change(database, tenant, what, Kind.HELD, actor, reason, ids, now)


def release(
    database: Database,
    tenant: str,
    what: Hold,
    *,
    actor: str,
    reason: str,
    ids: IdSource,
    now: float,
) -> bool:
    """End a hold; False if there was none.

    Raises:
        InvalidQuery: nobody answers for it, or there is no reason.
    """
    return _change(database, tenant, what, Kind.RELEASED, actor, reason, ids, now)


def holds(database: Database, tenant: str) -> list[tuple[Hold, Act]]:
    """What is on hold, and who put it there."""
    with database.of(tenant).reading() as connection:
        return _active(connection, tenant_key(connection, tenant))


def keeps_any(database: Database, tenant: str, what: Hold) -> bool:
    """Whether there is a message yet that a hold on this would keep."""
    with database.of(tenant).reading() as connection:
        key = tenant_key(connection, tenant)
        return _any(connection, key, _whole(connection, key, what).condition())


def held(connection: Connection, tenant: MessageId) -> ColumnElement[bool]:
    """Which of a tenant's messages are held."""
    return or_(false(), *(one.condition() for one in active(connection, tenant)))


def check_not_held(connection: Connection, tenant: MessageId, id: MessageId) -> None:
    """
    Raises:
        HistoryHeld: a hold covers this message.
    """
    for one in active(connection, tenant):
        covered = connection.scalar(
            select(_table.id).where(_table.tenant_id == tenant, _table.id == id, one.condition())
        )
        if covered is not None:
            raise HistoryHeld(f"message {format_id(id)}", str(one))


def active(connection: Connection, tenant: MessageId) -> list[Hold]:
    """What a tenant has on hold."""
    return [one for one, _ in _active(connection, tenant)]


def _active(connection: Connection, tenant: MessageId) -> list[tuple[Hold, Act]]:
    standing: dict[str, Act] = {}
    for act in acts(connection, tenant, Kind.HELD, Kind.RELEASED):
        if act.kind is Kind.HELD:
            standing[act.target] = act
        else:
            standing.pop(act.target, None)
    return [(Hold.parse(target), act) for target, act in standing.items()]


def _change(
    database: Database,
    tenant: str,
    what: Hold,
    kind: Kind,
    actor: str,
    reason: str,
    ids: IdSource,
    now: float,
) -> bool:
    with database.of(tenant).changing() as connection:
        key = tenant_key(connection, tenant)
        now_held = active(connection, key)
        if kind is Kind.HELD or what not in now_held:
            what = _whole(connection, key, what)
        if kind is Kind.HELD and what.scope is Scope.CONVERSATION:
            _check_here(connection, key, what)
        if (what in now_held) == (kind is Kind.HELD):
            return False
        record(connection, key, kind, str(what), actor=actor, reason=reason, ids=ids, now=now)
        return True


def _whole(connection: Connection, tenant: MessageId, what: Hold) -> Hold:
    """The hold on the whole conversation, where a message in it was named."""
    if what.scope is not Scope.CONVERSATION or _any(connection, tenant, what.condition()):
        return what
    named = select(_table.correlation_id).where(
        _table.tenant_id == tenant, _table.id == parse_id(what.name)
    )
    conversation = connection.scalar(named)
    return what if conversation is None else Hold(what.scope, format_id(conversation))


def _check_here(connection: Connection, tenant: MessageId, what: Hold) -> None:
    if not _any(connection, tenant, what.condition()):
        raise UnknownRecord(str(what.scope), what.name, "this history")


def _any(connection: Connection, tenant: MessageId, condition: ColumnElement[bool]) -> bool:
    one = select(_table.id).where(_table.tenant_id == tenant, condition).limit(1)
    return connection.scalar(one) is not None
