"""Writes message history behind the bus: a bounded ring, one writer thread, batches.

Senders only append. ``sent`` keeps the message itself (a payload is read-only after sending)
and the writer turns it into rows, so the sender pays one length check and one append. The
writer takes all that waits at once: a message and its ending that wait together become one
row, an ending that comes later becomes an event. Then it writes in transactions of
``audit_batch`` rows.

Nothing is dropped. When the ring is full, senders wait until it is half empty: letting them in
one by one would have them fight the writer for Python's lock at every row. When the database
fails, the batch in hand is tried again until it is written, with a pause that doubles; whoever
listens gets ``AuditStalled`` and ``AuditResumed``. What is in memory when the process dies is
lost: at most what was sent in the last ``audit_interval`` while the database keeps up. A
``strict`` recorder returns from ``sent`` only once the message is committed.

The interval and the pauses are node time. ``flush``, ``close`` and a sender that waits for
room count real seconds: they wait for a disk, perhaps on the very thread that turns the clock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from sqlalchemy.exc import DataError, InterfaceError, ProgrammingError

from actorbus.errors import AuditUnavailable
from actorbus.message import IdSource, Message, MessageKind, Status, envelope, format_id
from actorbus.persistence.anchors import Proof
from actorbus.persistence.chains import Sealer, open_chain
from actorbus.persistence.database import Database
from actorbus.persistence.rows import Outcome, Rows, project_key
from actorbus.telemetry import AuditResumed, AuditStalled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from actorbus.clock import Clock
    from actorbus.message import Entry, MessageId, Reason
    from actorbus.persistence.anchors import Anchoring
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_HANDLED: Final = Status.HANDLED.value
_TO_MANY: Final = frozenset({MessageKind.BROADCAST, MessageKind.EVENT})

_UNWRITABLE: Final = (DataError, InterfaceError, ProgrammingError, ValueError, OverflowError)
"""What a database says to a value that it has no room for."""

T = TypeVar("T")

Pair: TypeAlias = "tuple[Entry, Outcome | None]"
Happening: TypeAlias = "tuple[MessageId, Outcome]"
_Window: TypeAlias = "tuple[list[Entry | _Ticket], list[Outcome]]"


class _Ticket:
    """A message whose sender waits until it is committed."""

    __slots__ = ("committed", "message")

    def __init__(self, message: Message[Any]) -> None:
        self.message = message
        self.committed: Future[None] = Future()

    def begin(self) -> bool:
        """Whether its sender still waits; from then on it must hear how it went."""
        return not self.committed.done() and self.committed.set_running_or_notify_cancel()

    def refuse(self, why: str) -> None:
        self.committed.set_exception(
            AuditUnavailable(f"the message was not sent, because of its record: {why}")
        )


class Recorder:
    """Keeps the history of one node. Safe from any thread.

    Raises:
        AuditUnavailable: the URL means no database that we know.
    """

    def __init__(
        self,
        database: Database | str,
        *,
        telemetry: Telemetry,
        settings: Settings,
        node: str,
        clock: Clock,
        tenant: str | None = None,
        project: str | None = None,
        strict: bool = False,
        proof: Proof | None = None,
    ) -> None:
        self._proof = Proof() if proof is None else proof
        self.database = (
            Database(database, durable=strict) if isinstance(database, str) else database
        )
        self.strict = strict
        self.tenant = settings.tenant if tenant is None else tenant
        self.project = settings.project if project is None else project
        self._telemetry = telemetry
        self._settings = settings
        self._node = node
        self._clock = clock
        self._ids = IdSource()
        self._incarnation = self._ids.make(clock.now())
        self._limit = settings.audit_ring
        self._ring: deque[Entry | _Ticket] = deque()
        self._endings: deque[Outcome] = deque()
        self._room = self._limit
        """How many records may wait before a sender has to."""
        self._asleep = False
        """Whether the writer waits for the first record, and wants to be woken."""
        # What follows changes under this condition only.
        self._changed = threading.Condition()
        self._in_flight = 0
        self._shut = False
        self._hurried = False
        self._closing = False
        self._abandoned = False
        self._gone = False
        self._problem: str | None = None
        self._marks: list[threading.Event] = []
        self._thread: threading.Thread | None = None
        # The writer's own.
        self._connection: Connection | None = None
        self._rows: Rows | None = None
        self._anchoring: Anchoring | None = None

    # -- the bus calls these

    def sent(self, message: Entry) -> None:
        """Keep the record of a message that is about to be accepted.

        Waits up to ``send_timeout`` while the ring is full; on an event loop not at all once
        the database fails. A later attempt at a message adds no second row.

        Raises:
            AuditUnavailable: there was no room in time, the recorder is closed, or (strict)
                the record could not be committed. The message must not be delivered.
        """
        ring = self._ring
        if len(ring) + len(self._endings) >= self._room and not self._wait_for_room():
            raise AuditUnavailable(self._why_no_room())
        if self.strict:
            self._commit_one(envelope(message))
            return
        ring.append(message)
        if self._asleep:
            self._wake()

    def ended(
        self,
        message: Message[Any],
        recipient: str | None,
        status: Status,
        reason: Reason | None,
        error: str | None,
        started_at: float | None,
        ended_at: float,
    ) -> None:
        """Keep how a delivery ended.

        This slows its caller down while the writer is behind, and never refuses: there are no
        more endings to come than deliveries under way, and mailboxes bound those.
        """
        self._ended(
            (
                message.id,
                recipient if message.recipient is None else None,
                status._value_,
                None if reason is None else reason._value_,
                error,
                message.attempt,
                started_at,
                ended_at,
            )
        )

    def handled(self, message_id: MessageId, started_at: float, ended_at: float) -> None:
        """``ended`` for a plain entry that was handled at the first attempt."""
        self._ended((message_id, None, _HANDLED, None, None, 1, started_at, ended_at))

    def _ended(self, outcome: Outcome) -> None:
        endings = self._endings
        if len(self._ring) + len(endings) >= self._room and self._problem is None:
            self._wait_for_room()
        endings.append(outcome)
        if self._asleep:
            self._wake()
        elif self._closing:
            self._check_too_late(outcome[0])

    # -- life

    def start(self) -> None:
        """Open the database, bring its schema up to date, start the writer. Idempotent.

        Raises:
            AuditUnavailable: the database cannot be used; the error says what would do.
        """
        if self._thread is not None or self._closing:
            return
        self.database.upgrade()
        self._thread = threading.Thread(target=self._run, name="actorbus-recorder", daemon=True)
        self._thread.start()

    def flush(self, timeout: float) -> None:
        """Wait at most `timeout` real seconds until all that was recorded so far is written.

        Raises:
            AuditUnavailable: it was not.
        """
        if self._finished() and not self._waiting():
            return
        written = threading.Event()
        with self._changed:
            self._marks.append(written)
        self._hurry()
        if not written.wait(timeout):
            raise AuditUnavailable(self._left_over(f"after {timeout:.3g} s"))

    def close(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` real seconds, and stop. Idempotent.

        Raises:
            AuditUnavailable: records were left; the error says how many and why.
        """
        with self._changed:
            self._closing = True
            self._room = 0
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
            with self._changed:
                self._abandoned = True
                self._changed.notify_all()
        if self._waiting():
            raise AuditUnavailable(self._left_over("when the node stopped"))

    # -- senders

    def _wait_for_room(self) -> bool:
        """Wait until the ring has room; False if it did not in time."""
        deadline = time.monotonic() + self._settings.send_timeout
        patient = not _on_a_loop()
        with self._changed:
            while not self._closing and self._queued() >= self._room:
                left = deadline - time.monotonic()
                if left <= 0 or not (patient or self._problem is None):
                    return False
                if not self._shut:  # others may have taken the room that this one waited for
                    self._shut = True
                    self._room = 0
                    self._hurried = self._hurried or self._problem is None
                    self._changed.notify_all()
                self._changed.wait(left)
            return not self._closing

    def _commit_one(self, message: Message[Any]) -> None:
        ticket = _Ticket(message)
        self._ring.append(ticket)
        self._hurry()
        try:
            ticket.committed.result(self._settings.send_timeout)
        except TimeoutError:
            doubt = "" if ticket.committed.cancel() else "; it may yet be written"
            raise AuditUnavailable(
                f"{self.database.shown} did not take the record of {format_id(message.id)}"
                f" within {self._settings.send_timeout:.3g} s, so it was not sent{doubt}"
            ) from None

    def _wake(self) -> None:
        with self._changed:
            self._asleep = False
            self._changed.notify_all()

    def _hurry(self) -> None:
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def _queued(self) -> int:
        return len(self._ring) + len(self._endings)

    def _waiting(self) -> int:
        return self._queued() + self._in_flight

    def _finished(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def _why_no_room(self) -> str:
        if self._closing:
            return "the history is closed: its node has stopped"
        return self._left_over(
            f"and a send waited {self._settings.send_timeout:.3g} s"
            if self._problem is None
            else "and a send cannot wait longer"
        )

    def _left_over(self, when: str) -> str:
        why = self._problem or "the writer is behind"
        return f"{self._waiting():,} records of history were not written {when}: {why}"

    def _check_too_late(self, message_id: MessageId) -> None:
        """Say so, where a handler outlived its node and the writer is gone already."""
        with self._changed:
            late = self._gone and self._queued() > 0
        if late and self._telemetry.active:
            what = f"the history was closed before {format_id(message_id)} ended"
            self._telemetry.emit(AuditStalled(what, self._waiting()))

    # -- the writer

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            window, marks = taken
            if not self._write_all(window):
                break
            for mark in marks:
                mark.set()
        if self._anchoring is not None and self._connection is not None:
            self._anchoring.write(self._clock.now())
        self._disconnect()

    def _next(self) -> tuple[_Window, list[threading.Event]] | None:
        """Wait for records and a little for company; None once all is written and closed."""
        with self._changed:
            self._wait_for_first()
            if self._closing and not self._queued() and not self._marks:
                self._gone = True
                return None
            if not self._urgent():
                self._pause(self._settings.audit_interval)
            self._hurried = False
            # In this order: whatever ended was sent before.
            endings = _emptied(self._endings)
            sent = _emptied(self._ring)
            marks, self._marks = self._marks, []
            self._in_flight = len(sent) + len(endings)
            self._make_room()
            return (sent, endings), marks

    def _urgent(self) -> bool:
        """Whether somebody waits for what is in the ring. The condition is held."""
        return bool(self._marks or self._shut) or (
            self.strict and any(record.__class__ is _Ticket for record in self._ring.copy())
        )

    def _wait_for_first(self) -> None:
        while not (self._queued() or self._marks or self._closing):
            self._asleep = True
            # A sender looks at `_asleep` after it appended: one of the two sees the other.
            if not self._queued():
                self._changed.wait()
            self._asleep = False

    def _pause(self, seconds: float) -> None:
        """Wait, unless somebody is in a hurry. The condition is held."""
        if self._hurried or self._closing:
            return
        timer = self._clock.call_at(self._clock.now() + seconds, self._hurry)
        self._changed.wait_for(lambda: self._hurried or self._closing)
        timer.cancel()

    def _write_all(self, window: _Window) -> bool:
        """Write a window, batch by batch; False if the recorder was told to give up."""
        messages, outcomes, happenings, tickets = self._sorted(*window)
        size = self._settings.audit_batch
        keys = list(messages)
        # Paired batch by batch: fewer objects for the garbage collector to go round meanwhile.
        for start in range(0, len(keys), size):
            chosen = keys[start : start + size]
            batch = [(messages[key], outcomes.get(key)) for key in chosen]
            waiting = [tickets[key] for key in chosen if key in tickets] if tickets else []
            if not self._write(batch, (), waiting):
                return False
            self._settle(len(batch) + sum(outcome is not None for _, outcome in batch))
        for start in range(0, len(happenings), size):
            events = happenings[start : start + size]
            if not self._write((), events, ()):
                return False
            self._settle(len(events))
        self._settle(self._in_flight)
        return True

    def _sorted(
        self, sent: Sequence[Entry | _Ticket], endings: Sequence[Outcome]
    ) -> tuple[
        dict[MessageId, Entry], dict[MessageId, Outcome], list[Happening], dict[MessageId, _Ticket]
    ]:
        """Messages, the endings that go into their rows, all other endings, who waits."""
        messages: dict[MessageId, Entry] = {}
        tickets: dict[MessageId, _Ticket] = {}
        for record in sent:
            if isinstance(record, tuple):
                messages[record[0]] = record
            elif not isinstance(record, _Ticket):
                messages.setdefault(record.id, record)
            elif record.begin():
                messages[record.message.id] = record.message
                tickets[record.message.id] = record
        outcomes: dict[MessageId, Outcome] = {}
        happenings: list[Happening] = []
        now = self._clock.now()
        for ending in endings:
            key = ending[0]
            if key not in outcomes and key not in tickets and _fits_its_row(messages.get(key)):
                outcomes[key] = ending
            else:
                happenings.append((self._ids.make(now), ending))
        return messages, outcomes, happenings, tickets

    def _write(
        self, pairs: Sequence[Pair], events: Sequence[Happening], tickets: Sequence[_Ticket]
    ) -> bool:
        """Commit one batch, however often it takes; False if told to give up."""
        escaped = False
        pause = _FIRST_PAUSE
        while True:
            try:
                self._transact(pairs, events, escaped=escaped)
            except Exception as error:  # noqa: BLE001 - whatever fails, the batch is kept
                if isinstance(error, _UNWRITABLE) and not escaped:
                    escaped = True
                    continue
                if tickets:
                    pairs = self._refuse(pairs, tickets, error)
                    tickets = ()
                    if not pairs:
                        self._stalled(error)
                        return True
                if not self._endure(error, pause):
                    return False
            else:
                break
            pause = min(2 * pause, _LONGEST_PAUSE)
        for ticket in tickets:
            ticket.committed.set_result(None)
        self._recovered(len(pairs) + len(events))
        return True

    def _transact(
        self, pairs: Sequence[Pair], events: Sequence[Happening], *, escaped: bool
    ) -> None:
        try:
            connection, rows = self._connected()
            with self.database.writing(connection):
                rows.write(connection, pairs, events, escaped=escaped)
            if self._anchoring is not None:
                self._anchoring.committed(self._clock.now())
        except BaseException:
            self._disconnect()
            raise

    def _connected(self) -> tuple[Connection, Rows]:
        """The writer's connection, made anew after a failure: the file may be a new one."""
        if self._connection is None or self._rows is None:
            self.database.upgrade()
            self._connection = self.database.connect()
            now = self._clock.now()
            with self.database.writing(self._connection):
                tenant, project = project_key(
                    self._connection, self.tenant, self.project, ids=self._ids, now=now
                )
                incarnation, head = open_chain(
                    self._connection,
                    tenant,
                    self._incarnation,
                    node=self._node,
                    now=now,
                    anchors=self._proof.place,
                )
            self._rows = Rows(
                self.database.dialect,
                tenant=tenant,
                project=project,
                node=self._node,
                batch=self._settings.audit_batch,
                chain=Sealer(self.database.dialect, incarnation, head),
                mask=self._proof.mask,
            )
            self._anchoring = self._proof.anchoring(
                self._rows.chain, incarnation, telemetry=self._telemetry, before=self._anchoring
            )
        return self._connection, self._rows

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.database.release(connection)

    def _refuse(
        self, pairs: Sequence[Pair], tickets: Sequence[_Ticket], error: Exception
    ) -> list[Pair]:
        """Fail the sends that wait for this batch; what is left of it."""
        why = self.database.explain(error)
        for ticket in tickets:
            ticket.refuse(why)
        refused = {ticket.message.id for ticket in tickets}
        return [pair for pair in pairs if envelope(pair[0]).id not in refused]

    def _endure(self, error: Exception, pause: float) -> bool:
        """Wait for a better moment; False if told to give up."""
        self._stalled(error)
        with self._changed:
            self._pause(pause)
            if self._closing:
                self._changed.wait_for(lambda: self._abandoned, timeout=pause)
            self._hurried = False
            return not self._abandoned

    def _stalled(self, error: Exception) -> None:
        """Tell everybody who listens or waits that the database fails."""
        first = self._problem is None
        self._problem = self.database.explain(error)
        if first and self._telemetry.active:
            self._telemetry.emit(AuditStalled(self._problem, self._waiting()))
        if self.strict:
            for record in self._ring.copy():
                if isinstance(record, _Ticket) and record.begin():
                    record.refuse(self._problem)
        with self._changed:
            self._changed.notify_all()

    def _recovered(self, written: int) -> None:
        if self._problem is not None:
            self._problem = None
            if self._telemetry.active:
                self._telemetry.emit(AuditResumed(written))

    def _settle(self, records: int) -> None:
        """Some of the records in flight are written."""
        with self._changed:
            self._in_flight = max(0, self._in_flight - records)
            self._make_room()

    def _make_room(self) -> None:
        if self._closing:
            return
        if self._shut and len(self._ring) + self._in_flight > self._limit // 2:
            return
        self._room = self._limit - self._in_flight
        if self._shut:
            self._shut = False
            self._changed.notify_all()


def _emptied(waiting: deque[T]) -> list[T]:
    """All that is there now; only the writer takes anything out."""
    return [waiting.popleft() for _ in range(len(waiting))]


def _fits_its_row(message: Entry | None) -> bool:
    """Whether an ending that waits together with its message can be written into its row."""
    if message is None or isinstance(message, tuple):
        return message is not None
    # A second attempt's row may exist already, and then its ending would go unwritten.
    return message.attempt == 1 and message.kind not in _TO_MANY


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
