"""The appender: the connection through which the writer of history adds its batches.

It is made anew after a failure, because the file or the server may be a new one, and then asks
the database how far its chain goes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DataError, InterfaceError, ProgrammingError

from actorbus.errors import AuditUnavailable
from actorbus.persistence.chains import Sealer, open_chain
from actorbus.persistence.rows import Rows, project_key
from actorbus.persistence.run_rows import RunRows

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from actorbus.clock import Clock
    from actorbus.message import IdSource
    from actorbus.persistence.anchors import Anchoring, Proof
    from actorbus.persistence.batches import Batch
    from actorbus.persistence.database import Database
    from actorbus.persistence.spill import Owner
    from actorbus.telemetry import Telemetry

_PATIENCE: Final = 1.0
"""How long a writer behind its senders waits for a lock: their ring fills meanwhile."""
_PATIENCE_LOST: Final = 0.1
_PATIENCE_STRICT: Final = 5.0
_ANSWER: Final = 3.0
"""How long beyond that a server may take to answer a statement."""

_UNWRITABLE: Final = (DataError, InterfaceError, ProgrammingError, ValueError, OverflowError)
"""What a database says to a value that it has no room for."""


class Appender:
    """Adds to the history of one node, in one chain. For one thread.

    `size`: the most rows of a statement. `strict`: senders wait for each commit.
    """

    def __init__(
        self,
        database: Database,
        owner: Owner,
        *,
        size: int,
        strict: bool,
        proof: Proof,
        ids: IdSource,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.connection: Connection | None = None
        self._database = database
        self._owner = owner
        self._size = size
        self._strict = strict
        self._proof = proof
        self._ids = ids
        self._clock = clock
        self._telemetry = telemetry
        self._incarnation = ids.make(clock.now())
        self._failing = False
        self._rows: Rows | None = None
        self._file: os.stat_result | None = None
        self._anchoring: Anchoring | None = None

    def append(self, batch: Batch, node: str | None = None) -> None:
        """Commit a batch, of what another `node` spilled if one is named: all of it or nothing.

        Raises:
            Exception: whatever keeps the database from it.
        """
        try:
            self._transact(batch, node, escaped=False)
        except _UNWRITABLE:
            self._transact(batch, node, escaped=True)

    def expect(self, *, failing: bool) -> None:
        """Whether the database is believed to fail: then no lock is worth a long wait."""
        self._failing = failing
        try:
            self._be_patient()
        except Exception:  # noqa: BLE001 - the next batch connects anew, and tells
            self._disconnect()

    def close(self) -> None:
        """Write the last anchor, and let go of the database."""
        if self._anchoring is not None and self.connection is not None:
            self._anchoring.write(self._clock.now())
        self._disconnect()

    def _transact(self, batch: Batch, node: str | None, *, escaped: bool) -> None:
        try:
            connection, rows = self._connected()
            if node is not None:
                rows = rows.of(node)
            with self._database.writing(connection):
                rows.write(connection, batch.pairs, batch.events, escaped=escaped)
            self._check_file()
            if self._anchoring is not None:
                self._anchoring.committed(self._clock.now())
        except BaseException:
            self._disconnect()
            raise

    def _connected(self) -> tuple[Connection, Rows]:
        if self.connection is None or self._rows is None:
            self.connection = self._database.connect(hasty=self._failing)
            self._be_patient()
            if self._failing:
                # A lock shows here at once, where the upgrade would wait long for it.
                with self._database.writing(self.connection):
                    pass
                self._database.upgrade()
            self._file = self._stat()
            self._rows = self._begin(self.connection)
        return self.connection, self._rows

    def _begin(self, connection: Connection) -> Rows:
        """Find or begin the project and the chain that the rows go into."""
        now, dialect = self._clock.now(), self._database.dialect
        tenant_name, project_name, node = self._owner
        with self._database.writing(connection):
            tenant, project = project_key(
                connection, tenant_name, project_name, ids=self._ids, now=now
            )
            incarnation, head = open_chain(
                connection,
                tenant,
                self._incarnation,
                node=node,
                now=now,
                anchors=self._proof.place,
            )
        chain = Sealer(dialect, incarnation, head)
        self._anchoring = self._proof.anchoring(
            chain, incarnation, telemetry=self._telemetry, before=self._anchoring
        )
        runs = RunRows(
            dialect, tenant=tenant, project=project, node=node, ids=self._ids, clock=self._clock
        )
        return Rows(
            dialect,
            tenant=tenant,
            project=project,
            node=node,
            batch=self._size,
            chain=chain,
            mask=self._proof.mask,
            runs=runs,
        )

    def _be_patient(self) -> None:
        """Wait for a lock or an answer no longer than the senders can; strict ones wait too."""
        if self.connection is None:
            return
        patience = _PATIENCE_STRICT if self._strict else _PATIENCE
        if self._failing:
            patience = _PATIENCE_LOST
        milliseconds = int(patience * 1000)
        driver: Any = self.connection.connection.driver_connection
        if self._database.dialect == "postgresql":
            driver.patience = patience + _ANSWER
            driver.execute(f"SET lock_timeout = {milliseconds}")
            driver.commit()
        elif self._database.path is not None:
            allowed = driver.execute("PRAGMA busy_timeout").fetchone()[0]
            driver.execute(f"PRAGMA busy_timeout = {min(allowed, milliseconds)}").close()

    def _stat(self) -> os.stat_result | None:
        return None if self._database.path is None else self._database.path.stat()

    def _check_file(self) -> None:
        """SQLite goes on writing to a file that was deleted, and says nothing."""
        path, opened = self._database.path, self._file
        if path is None or opened is None:
            return
        try:
            same = os.path.samestat(opened, path.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise AuditUnavailable(f"{path} was deleted or replaced while in use")

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            self._database.release(connection)
