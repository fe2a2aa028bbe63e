"""Writes message history behind the bus: a bounded ring, one writer thread, batches.

Senders only append (``ring.py``). ``sent`` keeps the message itself (a payload is read-only
after sending) and the writer turns it into rows, so the sender pays one length check and one
append. The writer (``writer.py``) takes all that waits at once, sorts it into batches of
``audit_batch`` rows (``batches.py``), and commits each in a transaction (``appender.py``).

Nothing is dropped. When the ring is full, senders wait. When the database fails, what waits is
tried again until it is written, with a pause that doubles; whoever listens gets ``AuditStalled``
and ``AuditResumed``. Once 70 % of the ring is taken, or the node stops, what waits goes to a
spill on disk (``spill.py``; ``pressure.py`` decides), and from there, in order, to the database
when it is back. A spill that an earlier process left is written before anything new. With ring
and spill full, senders wait, and then fail. A history in memory has no spill, nor has one on a
server without ``audit_spill_dir``.

What is in memory when the process dies is lost: at most what was sent in the last
``audit_interval`` while the database keeps up. A ``strict`` recorder returns from ``sent`` only
once the message is committed; senders that wait together share a transaction.

The interval and the pauses are node time. ``flush``, ``close`` and a sender that waits for
room count real seconds: they wait for a disk, perhaps on the very thread that turns the clock.
"""

from __future__ import annotations

import threading
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import AuditUnavailable
from actorbus.message import GUEST_HEADER, IdSource, Message, Status, envelope, format_id
from actorbus.persistence.anchors import Proof
from actorbus.persistence.appender import Appender
from actorbus.persistence.batches import Ticket
from actorbus.persistence.database import Database
from actorbus.persistence.ring import Ring
from actorbus.persistence.spill import Damage, Owner, Spill
from actorbus.persistence.writer import Writer
from actorbus.telemetry import AuditDamaged, AuditStalled

if TYPE_CHECKING:
    from actorbus.clock import Clock
    from actorbus.message import Entry, MessageId, Reason
    from actorbus.persistence.pressure import Health
    from actorbus.persistence.rows import Outcome
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_PARTING: Final = 2.0
"""How long closing waits beyond its time-out for the writer to leave a server that does not
answer, and to spill what is left."""
_PARTING_STRICT: Final = 7.0
"""A strict writer may wait for SQLite's lock, which nothing interrupts."""
_HANDLED: Final = Status.HANDLED.value


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
        self.strict = strict
        self.tenant = settings.tenant if tenant is None else tenant
        self.project = settings.project if project is None else project
        if isinstance(database, str):
            database = Database(database, durable=strict).of(self.tenant)
        self.database = database
        self._telemetry = telemetry
        self._patience = settings.send_timeout
        self._thread: threading.Thread | None = None
        owner = Owner(self.tenant, self.project, node)
        proof = Proof() if proof is None else proof
        ids = IdSource()
        self._spill = _spill_of(self.database, owner, settings, telemetry)
        self._ring = Ring(
            settings.audit_ring, clock=clock, spills=self._spill is not None, strict=strict
        )
        appender = Appender(
            self.database,
            owner,
            size=settings.audit_batch,
            strict=strict,
            proof=proof,
            ids=ids,
            clock=clock,
            telemetry=telemetry,
        )
        self._writer = Writer(
            self._ring,
            appender,
            self._spill,
            database=self.database,
            mask=proof.mask,
            settings=settings,
            ids=ids,
            clock=clock,
            telemetry=telemetry,
        )

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
        if len(ring.sent) + len(ring.endings) >= ring.room and not ring.wait_for_room(
            self._patience
        ):
            raise AuditUnavailable(self._why_no_room())
        if self.strict:
            self._commit_one(envelope(message))
            return
        ring.sent.append(message)
        if ring.asleep:
            ring.wake()

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
        """Keep how a delivery ended; of a guest's message, which nobody has recorded, that too.

        This slows its caller down while the writer is behind, and never refuses: there are no
        more endings to come than deliveries under way, and mailboxes bound those.
        """
        if GUEST_HEADER in message.headers:
            self._ring.sent.append(message)
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
                message.run_id if message.recipient is None else None,
            )
        )

    def handled(self, message_id: MessageId, started_at: float, ended_at: float) -> None:
        """``ended`` for a plain entry that was handled at the first attempt."""
        self._ended((message_id, None, _HANDLED, None, None, 1, started_at, ended_at, None))

    def _ended(self, outcome: Outcome) -> None:
        ring = self._ring
        if len(ring.sent) + len(ring.endings) >= ring.room and not ring.trouble.blocked:
            ring.wait_for_room(self._patience)
        ring.endings.append(outcome)
        if ring.asleep:
            ring.wake()
        elif ring.closing:
            self._check_too_late(outcome[0])

    # -- life

    def start(self) -> None:
        """Open the database, bring its schema up to date, start the writer. Idempotent.

        Raises:
            AuditUnavailable: the database cannot be used; the error says what would do.
        """
        if self._thread is not None or self._ring.closing:
            return
        self.database.upgrade()
        self._adopt()
        self._thread = threading.Thread(
            target=self._writer.run, name="actorbus-recorder", daemon=True
        )
        self._thread.start()

    def flush(self, timeout: float) -> None:
        """Wait at most `timeout` real seconds until all that was recorded so far is written.

        Raises:
            AuditUnavailable: it was not.
        """
        if self._finished() and not self._ring.waiting():
            return
        if not self._ring.mark().wait(timeout):
            raise AuditUnavailable(self._left_over(f"after {timeout:.3g} s"))

    def close(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` real seconds, and stop. Idempotent.

        What the database does not take stays in the spill for the next start, as
        ``AuditSpilled`` tells; putting it there may take 2 s more, 7 s if `strict`.

        Raises:
            AuditUnavailable: records were lost; the error says how many and why.
        """
        self._ring.close()
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            self._ring.abandon()
            thread.join(_PARTING_STRICT if self.strict else _PARTING)
        if self._ring.waiting():
            raise AuditUnavailable(self._left_over("when the node stopped"))

    @property
    def health(self) -> Health:
        """How the history stands, in a word."""
        return self._writer.health()

    @property
    def spilled(self) -> int:
        """Bytes of records that wait on disk."""
        return 0 if self._spill is None else self._spill.size

    def _adopt(self) -> None:
        try:
            self._writer.adopt()
        except OSError as error:
            place = None if self._spill is None else self._spill.directory
            raise AuditUnavailable(
                f"what an earlier node spilled to {place} cannot be read: {error}"
            ) from None

    def _commit_one(self, message: Message[Any]) -> None:
        ticket = Ticket(message)
        self._ring.sent.append(ticket)
        self._ring.hurry()
        try:
            ticket.committed.result(self._patience)
        except TimeoutError:
            doubt = "" if ticket.committed.cancel() else "; it may yet be written"
            raise AuditUnavailable(
                f"{self.database.shown} did not take the record of {format_id(message.id)}"
                f" within {self._patience:.3g} s, so it was not sent{doubt}"
            ) from None

    def _finished(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def _why_no_room(self) -> str:
        if self._ring.closing:
            return "the history is closed: its node has stopped"
        return self._left_over(
            f"and a send waited {self._patience:.3g} s"
            if not self._ring.trouble.blocked
            else "and a send cannot wait longer"
        )

    def _left_over(self, when: str) -> str:
        ring = self._ring
        return f"{ring.waiting():,} records of history were not written {when}: {ring.trouble}"

    def _check_too_late(self, message_id: MessageId) -> None:
        """Say so, where a handler outlived its node and the writer is gone already."""
        if self._ring.too_late() and self._telemetry.active:
            what = f"the history was closed before {format_id(message_id)} ended"
            self._telemetry.emit(AuditStalled(what, self._ring.waiting()))


def _spill_of(
    database: Database, owner: Owner, settings: Settings, telemetry: Telemetry
) -> Spill | None:
    """The spill of a history; None where there is no place for it."""
    directory, limit = (
        _spill_directory(database, settings.audit_spill_dir),
        settings.audit_spill_bytes,
    )
    if directory is None or not limit:
        return None

    def report(damage: Damage) -> None:
        if telemetry.active:
            telemetry.emit(
                AuditDamaged(
                    str(damage.path),
                    damage.at,
                    damage.size,
                    damage.records,
                    "a crash interrupted the last write" if damage.torn else "damage",
                )
            )

    return Spill(directory, owner, limit=limit, report=report)


def _spill_directory(database: Database, wanted: str | None) -> Path | None:
    """One for each history."""
    path = database.path
    if path is None and database.dialect == "sqlite":
        return None
    if wanted is not None:
        where = database.shown if path is None else str(path.absolute())
        return Path(wanted) / sha256(where.encode()).hexdigest()[:16]
    return None if path is None else path.with_name(f"{path.name}.spill")
