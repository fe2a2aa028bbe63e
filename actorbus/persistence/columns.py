"""How our values are stored: what SQLAlchemy's own types do not say the same way everywhere.

| value | in Python | SQLite | PostgreSQL |
|---|---|---|---|
| id | int, the bits of a UUIDv7 | BLOB of 16 bytes | uuid |
| instant | aware ``datetime`` in UTC | INTEGER, microseconds since the epoch | timestamptz |
| word | ``StrEnum``, open to new members | TEXT | text |
| document | JSON | TEXT | jsonb |

Sixteen bytes sort as UUIDv7 sort, so a key is also an order in time.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import JSON, TIMESTAMP, BigInteger, LargeBinary, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

from actorbus.message import MessageId, OpenStrEnum

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Id(TypeDecorator[MessageId]):
    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else LargeBinary(16))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        return None if value is None else id_encoder(dialect.name)(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> MessageId | None:
        if value is None:
            return None
        return MessageId(value.int if isinstance(value, UUID) else int.from_bytes(value))


class Instant(TypeDecorator[datetime]):
    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(
            TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger()
        )

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "postgresql":
            moment: datetime = value
            return moment.astimezone(UTC)
        return _EPOCH + timedelta(microseconds=value)


class Word(TypeDecorator[OpenStrEnum]):
    """A member of an open enum, kept as its text."""

    impl = Text
    cache_ok = True

    def __init__(self, enum: type[OpenStrEnum]) -> None:
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> OpenStrEnum | None:
        return None if value is None else self.enum(value)


class Document(TypeDecorator[Any]):
    """JSON, as text in SQLite: what its own type JSON holds alone, it keeps as a number if it
    looks like one. That makes 1 of 1.0, and rounds what is longer than 64 bits.
    """

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return json.dumps(value, ensure_ascii=False)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return json.loads(value)


def id_encoder(dialect: str) -> Any:
    """The function that makes an id what the driver takes, without a type's detour."""
    if dialect == "postgresql":
        return lambda value: UUID(int=value)
    return lambda value: value.to_bytes(16)


def instant_encoder(dialect: str) -> Any:
    """The function that makes node time (seconds) what the driver takes."""
    if dialect == "postgresql":
        return instant
    return lambda seconds: int(seconds * 1_000_000)


def instant(seconds: float) -> datetime:
    """Node time as people and SQL know it, to the microsecond."""
    return _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))


def microseconds(moment: datetime) -> int:
    """A moment as SQLite keeps it: since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND
