"""Chains in the database: how an incarnation begins its own, adds to it, and reads it again.

The head stands in the row of the chain, and moves in the transaction that adds the rows, from
exactly where the writer believes it to be. So after a commit in doubt the writer asks the
database how far the chain goes, and two writers cannot add the same row.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import desc, insert, select, update

from actorbus.errors import AuditUnavailable
from actorbus.persistence.chain import (
    NO_DIGEST,
    NOT_HASHABLE,
    Head,
    Incarnation,
    Malformed,
    Seal,
    canonical_digest,
    digest,
)
from actorbus.persistence.columns import instant, microseconds
from actorbus.persistence.models import Chain, Tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from actorbus.message import MessageId

ACTS: Final = ""
"""Stands for a node in the chain of what is done to history itself."""
MESSAGE_WIDTH: Final = 24
EVENT_WIDTH: Final = 11
_PAYLOAD: Final = 11
_HEADERS: Final = 12

_MOVE: Final = "UPDATE chains SET seq = ?, hash = ? WHERE number = ? AND seq = ?"

_table: Final = Chain.__table__.c


def open_chain(
    connection: Connection,
    tenant: MessageId,
    incarnation: MessageId,
    *,
    node: str,
    now: float,
    anchors: str | None,
) -> tuple[Incarnation, Head]:
    """The chain of an incarnation and its head; it begins here if it did not yet."""
    found = _find(connection, tenant, incarnation)
    if found is not None:
        return found
    before = connection.execute(
        select(_table.number, _table.seq, _table.hash)
        .where(_table.tenant_id == tenant, _table.node == node)
        .order_by(desc(_table.number))
        .limit(1)
    ).first()
    row = {
        "tenant_id": tenant,
        "incarnation": incarnation,
        "node": node,
        "started_at": instant(now),
        "previous": None if before is None else before.number,
        "link_seq": 0 if before is None else before.seq,
        "link": NO_DIGEST if before is None else before.hash,
        "anchors": anchors,
        "genesis": NO_DIGEST,
        "seq": 0,
        "hash": NO_DIGEST,
    }
    number = connection.execute(insert(Chain).values(row).returning(_table.number)).scalar_one()
    head = incarnation_of({**row, "number": number}).genesis()
    connection.execute(
        update(Chain).where(_table.number == number).values(genesis=head.hash, hash=head.hash)
    )
    made = _find(connection, tenant, incarnation)
    assert made is not None  # noqa: S101 - it was written a line above
    return made


def find_acts(connection: Connection, tenant: str) -> tuple[Incarnation, Head] | None:
    """The chain of what was done to a tenant's history itself; None if nothing was."""
    key = connection.scalar(select(Tenant.id).where(Tenant.name == tenant))
    return None if key is None else _find(connection, key, key)


def incarnation_of(row: Any) -> Incarnation:
    """What a chain says of itself, from its row."""
    return Incarnation(
        tenant=row["tenant_id"].to_bytes(16),
        number=row["number"],
        id=row["incarnation"].to_bytes(16),
        node=row["node"],
        started_at=microseconds(row["started_at"]),
        previous=row["previous"],
        link_seq=row["link_seq"],
        link=bytes(row["link"]),
        anchors=row["anchors"],
    )


class Sealer:
    """Gives rows their places in a chain. What it hands out must be committed before more."""

    def __init__(self, dialect: str, incarnation: Incarnation, head: Head) -> None:
        self.number = incarnation.number
        self.node = incarnation.node
        self.head = head
        self._seal = Seal()
        self._postgresql = dialect == "postgresql"
        self._digest = canonical_digest if self._postgresql else digest
        self._move = _MOVE.replace("?", "%s") if self._postgresql else _MOVE

    def move(self, connection: Connection, before: Head) -> None:
        """Write where the chain ends now, if it still ended at `before` until now.

        Raises:
            AuditUnavailable: somebody else adds to this chain.
        """
        moved = connection.exec_driver_sql(
            self._move, (self.head.seq, self.head.hash, self.number, before.seq)
        )
        if moved.rowcount != 1:
            raise AuditUnavailable(
                f"chain {self.number} of the history does not end at row {before.seq:,} any more:"
                " somebody else writes to it"
            )

    def messages(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """The values of `rows` one after another, each with its chain, place and hash behind it.

        Raises:
            Malformed: a value that its column has no room for.
        """
        try:
            return self._messages(rows)
        except NOT_HASHABLE as error:
            raise Malformed(str(error)) from None

    def events(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """``messages`` for rows of events."""
        try:
            return self._events(rows)
        except NOT_HASHABLE as error:
            raise Malformed(str(error)) from None

    def act(self, row: Sequence[Any]) -> Head:
        """The place of something done to history itself, by its row in the hashed form."""
        seq = self.head.seq + 1
        self.head = Head(seq, self._seal.act(self.head.hash, seq, row))
        return self.head

    def _messages(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        seal, to_digest, number = self._seal.message, self._digest, self.number
        seq, last = self.head.seq, self.head.hash
        sealed: list[Any] = []
        add = sealed.extend
        for row in rows:
            seq += 1
            headers = row[_HEADERS]
            last = seal(
                last,
                seq,
                plain(row) if self._postgresql else row,
                to_digest(row[_PAYLOAD]),
                NO_DIGEST if headers is None else to_digest(headers),
            )
            add(row)
            add((number, seq, last))
        self.head = Head(seq, last)
        return sealed

    def _events(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        seq, last = self.head.seq, self.head.hash
        sealed: list[Any] = []
        for row in rows:
            seq += 1
            last = self._seal.event(last, seq, plain(row) if self._postgresql else row)
            sealed += (*row, self.number, seq, last)
        self.head = Head(seq, last)
        return sealed


def plain(row: Sequence[Any]) -> list[Any]:
    """A row as PostgreSQL's driver takes or gives it, in the form that is hashed."""
    return [
        value.bytes
        if value.__class__ is UUID
        else microseconds(value)
        if value.__class__ is datetime
        else value
        for value in row
    ]


def _find(
    connection: Connection, tenant: MessageId, incarnation: MessageId
) -> tuple[Incarnation, Head] | None:
    row = (
        connection.execute(
            select(Chain.__table__).where(
                _table.tenant_id == tenant, _table.incarnation == incarnation
            )
        )
        .mappings()
        .first()
    )
    return None if row is None else (incarnation_of(row), Head(row["seq"], bytes(row["hash"])))
