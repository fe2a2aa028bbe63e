"""``Audit``: where history is kept, and what it answers.

SQLAlchemy is imported with the first question or the first record, not with this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import InvalidQuery
from actorbus.message import Status, parse_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from uuid import UUID

    from actorbus.clock import Clock
    from actorbus.message import MessageId, MessageKind, Priority, Reason
    from actorbus.persistence.database import Database
    from actorbus.persistence.queries import Reader
    from actorbus.persistence.recorder import Recorder
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_MOST: Final = 10_000
_FLUSH: Final = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one delivery of a message ended. Times are in UTC."""

    recipient: str | None
    status: Status
    reason: Reason | None
    error: str | None
    attempt: int
    started_at: datetime | None
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as history knows it, with what became of it.

    Of a message to one recipient the last delivery counts. Of a broadcast or event the worst
    does, over the last of each recipient. ``payload`` is what its JSON decodes to.
    """

    id: MessageId
    kind: MessageKind
    type: str
    sender: str | None
    recipient: str | None
    topic: str | None
    payload: Any
    headers: Mapping[str, str]
    priority: Priority
    run_id: str | None
    node: str
    correlation_id: MessageId
    causation_id: MessageId | None
    hops: int
    created_at: datetime
    deadline: datetime | None
    status: Status
    reason: Reason | None
    error: str | None
    attempts: int
    started_at: datetime | None
    ended_at: datetime | None
    deliveries: tuple[Delivery, ...]

    @property
    def waited(self) -> float | None:
        """Seconds from sending until a handler began."""
        return _seconds(self.created_at, self.started_at)

    @property
    def took(self) -> float | None:
        """Seconds from when a handler began until the last one ended."""
        return _seconds(self.started_at, self.ended_at)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages there are, in all and by what."""

    messages: int
    by_status: Mapping[Status, int]
    by_kind: Mapping[MessageKind, int]
    by_type: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages are wanted; None leaves a field open."""

    sender: str | None = None
    recipient: str | None = None
    agent: str | None = None
    type: str | None = None
    status: Status | None = None
    run: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    limit: int = 100
    before: MessageId | None = None


class Audit:
    """A history database, seen by one project of one tenant.

    ``strict``: a message is delivered only once its record is committed.

    Every question first writes what the node has not written yet (for at most 5 s), so an
    answer holds all that happened before it was asked. An Audit without a node reads a history
    that exists and never makes one.

    Raises:
        AuditUnavailable: by any method: the database cannot be used; the error says what would
            have worked.
    """

    def __init__(
        self,
        url: str,
        *,
        strict: bool = False,
        tenant: str = "default",
        project: str = "default",
    ) -> None:
        self.strict = strict
        self.tenant = tenant
        self.project = project
        self._url = url
        self._opened: Database | None = None
        self._recorder: Recorder | None = None

    @property
    def url(self) -> str:
        """The URL without its secrets."""
        return self._database().shown

    @property
    def path(self) -> Path | None:
        """The file, for a history that is one."""
        return self._database().path

    def bind(self, tenant: str, project: str) -> Audit:
        """The same database, seen by another project."""
        bound = Audit(self._url, strict=self.strict, tenant=tenant, project=project)
        bound._opened = self._database().of(tenant)
        return bound

    def record(
        self, *, node: str, settings: Settings, telemetry: Telemetry, clock: Clock
    ) -> Recorder:
        """The recorder of a node, for this tenant and project; start it, and close it."""
        from actorbus.persistence.recorder import Recorder

        self._recorder = Recorder(
            self._database(),
            telemetry=telemetry,
            settings=settings,
            node=node,
            clock=clock,
            tenant=self.tenant,
            project=self.project,
            strict=self.strict,
        )
        return self._recorder

    def message(self, id: MessageId | str | UUID) -> MessageView | None:
        """One message; None if history has none of that id."""
        return self._reader().message(parse_id(id))

    def conversation(self, id: MessageId | str | UUID, *, limit: int = _MOST) -> list[MessageView]:
        """The messages of one conversation in the order they were sent, the first `limit`.

        `id` is its ``correlation_id``, or the id of any message in it.
        """
        return self._reader().conversation(parse_id(id), _limit(limit))

    def messages(
        self,
        *,
        sender: str | None = None,
        recipient: str | None = None,
        agent: str | None = None,
        type: str | None = None,
        status: Status | str | None = None,
        run: str | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        text: str | None = None,
        limit: int = 100,
        before: MessageId | str | UUID | None = None,
    ) -> list[MessageView]:
        """Messages that match every filter given, newest first, at most `limit`.

        `recipient` matches those that a broadcast reached too, `agent` the sender or a
        recipient, `text` any part of payload or error in any case. `since` is included,
        `until` is not; both are aware datetimes or seconds since the epoch. The next page is
        `before` the ``id`` of this page's last message.

        Raises:
            InvalidQuery: a filter that cannot be meant.
            InvalidName: `before` is no message id.
        """
        wanted = Filter(
            sender=sender,
            recipient=recipient,
            agent=agent,
            type=type,
            status=_status(status),
            run=run,
            since=_moment("since", since),
            until=_moment("until", until),
            text=text,
            limit=_limit(limit),
            before=None if before is None else parse_id(before),
        )
        return self._reader().messages(wanted)

    def counts(self) -> Counts:
        """How many messages there are, and how they stand."""
        return self._reader().counts()

    def close(self) -> None:
        """Let go of the database; one in memory is gone. Idempotent."""
        if self._opened is not None:
            self._opened.close()

    def _reader(self) -> Reader:
        from actorbus.persistence.queries import Reader

        if self._recorder is not None:
            self._recorder.flush(_FLUSH)
        return Reader(self._database(), self.tenant, self.project)

    def _database(self) -> Database:
        from actorbus.persistence.database import Database

        if self._opened is None:
            self._opened = Database(self._url, durable=self.strict).of(self.tenant)
        return self._opened

    def __repr__(self) -> str:
        return f"<Audit of {self.project!r} of tenant {self.tenant!r}>"


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


def _limit(limit: int) -> int:
    if not 1 <= limit <= _MOST:
        raise InvalidQuery(f"limit is {limit}: it must be from 1 to {_MOST:,}; page with before=")
    return limit


def _status(status: Status | str | None) -> Status | None:
    if status is None:
        return None
    if status not in Status.__members__.values():
        known = ", ".join(Status)
        raise InvalidQuery(f"no status {str(status)[:64]!r}: use one of {known}")
    return Status(status)


def _moment(name: str, value: datetime | float | None) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidQuery(f"{name} has no time zone: use datetime.now(UTC) or seconds")
        return value.astimezone(UTC)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidQuery(f"{name} is {value!r}: that is no time in seconds") from None
