"""From messages to rows, and the statements that write them.

This is the writer's inner loop. Parameters are built in the form the driver takes, beside
SQLAlchemy's types (``columns.py`` reads them back), and one INSERT carries many rows
(``bulk.py`` says why).

Every statement does nothing where the key exists, and a row that is there already gets no
second place in the chain: the first batch after connecting, whose commit may or may not have
happened before, and any that turns out to hold such a row, is written without those.
"""

from __future__ import annotations

from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import select

from actorbus.message import MessageKind, Status, type_name
from actorbus.persistence.bulk import ArrayInsert, Insert, LeanInsert
from actorbus.persistence.columns import id_encoder, instant_encoder
from actorbus.persistence.models import AgentMessage, Base, MessageEvent, Project, Tenant
from actorbus.persistence.payloads import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from actorbus.message import Entry, IdSource, MessageId, PlainEntry
    from actorbus.persistence.chains import Sealer
    from actorbus.persistence.masking import Mask
    from actorbus.persistence.run_rows import RunRows

_MESSAGE_COLUMNS: Final = (
    "tenant_id",
    "id",
    "project_id",
    "node",
    "run_id",
    "kind",
    "type",
    "sender",
    "recipient",
    "topic",
    "priority",
    "payload",
    "headers",
    "correlation_id",
    "causation_id",
    "hops",
    "created_at",
    "deadline",
    "status",
    "reason",
    "error",
    "attempt",
    "started_at",
    "ended_at",
    "chain",
    "seq",
    "hash",
)
_EVENT_COLUMNS: Final = (
    "tenant_id",
    "id",
    "message_id",
    "node",
    "recipient",
    "status",
    "reason",
    "error",
    "attempt",
    "started_at",
    "ended_at",
    "chain",
    "seq",
    "hash",
)
_MOST_KEYS: Final = 500
_KEY, _PAYLOAD, _HEADERS, _MESSAGE_ERROR, _EVENT_ERROR = 1, 11, 12, 20, 7
_RUN, _RECIPIENT, _CREATED = 4, 8, 16
_HEARD_IN = 8
"""Of an outcome, the run."""
_ACCEPTED: Final = Status.ACCEPTED.value
_TELL: Final = MessageKind.TELL.value
_REQUEST: Final = MessageKind.REQUEST.value
_DRIVERS_OWN: Final = frozenset({int, bytes, type(None), UUID, datetime})
_MAX_NAME: Final = 512
"""Longer names of types and runs are cut: an index entry must fit a page."""

Row: TypeAlias = "tuple[Any, ...]"
"""The values of a row's columns but for its place in the chain, as the driver takes them."""

Outcome: TypeAlias = (
    "tuple[MessageId, str | None, str, str | None, str | None, int, float | None, float,"
    " str | None]"
)
"""How a delivery ended: message's id, recipient where the message names none, status, reason,
error, attempt, started_at, ended_at, and the run that such a recipient took part in. Words and
numbers only: one is made for every message, a hundred thousand may wait, and what holds nothing
else is none of the garbage collector's business."""


def project_key(
    connection: Connection, tenant: str, project: str, *, ids: IdSource, now: float
) -> tuple[MessageId, MessageId]:
    """The keys of a tenant and its project, whose rows are made where there are none."""
    dialect = connection.dialect.name
    to_id, moment = id_encoder(dialect), instant_encoder(dialect)(now)
    placeholder = _placeholder(dialect)
    tenants = Insert("tenants", ("id", "name", "created_at"), placeholder, 1)
    tenants.run(connection, [to_id(ids.make(now)), tenant, moment])
    tenant_id = connection.scalars(select(Tenant.id).where(Tenant.name == tenant)).one()
    projects = Insert("projects", ("tenant_id", "id", "name", "created_at"), placeholder, 1)
    projects.run(connection, [to_id(tenant_id), to_id(ids.make(now)), project, moment])
    project_id = connection.scalars(
        select(Project.id).where(Project.tenant_id == tenant_id, Project.name == project)
    ).one()
    return tenant_id, project_id


class Rows:
    """Makes and writes the rows of one node of one project.

    Once a ``write`` or its commit has failed, it is of no more use: its chain is ahead.
    """

    def __init__(
        self,
        dialect: str,
        *,
        tenant: MessageId,
        project: MessageId,
        node: str,
        batch: int,
        chain: Sealer,
        mask: Mask | None = None,
        runs: RunRows | None = None,
    ) -> None:
        self.chain = chain
        self._runs = runs
        self._mask = mask
        self._placeholder = _placeholder(dialect)
        self._careful = True
        self._id = id_encoder(dialect)
        self._instant = instant_encoder(dialect)
        self._tenant = self._id(tenant)
        self._project = self._id(project)
        self._node = node
        self._dialect = dialect
        self._batch = batch
        self._make_statements()

    def of(self, node: str) -> Rows:
        """The same for what another node spilled; its rows go into this one's chain."""
        if node == self._node:
            return self
        other = copy(self)
        other._node = node
        other._careful = True
        other._runs = self._runs and self._runs.of(node)
        other._make_statements()
        return other

    def write(
        self,
        connection: Connection,
        messages: Iterable[tuple[Entry, Outcome | None]],
        events: Iterable[tuple[MessageId, Outcome]],
        *,
        escaped: bool = False,
    ) -> None:
        """Write in the transaction that is open.

        `escaped` makes harmless what some database refuses in text: NULs, broken Unicode.
        """
        of_messages = [self._of_message(*pair) for pair in messages]
        happened = list(events)
        of_events = [self._of_event(*happening) for happening in happened]
        heard = [self._heard(outcome) for _, outcome in happened if outcome[_HEARD_IN]]
        if escaped:
            of_messages, of_events, heard = map(_inert, (of_messages, of_events, heard))
        if self._mask is not None:
            of_messages = _masked_messages(of_messages, self._mask)
            of_events = _masked_events(of_events, self._mask)
        if self._careful or not self._add(connection, of_messages, of_events):
            self._add(
                connection,
                self._unknown(connection, AgentMessage, of_messages),
                self._unknown(connection, MessageEvent, of_events),
            )
            self._careful = False
        # After them: what a database refuses in a name, it has refused by now.
        if self._runs is not None:
            told: list[Row] = [
                (row[_RUN], row[_RECIPIENT], row[_CREATED]) for row in of_messages if row[_RUN]
            ]
            self._runs.write(connection, told + heard)

    def _make_statements(self) -> None:
        self._messages = self._insert(AgentMessage, _MESSAGE_COLUMNS)
        self._events = self._insert(MessageEvent, _EVENT_COLUMNS)

    def _insert(self, model: type[Base], columns: Sequence[str]) -> Insert | ArrayInsert:
        if self._dialect == "postgresql":
            table = Base.metadata.tables[model.__tablename__]
            return ArrayInsert(table, columns, self._batch)
        return LeanInsert(
            model.__tablename__,
            columns,
            self._placeholder,
            self._batch,
            constants={
                "tenant_id": self._tenant,
                "project_id": self._project,
                "node": self._node,
                "chain": self.chain.number,
            },
        )

    def _add(
        self, connection: Connection, of_messages: Sequence[Row], of_events: Sequence[Row]
    ) -> bool:
        """Add rows to the chain; False, and nothing is done, if some are there already."""
        rows = len(of_messages) + len(of_events)
        if not rows:
            return True
        chain, before = self.chain, self.chain.head
        connection.exec_driver_sql("SAVEPOINT rows_alone")
        new = self._messages.run(connection, chain.messages(of_messages))
        new += self._events.run(connection, chain.events(of_events))
        if new == rows:
            chain.move(connection, before)
            return True
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT rows_alone")
        chain.head = before
        return False

    def _unknown(self, connection: Connection, model: type[Base], rows: Sequence[Row]) -> list[Row]:
        """Those rows whose keys the table does not have yet, each once."""
        keys = [row[_KEY] for row in rows]
        known: set[Any] = set()
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            marks = ", ".join([self._placeholder] * len(some))
            found = connection.exec_driver_sql(
                f"SELECT id FROM {model.__tablename__}"  # noqa: S608 - names from our models
                f" WHERE tenant_id = {self._placeholder} AND id IN ({marks})",
                (self._tenant, *some),
            )
            known.update(found.scalars())
        fresh: dict[Any, Row] = {}
        for row in rows:
            if row[_KEY] not in known:
                fresh.setdefault(row[_KEY], row)
        return list(fresh.values())

    def _of_message(self, message: Entry, outcome: Outcome | None) -> Row:
        if isinstance(message, tuple):
            return self._of_plain(message, outcome)
        to_id, to_instant = self._id, self._instant
        causation, deadline, headers = message.causation_id, message.deadline, message.headers
        # `_value_`: drivers take a str itself far quicker than a subclass of it.
        return (
            self._tenant,
            to_id(message.id),
            self._project,
            self._node,
            _cut(message.run_id),
            message.kind._value_,
            message.type[:_MAX_NAME],
            message.sender,
            message.recipient,
            message.topic,
            message.priority._value_,
            encode(message.payload),
            encode(dict(headers)) if headers else None,
            to_id(message.correlation_id),
            None if causation is None else to_id(causation),
            message.hops,
            to_instant(message.created_at),
            None if deadline is None else to_instant(deadline),
            *(self._not_ended(message.attempt) if outcome is None else self._ending(outcome)),
        )

    def _of_plain(self, entry: PlainEntry, outcome: Outcome | None) -> Row:
        """The same for an entry without envelope: the hot path, so the usual ending is in line."""
        (
            message_id,
            sender,
            payload,
            priority,
            created_at,
            correlation_id,
            causation_id,
            run_id,
            hops,
            deadline,
            answer_to,
            recipient,
        ) = entry
        to_id, to_instant = self._id, self._instant
        own = to_id(message_id)
        if outcome is None:
            status, reason, error, attempt, started, ended = self._not_ended(1)
        else:
            _, _, status, reason, error, attempt, started_at, ended_at, _ = outcome
            started = None if started_at is None else to_instant(started_at)
            ended = to_instant(ended_at)
        return (
            self._tenant,
            own,
            self._project,
            self._node,
            None if run_id is None else _cut(run_id),
            _TELL if answer_to is None else _REQUEST,
            type_name(payload.__class__)[:_MAX_NAME],
            sender,
            recipient,
            None,
            priority,
            encode(payload),
            None,
            own if correlation_id == message_id else to_id(correlation_id),
            None if causation_id is None else to_id(causation_id),
            hops,
            to_instant(created_at),
            None if deadline is None else to_instant(deadline),
            status,
            reason,
            error,
            attempt,
            started,
            ended,
        )

    def _of_event(self, event_id: MessageId, outcome: Outcome) -> Row:
        message_id, recipient = outcome[:2]
        return (
            self._tenant,
            self._id(event_id),
            self._id(message_id),
            self._node,
            recipient,
            *self._ending(outcome),
        )

    def _heard(self, outcome: Outcome) -> Row:
        """Who got a message that names no recipient, in which run, and when."""
        _, recipient, _, _, _, _, started_at, ended_at, run = outcome
        moment = self._instant(ended_at if started_at is None else started_at)
        return _cut(run), recipient, moment

    @staticmethod
    def _not_ended(attempt: int) -> tuple[Any, ...]:
        return (_ACCEPTED, None, None, attempt, None, None)

    def _ending(self, outcome: Outcome) -> tuple[Any, ...]:
        _, _, status, reason, error, attempt, started_at, ended_at, _ = outcome
        return (
            status,
            reason,
            error,
            attempt,
            None if started_at is None else self._instant(started_at),
            self._instant(ended_at),
        )


def _cut(run: Any) -> Any:
    """A run's name, which only the node where it began has looked at."""
    return run[:_MAX_NAME] if isinstance(run, str) else run


def _inert(rows: list[Row]) -> list[Row]:
    return [
        tuple([one if one.__class__ in _DRIVERS_OWN else _inert_text(one) for one in row])
        for row in rows
    ]


def _masked_messages(rows: list[Row], mask: Mask) -> list[Row]:
    return [
        (
            *row[:_PAYLOAD],
            mask.document(row[_PAYLOAD]),
            None if row[_HEADERS] is None else mask.document(row[_HEADERS]),
            *row[_HEADERS + 1 : _MESSAGE_ERROR],
            None if row[_MESSAGE_ERROR] is None else mask.text(row[_MESSAGE_ERROR]),
            *row[_MESSAGE_ERROR + 1 :],
        )
        for row in rows
    ]


def _masked_events(rows: list[Row], mask: Mask) -> list[Row]:
    return [
        (
            *row[:_EVENT_ERROR],
            None if row[_EVENT_ERROR] is None else mask.text(row[_EVENT_ERROR]),
            *row[_EVENT_ERROR + 1 :],
        )
        for row in rows
    ]


def _placeholder(dialect: str) -> str:
    return "%s" if dialect == "postgresql" else "?"


def _inert_text(value: object) -> str:
    clean = str(value).encode("utf-8", "backslashreplace").decode()
    return clean.replace("\0", "\ufffd").replace("\\u0000", "\\ufffd")
