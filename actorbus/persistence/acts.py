"""What is done to history itself: every act is a row in a chain that each tenant has for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select

from actorbus.errors import InvalidQuery, UnknownRecord
from actorbus.persistence.chains import ACTS, Sealer, open_chain
from actorbus.persistence.columns import instant, microseconds
from actorbus.persistence.models import AuditAct, Tenant

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from actorbus.message import IdSource, MessageId
    from actorbus.persistence.chain import Head

_table: Final = AuditAct.__table__.c


class Kind(StrEnum):
    DELETED = "deleted"
    """The beginning of a chain, by retention: the tombstone."""
    REDACTED = "redacted"
    HELD = "held"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Act:
    """Who did what to history, when and why."""

    kind: Kind
    target: str
    actor: str
    reason: str
    at: datetime
    seq: int
    target_seq: int | None = None
    rows: int | None = None


def check_words(actor: str, reason: str) -> None:
    """
    Raises:
        InvalidQuery: nobody answers for an act, or it has no reason.
    """
    for what, words in (("who does it", actor), ("why", reason)):
        if not words.strip():
            raise InvalidQuery(f"history keeps {what}: say so in a few words")


def record(
    connection: Connection,
    tenant: MessageId,
    kind: Kind,
    target: str,
    *,
    actor: str,
    reason: str,
    ids: IdSource,
    now: float,
    gone: Head | None = None,
    rows: int | None = None,
    anchors: str | None = None,
) -> tuple[Sealer, bytes]:
    """Add an act in the transaction that is open; its chain, and the tenant as it is hashed.

    Raises:
        InvalidQuery: nobody answers for it, or it has no reason.
    """
    check_words(actor, reason)
    at, own = instant(now), ids.make(now)
    chain, head = open_chain(connection, tenant, tenant, node=ACTS, now=now, anchors=anchors)
    sealer = Sealer(connection.dialect.name, chain, head)
    row = {
        "tenant_id": tenant,
        "id": own,
        "kind": kind.value,
        "actor": actor,
        "reason": reason,
        "at": at,
        "target": target,
        "target_seq": None if gone is None else gone.seq,
        "target_hash": None if gone is None else gone.hash,
        "rows": rows,
    }
    place = sealer.act(hashed(row))
    connection.execute(
        insert(AuditAct).values(**row, chain=chain.number, seq=place.seq, hash=place.hash)
    )
    sealer.move(connection, head)
    return sealer, chain.tenant


def hashed(row: Any) -> tuple[Any, ...]:
    """An act's row in the form that is hashed."""
    return (
        row["tenant_id"].to_bytes(16),
        row["id"].to_bytes(16),
        row["kind"],
        row["actor"],
        row["reason"],
        microseconds(row["at"]),
        row["target"],
        row["target_seq"],
        row["target_hash"],
        row["rows"],
    )


def acts(connection: Connection, tenant: MessageId, *kinds: Kind) -> list[Act]:
    """The acts of some kinds, in their order."""
    rows = connection.execute(
        select(AuditAct.__table__)
        .where(_table.tenant_id == tenant, _table.kind.in_([kind.value for kind in kinds]))
        .order_by(_table.seq)
    )
    return [
        Act(
            Kind(row.kind),
            row.target,
            row.actor,
            row.reason,
            row.at,
            row.seq,
            row.target_seq,
            row.rows,
        )
        for row in rows
    ]


def tenant_key(connection: Connection, tenant: str) -> MessageId:
    """A tenant's key.

    Raises:
        UnknownRecord: there is none of that name.
    """
    key = connection.scalar(select(Tenant.id).where(Tenant.name == tenant))
    if key is None:
        raise UnknownRecord("tenant", tenant, "this history")
    return key
