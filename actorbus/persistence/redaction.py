"""Redaction: a payload and its headers give way to their digests, and the chain still holds.

Somebody does it, for a reason, and that is kept. What a message was and what became of it
stays. A digest says what the payload was to whoever can guess it: of a short one ("yes", "no")
it is no secret.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import Text, cast, null, select, update

from actorbus.errors import UnknownRecord
from actorbus.message import format_id
from actorbus.persistence import tenancy
from actorbus.persistence.acts import Kind, record, tenant_key
from actorbus.persistence.chain import canonical_digest, digest
from actorbus.persistence.holds import check_not_held
from actorbus.persistence.models import AgentMessage

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from actorbus.message import IdSource, MessageId
    from actorbus.persistence.database import Database

REDACTED: Final = "$redacted"

_table: Final = AgentMessage.__table__.c


def redact(
    database: Database,
    tenant: str,
    id: MessageId,
    *,
    actor: str,
    reason: str,
    ids: IdSource,
    now: float,
) -> bool:
    """Take away the payload and headers of a message; False if they were away already.

    Raises:
        UnknownRecord: the tenant has no such message.
        HistoryHeld: it is on legal hold.
        InvalidQuery: nobody answers for it, or there is no reason.
    """
    with database.of(tenant).changing() as connection:
        key = tenant_key(connection, tenant)
        check_not_held(connection, key, id)
        if not _redact(connection, key, id):
            return False
        record(
            connection,
            key,
            Kind.REDACTED,
            format_id(id),
            actor=actor,
            reason=reason,
            ids=ids,
            now=now,
        )
        return True


def marker(payload_digest: bytes) -> dict[str, str]:
    """What stands for a payload that was taken away."""
    return {REDACTED: f"sha256:{payload_digest.hex()}"}


def is_redacted(document: str, payload_digest: bytes) -> bool:
    """Whether a payload is that and nothing else."""
    return bool(json.loads(document) == marker(payload_digest))


def _redact(connection: Connection, tenant: MessageId, id: MessageId) -> bool:
    mine = (_table.tenant_id == tenant, _table.id == id)
    tenancy.retaining(connection)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    row = connection.execute(
        select(cast(_table.payload, Text), cast(_table.headers, Text), _table.payload_digest).where(
            *mine
        )
    ).first()
    if row is None:
        raise UnknownRecord("message", format_id(id), "this history")
    if row[2] is not None:
        return False
    to_digest = canonical_digest if connection.dialect.name == "postgresql" else digest
    taken = to_digest(row[0])
    connection.execute(
        update(AgentMessage)
        .where(*mine)
        .values(
            payload=marker(taken),
            payload_digest=taken,
            headers=null(),
            headers_digest=None if row[1] is None else to_digest(row[1]),
        )
    )
    return True
