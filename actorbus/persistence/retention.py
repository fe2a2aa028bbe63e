"""Retention: the oldest history is deleted, and what is left still verifies.

By age, by count, by size: each comes down to a time, and messages from before the latest of
these go. From each chain only a whole prefix is deleted, so a message stays while one before
it in its chain must; a tombstone keeps the hash of the last row deleted, for the next to
follow. What is on legal hold stays, and so does what comes after it in its chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, cast, delete, func, select

from actorbus.errors import InvalidQuery
from actorbus.persistence import tenancy
from actorbus.persistence.acts import Kind, record, tenant_key
from actorbus.persistence.chain import Head
from actorbus.persistence.chains import ACTS
from actorbus.persistence.columns import instant
from actorbus.persistence.holds import held
from actorbus.persistence.models import AgentMessage, AuditAct, Chain, MessageEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection

    from actorbus.message import IdSource, MessageId
    from actorbus.persistence.database import Database

MOST_AT_ONCE: Final = 20_000
"""Rows deleted in one transaction: the node's writer waits meanwhile."""

ROW_BYTES: Final = 400
"""What a message takes beside its payload and headers, with its indexes, about."""

_messages: Final = AgentMessage.__table__.c
_events: Final = MessageEvent.__table__.c
_chains: Final = Chain.__table__.c
_acts: Final = AuditAct.__table__.c


@dataclass(frozen=True, slots=True)
class Limits:
    """How much history is kept; None sets no limit.

    Raises:
        InvalidQuery: a limit that is no number from 0, or none at all.
    """

    age: float | None = None
    """In seconds."""
    messages: int | None = None
    size: int | None = None
    """In bytes, as far as they can be told without asking the file."""

    def __post_init__(self) -> None:
        given = [limit for limit in (self.age, self.messages, self.size) if limit is not None]
        if not given:
            raise InvalidQuery("retention needs a limit: an age, a number of messages or a size")
        for limit in given:
            if not limit >= 0:
                raise InvalidQuery(f"a limit of retention is {limit}: it must be a number from 0")


@dataclass(frozen=True, slots=True)
class Deleted:
    """What retention deleted from one chain, and why no more."""

    chain: int
    rows: int
    through: int
    """The last row deleted."""
    held: bool
    """Whether a legal hold kept more from being deleted."""


def retain(
    database: Database,
    tenant: str,
    limits: Limits,
    *,
    actor: str,
    reason: str,
    ids: IdSource,
    now: float,
) -> list[Deleted]:
    """Delete what is beyond the limits, some thousand rows a transaction.

    Raises:
        AuditUnavailable: the database cannot be used; what was deleted by then has its
            tombstones.
        InvalidQuery: nobody answers for it, or there is no reason.
    """
    mine = database.of(tenant)
    with mine.changing() as connection:
        key = tenant_key(connection, tenant)
        before = _cutoff(connection, key, limits, now)
        numbers = list(
            connection.scalars(
                select(_chains.number)
                .where(_chains.tenant_id == key, _chains.node != ACTS)
                .order_by(_chains.number)
            )
        )
    if before is None:
        return []
    done = []
    for number in numbers:
        rows = through = 0
        while True:
            with mine.changing() as connection:
                cut = _Cut(connection, key, number, before)
                if not cut.through:
                    break
                through, deleted = cut.through, cut.delete()
                rows += deleted
                record(
                    connection,
                    key,
                    Kind.DELETED,
                    str(number),
                    actor=actor,
                    reason=reason,
                    ids=ids,
                    now=now,
                    gone=cut.gone,
                    rows=deleted,
                )
        if rows or cut.held:
            done.append(Deleted(number, rows, through, cut.held))
    return done


def _cutoff(
    connection: Connection, tenant: MessageId, limits: Limits, now: float
) -> datetime | None:
    """The time before which messages go; None keeps all."""
    times: list[datetime | None] = []
    if limits.age is not None:
        times.append(instant(max(0.0, now - limits.age)))
    if limits.messages is not None:
        times.append(_time_of_newest(connection, tenant, limits.messages))
    if limits.size is not None:
        times.append(_time_of_newest(connection, tenant, _fitting(connection, tenant, limits.size)))
    return max((time for time in times if time is not None), default=None)


def _time_of_newest(connection: Connection, tenant: MessageId, kept: int) -> datetime | None:
    """The time of the oldest of the newest `kept` messages; None where there are no more."""
    newest = (
        select(_messages.created_at)
        .where(_messages.tenant_id == tenant)
        .order_by(_messages.id.desc())
    )
    gone: datetime | None = connection.scalar(newest.offset(kept).limit(1))
    return None if gone is None else gone + timedelta(microseconds=1)


def _fitting(connection: Connection, tenant: MessageId, size: int) -> int:
    """How many of the newest messages fit into so many bytes."""
    length = func.length(cast(_messages.payload, Text)) + func.coalesce(
        func.length(cast(_messages.headers, Text)), 0
    )
    lengths = connection.execution_options(stream_results=True).scalars(
        select(length).where(_messages.tenant_id == tenant).order_by(_messages.id.desc())
    )
    count = taken = 0
    for one in lengths:
        taken += ROW_BYTES + one
        if taken > size:
            break
        count += 1
    lengths.close()
    return count


class _Cut:
    """How much of one chain may go now."""

    def __init__(
        self, connection: Connection, tenant: MessageId, number: int, before: datetime
    ) -> None:
        self._connection = connection
        self._number = number
        self._tenant = tenant
        self._first = 1 + (
            connection.scalar(
                select(func.max(_acts.target_seq)).where(
                    _acts.tenant_id == tenant,
                    _acts.kind == Kind.DELETED.value,
                    _acts.target == str(number),
                )
            )
            or 0
        )
        head: int = connection.scalar(select(_chains.seq).where(_chains.number == number)) or 0
        young = self._first_of(_messages.created_at >= before, _events.ended_at >= before)
        holding = held(connection, tenant)
        of_held = select(_messages.id).where(_messages.tenant_id == tenant, holding)
        kept = self._first_of(holding, _events.message_id.in_(of_held))
        last = min([head, *(seq - 1 for seq in (young, kept) if seq is not None)])
        self.held = kept is not None and (young is None or kept < young)
        self.through = min(last, self._first + MOST_AT_ONCE - 1) if last >= self._first else 0
        self.gone: Head | None = None

    def delete(self) -> int:
        """Delete so far; how many rows that were."""
        hashes = self._hashes_at(self.through)
        self.gone = Head(self.through, bytes(hashes[0]))
        tenancy.retaining(self._connection)
        count = 0
        for model in (AgentMessage, MessageEvent):
            table: Any = model.__table__
            done = self._connection.execute(
                delete(model).where(
                    table.c.tenant_id == self._tenant,
                    table.c.chain == self._number,
                    table.c.seq <= self.through,
                )
            )
            count += done.rowcount
        return count

    def _hashes_at(self, seq: int) -> list[bytes]:
        found = [
            self._connection.scalar(
                select(table.hash).where(table.chain == self._number, table.seq == seq)
            )
            for table in (_messages, _events)
        ]
        hashes = [one for one in found if one is not None]
        if not hashes:
            raise InvalidQuery(
                f"row {seq:,} of chain {self._number} is missing: retention would cover up what"
                " actorbus audit verify shows"
            )
        return hashes

    def _first_of(
        self, of_messages: ColumnElement[bool], of_events: ColumnElement[bool]
    ) -> int | None:
        """The first place in the chain of a row that meets the condition for its table."""
        firsts = list(self._firsts(of_messages, of_events))
        return min((one for one in firsts if one is not None), default=None)

    def _firsts(
        self, of_messages: ColumnElement[bool], of_events: ColumnElement[bool]
    ) -> Iterator[int | None]:
        for table, condition in ((_messages, of_messages), (_events, of_events)):
            yield self._connection.scalar(
                select(func.min(table.seq)).where(
                    table.tenant_id == self._tenant, table.chain == self._number, condition
                )
            )
