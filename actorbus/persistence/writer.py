"""The writer of history: one thread that takes what waits in the ring to the database.

What it does next is decided in ``pressure.py``. A batch that was not written stays in hand and
is tried again, with a pause that doubles, or goes to the spill.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from actorbus.persistence.batches import Batch, Measure, Sorter
from actorbus.persistence.frames import pack
from actorbus.persistence.patience import unless
from actorbus.persistence.pressure import Health, Situation, Step
from actorbus.persistence.spill import SpillFull
from actorbus.telemetry import AuditResumed, AuditSpilled, AuditStalled

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from actorbus.clock import Clock
    from actorbus.message import IdSource
    from actorbus.persistence.appender import Appender
    from actorbus.persistence.database import Database
    from actorbus.persistence.masking import Mask
    from actorbus.persistence.ring import Ring, Window
    from actorbus.persistence.spill import Spill
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Writer:
    """Empties a ring into a database, or onto a disk. ``run`` is for one thread.

    `mask` is for what goes to the disk; the appender has its own.
    """

    def __init__(
        self,
        ring: Ring,
        appender: Appender,
        spill: Spill | None,
        *,
        database: Database,
        mask: Mask | None,
        settings: Settings,
        ids: IdSource,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._ring = ring
        self._trouble = ring.trouble
        self._appender = appender
        self._spill = spill
        self._database = database
        self._mask = mask
        self._interval = settings.audit_interval
        self._telemetry = telemetry
        self._sorter = Sorter(settings.audit_batch, ids=ids, clock=clock)
        self._measure = Measure(settings.audit_ring, settings.audit_ring_bytes)
        self._batches: Iterator[Batch] = iter(())
        self._batch: Batch | None = None
        self._due: list[threading.Event] = []
        self._rest = _FIRST_PAUSE
        self._rested = True
        self._told = False
        """Whether the spill was told of."""
        self._resuming = False
        """Whether a stall, or what an earlier process left, is not yet made good."""
        self._written = 0

    def adopt(self) -> None:
        """Find what an earlier process has left.

        Raises:
            OSError: the spill cannot be read.
        """
        self._resuming = self._spill is not None and self._spill.adopt() > 0

    def health(self) -> Health:
        # A spill that is full is tried again at every pause: that alone frees no sender.
        return replace(self._situation(), disk=not self._trouble.blocked).health()

    def run(self) -> None:
        with unless(self._ring.abandoned):
            self._run()

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
        ring, trouble = self._ring, self._trouble
        return Situation(
            failing=trouble.database is not None,
            rested=self._rested,
            disk=self._spill is not None and trouble.disk is None,
            spilled=bool(self._spill),
            waiting=ring.waiting(),
            limit=ring.limit,
            closing=ring.closing,
            abandoned=ring.abandoned.is_set(),
        )

    def _leave(self) -> None:
        self._appender.close()
        self._ring.leave()
        if self._spill is not None:
            if self._spill:
                self._tell_of_spill(self._spill)
            self._spill.close()

    # -- to the database

    def _write_next(self) -> bool:
        """Write the next batch, waiting for one if need be; False once all is written."""
        batch = self._in_hand()
        if batch is None:
            self._keep_promises()
            window = self._ring.next(self._interval)
            if window is not None:
                self._open(window)
            return window is not None
        if self._write(batch):
            self._batch = None
            records = batch.records
            self._ring.settle(records)
            self._recovered(records)
        return True

    def _open(self, window: Window) -> None:
        self._due += window.marks
        self._batches = self._sorter.batches(window.sent, window.endings)

    def _in_hand(self) -> Batch | None:
        """The next batch of the window; None if all of it is written or spilled."""
        if self._batch is None:
            self._batch = next(self._batches, None)
            if self._batch is None:
                self._ring.settle(self._ring.in_flight)
            elif self._batch.pairs:
                self._ring.limit = self._measure.fit(self._batch.pairs)
        return self._batch

    def _keep_promises(self) -> None:
        """Let go whoever waits in ``flush``, if all that was recorded then is written."""
        if not self._spill and self._batch is None and not self._ring.in_flight:
            for mark in self._due:
                mark.set()
            self._due.clear()

    def _drain_next(self) -> None:
        """Write what was spilled first."""
        assert self._spill is not None  # noqa: S101 - it holds something
        oldest = self._spill.oldest()
        if oldest is not None:
            batch = Batch(oldest.pairs, oldest.events)
            if not self._write(batch, oldest.owner.node):
                return
            self._spill.written()
            self._trouble.disk = None  # there may be room again
            self._recovered(batch.records)

    def _write(self, batch: Batch, node: str | None = None) -> bool:
        """Commit one batch; False if that failed, and nobody waits for its tickets any more."""
        try:
            self._appender.append(batch, node)
        except Exception as error:  # noqa: BLE001 - whatever fails, the batch is kept
            self._failed(batch, error)
            return False
        batch.commit()
        return True

    # -- to the disk

    def _put_aside(self) -> None:
        """Move a batch from memory to the disk, where all older ones are."""
        assert self._spill is not None  # noqa: S101 - the situation says so
        batch = self._in_hand()
        if batch is None:
            self._open(self._ring.take())
            return
        if batch.tickets:
            self._batch = batch.refuse(self._trouble.database or "its node stops")
            return
        try:
            self._spill.add(pack(batch.pairs, batch.events, mask=self._mask))
        except (SpillFull, OSError) as error:
            self._disk_refuses(error)
            return
        self._batch = None
        self._trouble.blocked = False
        self._ring.settle(batch.records)
        if not self._told:
            self._told = True
            self._tell_of_spill(self._spill)

    def _disk_refuses(self, error: Exception) -> None:
        trouble = self._trouble
        trouble.disk = f"the spill does not take them: {error}"
        if trouble.database is not None and not trouble.blocked:
            trouble.blocked = True
            if self._telemetry.active:
                self._telemetry.emit(AuditStalled(str(trouble), self._ring.waiting()))
        self._ring.reconsider()

    def _tell_of_spill(self, spill: Spill) -> None:
        if self._telemetry.active:
            self._telemetry.emit(
                AuditSpilled(str(spill.directory), spill.size, self._trouble.database)
            )

    # -- how the database is

    def _failed(self, batch: Batch, error: Exception) -> None:
        """Tell everybody who listens or waits."""
        trouble, first = self._trouble, self._trouble.database is None
        self._rested = False
        self._resuming = True
        why = trouble.database = self._database.explain(error)
        self._appender.expect(failing=True)
        if first and self._telemetry.active:
            self._telemetry.emit(AuditStalled(why, self._ring.waiting()))
        self._ring.refuse_tickets(why)
        if batch.tickets:
            self._batch = batch.refuse(why)
        trouble.blocked = self._spill is None or trouble.disk is not None
        self._ring.reconsider()

    def _recovered(self, written: int) -> None:
        if self._trouble.database is not None:
            self._trouble.database = None
            self._trouble.blocked = False
            self._rest = _FIRST_PAUSE
            self._appender.expect(failing=False)
        if self._resuming:
            self._written += written
            if not self._spill:
                self._resuming = self._told = False
                if self._telemetry.active:
                    self._telemetry.emit(AuditResumed(self._written))
                self._written = 0

    def _rest_a_while(self) -> None:
        self._ring.rest(self._rest)
        self._rest = min(2 * self._rest, _LONGEST_PAUSE)
        self._rested = True
        self._trouble.disk = None
