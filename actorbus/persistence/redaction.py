"""Redaction: a payload and what quotes it give way to digests, and the chain still holds.

Beside the payload these are the headers, the errors of the message with their tracebacks (in
its row and in its events'), and the errors that answered it. What handlers passed on in other
messages is theirs: ``Audit.effects`` finds it. Somebody redacts, for a reason, and that is kept.
What a message was and what became of it stays. A digest says what the payload was to whoever
can guess it: of a short one ("yes", "no") it is no secret.

Out of reach are copies: exports, backups, a database's log and, on PostgreSQL, the old rows
until VACUUM.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, cast, null, select, update

from actorbus.errors import UnknownRecord
from actorbus.message import MessageKind, format_id
from actorbus.persistence import tenancy
from actorbus.persistence.acts import Kind, record, tenant_key
from actorbus.persistence.chain import canonical_digest, digest
from actorbus.persistence.holds import check_not_held
from actorbus.persistence.models import AgentMessage, MessageEvent

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from actorbus.message import IdSource, MessageId
    from actorbus.persistence.database import Database
    from actorbus.persistence.models import Base

REDACTED: Final = "$redacted"

_TAKEN: Final = re.compile(rf"{re.escape(REDACTED)} sha256:([0-9a-f]{{64}})")
_table: Final = AgentMessage.__table__.c
_events: Final = MessageEvent.__table__.c
_request: Final = AgentMessage.__table__.alias("request")


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
    """Take away what a message said; False if it was away already.

    Raises:
        UnknownRecord: the tenant has no such message.
        HistoryHeld: it is on legal hold.
        InvalidQuery: nobody answers for it, or there is no reason.
    """
    with database.of(tenant).changing() as connection:
        key = tenant_key(connection, tenant)
        tenancy.retaining(connection)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
        quoting = _error_answers(connection, key, id)
        redacted = [one for one in (id, *quoting) if _redact(connection, key, one)]
        for one in redacted:
            record(
                connection,
                key,
                Kind.REDACTED,
                format_id(one),
                actor=actor,
                reason=reason,
                ids=ids,
                now=now,
            )
        return bool(redacted)


def marker(payload_digest: bytes) -> dict[str, str]:
    """What stands for a payload that was taken away."""
    return {REDACTED: f"sha256:{payload_digest.hex()}"}


def is_redacted(document: str, payload_digest: bytes) -> bool:
    """Whether a payload is that and nothing else."""
    return bool(json.loads(document) == marker(payload_digest))


def digest_of_taken(error: str | None) -> bytes | None:
    """The digest that stands for an error that was taken away; None if this is none."""
    found = _TAKEN.fullmatch(error or "")
    return None if found is None else bytes.fromhex(found[1])


def _redact(connection: Connection, tenant: MessageId, id: MessageId) -> bool:
    """Whether there was something to take away.

    Raises:
        HistoryHeld, UnknownRecord: as ``redact``.
    """
    check_not_held(connection, tenant, id)
    said = _take_payload(connection, tenant, id)
    errors = [
        _take_errors(connection, AgentMessage, (_table.tenant_id == tenant, _table.id == id)),
        _take_errors(
            connection, MessageEvent, (_events.tenant_id == tenant, _events.message_id == id)
        ),
    ]
    return said or any(errors)


def _take_payload(connection: Connection, tenant: MessageId, id: MessageId) -> bool:
    mine = (_table.tenant_id == tenant, _table.id == id)
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


def _take_errors(
    connection: Connection, model: type[Base], mine: tuple[ColumnElement[bool], ...]
) -> bool:
    table: Any = model.__table__.c
    found = connection.execute(
        select(table.id, table.error).where(*mine, table.error.is_not(None))
    ).all()
    errors = {key: error for key, error in found if digest_of_taken(error) is None}
    for key, error in errors.items():
        connection.execute(
            update(model)
            .where(*mine, table.id == key)
            .values(error=f"{REDACTED} sha256:{digest(error).hex()}")
        )
    return bool(errors)


def _error_answers(connection: Connection, tenant: MessageId, id: MessageId) -> list[MessageId]:
    """The errors that this message was answered with."""
    return list(
        connection.scalars(
            select(_table.id).where(
                _table.tenant_id == tenant,
                _table.causation_id == id,
                _table.kind == MessageKind.ERROR,
                _table.correlation_id
                == select(_request.c.correlation_id)
                .where(_request.c.tenant_id == tenant, _request.c.id == id)
                .scalar_subquery(),
            )
        )
    )
