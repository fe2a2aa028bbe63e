"""Writes message history behind the bus: a bounded ring, one writer thread, batches.

Senders only append. ``sent`` keeps the message itself (a payload is read-only after sending)
and the writer turns it into rows, so the sender pays one length check and one append. The
writer takes all that waits at once: a message and its ending that wait together become one
row, an ending that comes later becomes an event. Then it writes in transactions of
``audit_batch`` rows.

Nothing is dropped. When the ring is full, senders wait until it is half empty: letting them in
one by one would have them fight the writer for Python's lock at every row. When the database
fails, what waits is tried again until it is written, with a pause that doubles; whoever
listens gets ``AuditStalled`` and ``AuditResumed``. Once 70 % of the ring is taken, or the node
stops, what waits goes to a spill on disk (``spill.py``; ``pressure.py`` decides), and from
there, in order, to the database when it is back. A spill that an earlier process left is
written before anything new. With ring and spill full, senders wait, and then fail. A history in
memory has no spill, nor has one on a server without ``audit_spill_dir``.

What is in memory when the process dies is lost: at most what was sent in the last
``audit_interval`` while the database keeps up. A ``strict`` recorder returns from ``sent`` only
once the message is committed; senders that wait together share a transaction.

The bytes in the ring are an estimate: the writer measures one payload in 128 before it writes them,
and lets as many records wait as ``audit_ring_bytes`` holds of such. Measuring each at the sender
would cost it something for every message, and miss what is inside an object.

The interval and the pauses are node time. ``flush``, ``close`` and a sender that waits for
room count real seconds: they wait for a disk, perhaps on the very thread that turns the clock.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from sqlalchemy.exc import DataError, InterfaceError, ProgrammingError

from actorbus.errors import AuditUnavailable
from actorbus.message import IdSource, Message, MessageKind, Status, envelope, format_id
from actorbus.persistence.anchors import Proof
from actorbus.persistence.chains import Sealer, open_chain
from actorbus.persistence.database import Database
from actorbus.persistence.frames import Happening, Pair, pack
from actorbus.persistence.payloads import encode
from actorbus.persistence.pressure import CROWDED, Health, Situation, Step
from actorbus.persistence.rows import Outcome, Rows, project_key
from actorbus.persistence.spill import Damage, Owner, Spill, SpillFull
from actorbus.telemetry import AuditDamaged, AuditResumed, AuditSpilled, AuditStalled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from actorbus.clock import Clock
    from actorbus.message import Entry, MessageId, Reason
    from actorbus.persistence.anchors import Anchoring
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_PATIENCE: Final = 1.0
"""How long a writer behind its senders waits for a lock in SQLite: their ring fills meanwhile."""
_PATIENCE_LOST: Final = 0.1
_PARTING: Final = 2.0
"""How long closing waits beyond its time-out for what is left to be spilled."""
_SAMPLE: Final = 128
_HANDLED: Final = Status.HANDLED.value
_TO_MANY: Final = frozenset({MessageKind.BROADCAST, MessageKind.EVENT})

_UNWRITABLE: Final = (DataError, InterfaceError, ProgrammingError, ValueError, OverflowError)
"""What a database says to a value that it has no room for."""

T = TypeVar("T")

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


class _Batch(NamedTuple):
    """What goes into one transaction, and the tickets of those who wait for it."""

    pairs: Sequence[Pair]
    events: Sequence[Happening]
    tickets: Sequence[_Ticket] = ()

    @property
    def records(self) -> int:
        endings = sum(outcome is not None for _, outcome in self.pairs)
        return len(self.pairs) + endings + len(self.events)

    def without_tickets(self) -> _Batch:
        refused = {ticket.message.id for ticket in self.tickets}
        return _Batch(
            [pair for pair in self.pairs if envelope(pair[0]).id not in refused], self.events
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
        self._blocked = False
        """Whether the database fails and nothing else takes records."""
        # The writer's own.
        self._connection: Connection | None = None
        self._rows: Rows | None = None
        self._file: os.stat_result | None = None
        self._spill = self._new_spill()
        self._spill_problem: str | None = None
        self._told = False
        self._batches: Iterator[_Batch] = iter(())
        self._batch: _Batch | None = None
        self._typical = 0.0
        """Bytes of a payload, of late."""
        self._due: list[threading.Event] = []
        self._rest = _FIRST_PAUSE
        self._rested = True
        self._resuming = False
        """Whether a stall, or what an earlier process left, is not yet made good."""
        self._written = 0
        self._anchoring: Anchoring | None = None

    # -- the bus calls these

    def sent(self, message: Entry) -> None:
        """Keep the record of a message that is about to be accepted.

        Waits up to ``send_timeout`` while the ring is full; on an event loop not at all once
        neither database nor disk takes records. A later attempt at a message adds no second row.

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
        if len(self._ring) + len(endings) >= self._room and not self._blocked:
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
        self._adopt()
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

        What the database does not take stays in the spill for the next start, as
        ``AuditSpilled`` tells; putting it there may take 2 s more.

        Raises:
            AuditUnavailable: records were lost; the error says how many and why.
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
            if self._spill is not None:
                thread.join(_PARTING)
        if self._waiting():
            raise AuditUnavailable(self._left_over("when the node stopped"))

    @property
    def health(self) -> Health:
        """How the history stands, in a word."""
        # A spill that is full is tried again at every pause: that alone frees no sender.
        return replace(self._situation(), disk=not self._blocked).health()

    @property
    def spilled(self) -> int:
        """Bytes of records that wait on disk."""
        return 0 if self._spill is None else self._spill.size

    # -- senders

    def _wait_for_room(self) -> bool:
        """Wait until the ring has room; False if it did not in time."""
        deadline = time.monotonic() + self._settings.send_timeout
        patient = not _on_a_loop()
        with self._changed:
            while not self._closing and self._queued() >= self._room:
                if self._room_but_for_alarm():
                    return True
                left = deadline - time.monotonic()
                if left <= 0 or not (patient or not self._blocked):
                    return False
                if not self._shut:  # others may have taken the room that this one waited for
                    self._shut = True
                    self._room = 0
                    self._hurried = self._hurried or not self._blocked
                    self._changed.notify_all()
                self._changed.wait(left)
            return not self._closing

    def _room_but_for_alarm(self) -> bool:
        """Whether only the mark was reached at which the writer wants to spill: call it."""
        room = self._limit - self._in_flight
        if self._closing or self._shut or self._problem is None or self._queued() >= room:
            return False
        self._room = room
        self._hurried = True
        self._changed.notify_all()
        return True

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
            if not self._blocked
            else "and a send cannot wait longer"
        )

    def _left_over(self, when: str) -> str:
        why = "; ".join(filter(None, (self._problem, self._spill_problem)))
        why = why or "the writer is behind"
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
        while (step := self._situation().next()) is not Step.LEAVE:
            if step is Step.WRITE:
                if not self._write_next():
                    break
            elif step is Step.DRAIN:
                self._drain_next()
            elif step is Step.SPILL:
                self._put_aside()
            else:
                self._rest_a_while()
        self._leave()

    def _situation(self) -> Situation:
        return Situation(
            failing=self._problem is not None,
            rested=self._rested,
            disk=self._spill is not None and self._spill_problem is None,
            spilled=bool(self._spill),
            waiting=self._waiting(),
            limit=self._limit,
            closing=self._closing,
            abandoned=self._abandoned,
        )

    def _write_next(self) -> bool:
        """Write the next batch, waiting for one if need be; False once all is written."""
        batch = self._in_hand()
        if batch is None:
            self._keep_promises()
            return self._next()
        if self._write(batch):
            self._batch = None
            records = batch.records
            self._settle(records)
            self._recovered(records)
        return True

    def _in_hand(self) -> _Batch | None:
        """The next batch of the window; None if all of it is written or spilled."""
        if self._batch is None:
            self._batch = next(self._batches, None)
            if self._batch is None:
                self._settle(self._in_flight)
        return self._batch

    def _drain_next(self) -> None:
        """Write what was spilled first."""
        assert self._spill is not None  # noqa: S101 - it holds something
        oldest = self._spill.oldest()
        if oldest is not None:
            batch = _Batch(oldest.pairs, oldest.events)
            if not self._write(batch, oldest.owner):
                return
            self._spill.written()
            self._spill_problem = None  # there may be room again
            self._recovered(batch.records)

    def _keep_promises(self) -> None:
        """Let go whoever waits in ``flush``, if all that was recorded then is written."""
        if not self._spill and self._batch is None and not self._in_flight:
            for mark in self._due:
                mark.set()
            self._due.clear()

    def _next(self) -> bool:
        """Wait for records and a little for company; False once all is written and closed."""
        with self._changed:
            self._wait_for_first()
            if self._closing and not self._queued() and not self._marks:
                self._gone = True
                return False
            if not self._urgent():
                self._pause(self._settings.audit_interval)
            self._hurried = False
            self._take()
        return True

    def _take(self) -> None:
        """All that waits becomes the window in hand. The condition is held."""
        # In this order: whatever ended was sent before.
        endings = _emptied(self._endings)
        sent = _emptied(self._ring)
        self._due += self._marks
        self._marks.clear()
        self._in_flight += len(sent) + len(endings)
        self._make_room()
        self._batches = self._sorted_batches(sent, endings)

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

    def _sorted_batches(
        self, sent: Sequence[Entry | _Ticket], endings: Sequence[Outcome]
    ) -> Iterator[_Batch]:
        messages, outcomes, happenings, tickets = self._sorted(sent, endings)
        size = self._settings.audit_batch
        keys = list(messages)
        # Paired batch by batch: fewer objects for the garbage collector to go round meanwhile.
        for start in range(0, len(keys), size):
            chosen = keys[start : start + size]
            pairs = [(messages[key], outcomes.get(key)) for key in chosen]
            self._estimate(pairs)
            waiting = [tickets[key] for key in chosen if key in tickets] if tickets else []
            yield _Batch(pairs, (), waiting)
        for start in range(0, len(happenings), size):
            yield _Batch((), happenings[start : start + size])

    def _estimate(self, pairs: Sequence[Pair]) -> None:
        """Let as many records wait as the bytes allowed hold of such as these."""
        sample = pairs[::_SAMPLE]
        size = 0
        for entry, _ in sample:
            size += len(encode(entry[2] if isinstance(entry, tuple) else entry.payload))
        self._typical += (size / len(sample) - self._typical) / 4
        fit = int(self._settings.audit_ring_bytes / max(1.0, self._typical))
        self._limit = max(1, min(self._settings.audit_ring, fit))

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

    def _write(self, batch: _Batch, owner: Owner | None = None) -> bool:
        """Commit one batch; False if that failed, and nobody waits for its tickets any more."""
        try:
            try:
                self._transact(batch, owner, escaped=False)
            except _UNWRITABLE:
                self._transact(batch, owner, escaped=True)
        except Exception as error:  # noqa: BLE001 - whatever fails, the batch is kept
            self._failed(batch, error)
            return False
        for ticket in batch.tickets:
            ticket.committed.set_result(None)
        return True

    def _failed(self, batch: _Batch, error: Exception) -> None:
        self._rested = False
        self._stalled(error)
        self._refuse(batch, self._problem or str(error))
        self._blocked = self._spill is None or self._spill_problem is not None
        with self._changed:
            self._make_room()
            self._changed.notify_all()

    def _refuse(self, batch: _Batch, why: str) -> None:
        """Fail the sends that wait for a batch, which goes on without them."""
        if not batch.tickets:
            return
        for ticket in batch.tickets:
            ticket.refuse(why)
        self._batch = batch.without_tickets()

    def _transact(self, batch: _Batch, owner: Owner | None, *, escaped: bool) -> None:
        try:
            connection, rows = self._connected()
            if owner is not None:
                rows = rows.of(owner.node)
            with self.database.writing(connection):
                rows.write(connection, batch.pairs, batch.events, escaped=escaped)
            self._check_file()
            if self._anchoring is not None:
                self._anchoring.committed(self._clock.now())
        except BaseException:
            self._disconnect()
            raise

    def _connected(self) -> tuple[Connection, Rows]:
        """The writer's connection, made anew after a failure: the file may be a new one."""
        if self._connection is None or self._rows is None:
            self._connection = self.database.connect()
            self._be_patient()
            if self._problem is not None:
                # A lock shows here at once, where the upgrade would wait long for it.
                with self.database.writing(self._connection):
                    pass
                self.database.upgrade()
            self._file = self._stat()
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

    def _be_patient(self) -> None:
        """Wait for a lock no longer than the senders can; strict ones wait themselves."""
        if self.database.path is None or self._connection is None:
            return
        failing = self._problem is not None
        patience = _PATIENCE_LOST if failing else 5.0 if self.strict else _PATIENCE
        driver: Any = self._connection.connection.driver_connection
        allowed = driver.execute("PRAGMA busy_timeout").fetchone()[0]
        driver.execute(f"PRAGMA busy_timeout = {min(allowed, int(patience * 1000))}").close()

    def _stat(self) -> os.stat_result | None:
        return None if self.database.path is None else self.database.path.stat()

    def _check_file(self) -> None:
        """SQLite goes on writing to a file that was deleted, and says nothing."""
        path, opened = self.database.path, self._file
        if path is None or opened is None:
            return
        try:
            same = os.path.samestat(opened, path.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise AuditUnavailable(f"{path} was deleted or replaced while in use")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.database.release(connection)

    def _rest_a_while(self) -> None:
        """Wait for a better moment, or for the alarm that the ring fills."""
        with self._changed:
            self._pause(self._rest)
            if self._closing:
                self._changed.wait_for(lambda: self._abandoned, timeout=self._rest)
            self._hurried = False
        self._rest = min(2 * self._rest, _LONGEST_PAUSE)
        self._rested = True
        self._spill_problem = None

    # -- the writer's disk

    def _new_spill(self) -> Spill | None:
        directory, limit = self._spill_directory(), self._settings.audit_spill_bytes
        if directory is None or not limit:
            return None
        owner = Owner(self.tenant, self.project, self._node)
        return Spill(directory, owner, limit=limit, report=self._damaged)

    def _spill_directory(self) -> Path | None:
        """One for each history; None where there is no place for it."""
        path, wanted = self.database.path, self._settings.audit_spill_dir
        if path is None and self.database.dialect == "sqlite":
            return None
        if wanted is not None:
            where = self.database.shown if path is None else str(path.absolute())
            return Path(wanted) / sha256(where.encode()).hexdigest()[:16]
        return None if path is None else path.with_name(f"{path.name}.spill")

    def _adopt(self) -> None:
        """Find what an earlier process has left."""
        if self._spill is None:
            return
        try:
            self._resuming = self._spill.adopt() > 0
        except OSError as error:
            raise AuditUnavailable(
                f"what an earlier node spilled to {self._spill.directory} cannot be read: {error}"
            ) from None

    def _put_aside(self) -> None:
        """Move a batch from memory to the disk, where all older ones are."""
        assert self._spill is not None  # noqa: S101 - the situation says so
        batch = self._in_hand()
        if batch is None:
            with self._changed:
                self._take()
            return
        if batch.tickets:
            self._refuse(batch, self._problem or "its node stops")
            return
        try:
            self._spill.add(pack(batch.pairs, batch.events, mask=self._proof.mask))
        except (SpillFull, OSError) as error:
            self._disk_refuses(error)
            return
        self._batch = None
        self._blocked = False
        self._settle(batch.records)
        if not self._told:
            self._told = True
            self._tell_of_spill()

    def _disk_refuses(self, error: Exception) -> None:
        self._spill_problem = f"the spill does not take them: {error}"
        if self._problem is not None and not self._blocked:
            self._blocked = True
            if self._telemetry.active:
                why = f"{self._problem}; {self._spill_problem}"
                self._telemetry.emit(AuditStalled(why, self._waiting()))
        with self._changed:
            self._make_room()
            self._changed.notify_all()

    def _tell_of_spill(self) -> None:
        if self._spill is not None and self._telemetry.active:
            self._telemetry.emit(
                AuditSpilled(str(self._spill.directory), self._spill.size, self._problem)
            )

    def _damaged(self, damage: Damage) -> None:
        if self._telemetry.active:
            self._telemetry.emit(
                AuditDamaged(
                    str(damage.path),
                    damage.at,
                    damage.size,
                    damage.records,
                    "a crash interrupted the last write" if damage.torn else "damage",
                )
            )

    def _leave(self) -> None:
        if self._anchoring is not None and self._connection is not None:
            self._anchoring.write(self._clock.now())
        self._disconnect()
        with self._changed:
            self._gone = True
        if self._spill is not None:
            if self._spill:
                self._tell_of_spill()
            self._spill.close()

    # -- how the database is

    def _stalled(self, error: Exception) -> None:
        """Tell everybody who listens or waits that the database fails."""
        first = self._problem is None
        self._resuming = True
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
            self._blocked = False
            self._rest = _FIRST_PAUSE
            self._be_patient()
        if self._resuming:
            self._written += written
            if not self._spill:
                self._resuming = self._told = False
                if self._telemetry.active:
                    self._telemetry.emit(AuditResumed(self._written))
                self._written = 0

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
        if self._problem is not None and not self._blocked and self._spill is not None:
            self._room = int(self._limit * CROWDED) - self._in_flight
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
